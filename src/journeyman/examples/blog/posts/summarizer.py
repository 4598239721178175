"""What the worker asks for summaries, and which of the two that exist it gets.

The default needs nothing. `SUMMARIZER=openai` takes any service that speaks OpenAI's chat completions; a key that
merely stands in the environment changes nothing, so no document leaves this machine by accident.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from journeyman import JourneymanError

#: The longest summary: whatever makes it, it is cut to this.
SUMMARY_CHARACTERS_MAX = 600

CHOICES = ("extractive", "openai")


class Summarizer(Protocol):
    """Makes a summary of one document. Several calls may be under way at once."""

    @property
    def description(self) -> str:
        """Which one this is, in words to print. It never holds a key."""

    async def summarize(self, title: str, content: str, *, key: str) -> str:
        """A summary of at most SUMMARY_CHARACTERS_MAX characters, never empty.

        `key` is the same on every attempt for one request, so that a service can recognise a repeated one.

        Raises:
            GiveUp: this document can't be summarised, now or later.
            ServiceError, TimeoutError: the service failed; see `journeyman.errors` for its kinds.
        """

    async def close(self) -> None:
        """Give up what is open. Nothing may be asked afterwards."""


class NotConfigured(JourneymanError):
    """The environment does not say enough to open the summarizer that it asks for."""


def summarizer_from_environment(environ: Mapping[str, str] = os.environ) -> Summarizer:
    """Open the summarizer that `SUMMARIZER` names: `extractive`, the default, or `openai`.

    `openai` needs OPENAI_API_KEY and SUMMARY_MODEL; OPENAI_BASE_URL points it to another service than OpenAI's own.

    Raises:
        NotConfigured: `SUMMARIZER` names no summarizer, a variable is missing, or the `llm` extra is not installed.
    """
    # Each is imported where it is chosen: the base install lacks the openai package, which takes 0.7 s to import.
    match environ.get("SUMMARIZER") or "extractive":
        case "extractive":
            from .extractive import ExtractiveSummarizer

            return ExtractiveSummarizer(characters_max=SUMMARY_CHARACTERS_MAX)
        case "openai":
            return _open_openai(environ)
        case other:
            raise NotConfigured(f"SUMMARIZER is {other!r}. Set it to one of: {', '.join(CHOICES)}.")


def _open_openai(environ: Mapping[str, str]) -> Summarizer:
    api_key = _required(environ, "OPENAI_API_KEY")
    model = _required(environ, "SUMMARY_MODEL")
    try:
        from .openai_service import OPENAI_URL, OpenAISummarizer
    except ModuleNotFoundError as error:
        raise NotConfigured("SUMMARIZER=openai needs an extra: pip install 'journeyman[llm]'") from error
    base_url = environ.get("OPENAI_BASE_URL") or OPENAI_URL
    if not base_url.startswith(("http://", "https://")):
        raise NotConfigured("OPENAI_BASE_URL must begin with http:// or https://, as in http://localhost:11434/v1")
    return OpenAISummarizer(base_url=base_url, api_key=api_key, model=model, characters_max=SUMMARY_CHARACTERS_MAX)


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise NotConfigured(f"SUMMARIZER=openai needs {name}, which is not set. Set it, or unset SUMMARIZER.")
    if not (value.isascii() and value.isprintable()):
        raise NotConfigured(f"{name} holds characters that can't be sent. Was it copied whole?")
    return value
