"""The environment chooses the summarizer: the offline one, unless it is asked for another in so many words."""

import subprocess
import sys

import pytest

from journeyman.examples.blog.posts.extractive import ExtractiveSummarizer
from journeyman.examples.blog.posts.openai_service import OpenAISummarizer
from journeyman.examples.blog.posts.summarizer import NotConfigured, Summarizer, summarizer_from_environment

OPENAI = {"SUMMARIZER": "openai", "OPENAI_API_KEY": "sk-secret", "SUMMARY_MODEL": "small"}


@pytest.mark.parametrize("environ", [{}, {"SUMMARIZER": ""}, {"SUMMARIZER": "extractive"}])
def test_the_default_is_offline(environ: dict[str, str]) -> None:
    assert isinstance(summarizer_from_environment(environ), ExtractiveSummarizer)


def test_a_key_alone_changes_nothing() -> None:
    opened = summarizer_from_environment({**OPENAI, "SUMMARIZER": ""})

    assert isinstance(opened, ExtractiveSummarizer)


async def test_openai_is_taken_when_asked_for_and_never_shows_its_key() -> None:
    opened: Summarizer = summarizer_from_environment({**OPENAI, "OPENAI_BASE_URL": "http://localhost:11434/v1"})
    await opened.close()

    assert isinstance(opened, OpenAISummarizer)
    assert opened.description == "openai: small at localhost:11434"


async def test_openais_own_service_needs_no_url() -> None:
    opened = summarizer_from_environment(OPENAI)
    await opened.close()

    assert opened.description == "openai: small at api.openai.com"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "SUMMARY_MODEL"])
@pytest.mark.parametrize("value", ["", "  "])
def test_a_missing_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(NotConfigured, match=f"needs {name}"):
        summarizer_from_environment({**OPENAI, name: value})


def test_a_key_that_can_t_be_sent_is_refused_and_not_shown() -> None:
    with pytest.raises(NotConfigured, match="OPENAI_API_KEY") as caught:
        summarizer_from_environment({**OPENAI, "OPENAI_API_KEY": "sk-secret…"})

    assert "secret" not in str(caught.value)


def test_a_url_without_its_scheme_is_refused() -> None:
    with pytest.raises(NotConfigured, match="http://localhost:11434/v1"):
        summarizer_from_environment({**OPENAI, "OPENAI_BASE_URL": "localhost:11434"})


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(NotConfigured, match=r"'magic'.*extractive, openai"):
        summarizer_from_environment({"SUMMARIZER": "magic"})


WITHOUT_THE_EXTRA = """
import sys
sys.modules["openai"] = None  # what Python keeps for a module that can't be imported
from journeyman.examples.blog.posts.summarizer import NotConfigured, summarizer_from_environment
print(summarizer_from_environment({}).description)
try:
    summarizer_from_environment({"SUMMARIZER": "openai", "OPENAI_API_KEY": "k", "SUMMARY_MODEL": "m"})
except NotConfigured as error:
    print(error)
"""


def test_without_the_extra_the_default_works_and_openai_says_what_to_install() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True, check=True)

    offline, refused = ran.stdout.splitlines()
    assert "offline" in offline
    assert "pip install 'journeyman[llm]'" in refused
