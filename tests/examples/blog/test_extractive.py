"""A document's own central sentences are its summary: the same each time, in any language, soon, or a clear no."""

import asyncio
import time

import pytest

from journeyman import GiveUp
from journeyman.examples.blog.documents import standard_library_documents
from journeyman.examples.blog.posts.extractive import (
    SENTENCES_COMPARED_MAX,
    ExtractiveSummarizer,
    _candidates,
    extract,
)
from journeyman.examples.blog.posts.languages import UNKNOWN
from journeyman.examples.blog.posts.prose import paragraphs
from journeyman.examples.blog.posts.summarizer import SUMMARY_CHARACTERS_MAX

GERMAN = """\
Die Gezeiten sind die regelmäßigen Bewegungen des Meeres, die durch die Anziehungskraft des Mondes und der Sonne
entstehen. Zweimal am Tag steigt das Wasser an und fällt wieder. Mein Großvater hatte ein kleines Boot, das blau
gestrichen war. Bei Vollmond und Neumond addieren sich die Kräfte von Mond und Sonne, und die Gezeiten fallen besonders
stark aus. Er trank gern Tee, z. B. am Abend. Wer im Watt wandert, sollte die Zeiten der Flut kennen.
"""
CHINESE = (
    "潮汐是海水在月球和太阳引力作用下的周期性运动。海水每天涨落两次。我的祖父有一条蓝色的小船。"
    "满月和新月时，月球和太阳的引力叠加，潮汐特别强。他喜欢喝茶。"
)


def summary(content: str, title: str = "") -> str:
    return extract(title, content, characters_max=SUMMARY_CHARACTERS_MAX)


def test_the_central_sentences_are_chosen_and_keep_their_order() -> None:
    text = summary(GERMAN, "Die Gezeiten")

    assert text.startswith("Die Gezeiten sind die regelmäßigen Bewegungen des Meeres")
    assert text.endswith("und die Gezeiten fallen besonders stark aus.")
    assert "Großvater" not in text
    assert "Tee" not in text


def test_a_script_without_spaces_is_summarised_too() -> None:
    text = summary(CHINESE, "潮汐")

    assert text.startswith("潮汐是海水")
    assert "潮汐特别强。" in text
    assert "茶" not in text


def test_the_title_draws_the_choice() -> None:
    text = (
        "Cats sleep in the sun all day. Dogs run in the park all day. Birds sing in the tree all day. "
        "Fish swim in the sea all day. Cows eat in the field all day."
    )

    assert "Cows eat" in summary(text, "What cows eat in a field")
    assert "Cows eat" not in summary(text, "What fish do")


def test_a_short_text_is_its_own_summary() -> None:
    assert summary("It rained all day long. We stayed at home.") == "It rained all day long. We stayed at home."


def test_a_text_without_sentences_is_cut_at_a_word() -> None:
    text = summary("apples pears plums " * 100)

    assert text.endswith("…")
    assert len(text) <= SUMMARY_CHARACTERS_MAX


def test_what_is_said_twice_is_taken_once() -> None:
    text = summary("The tide rises twice a day. " * 5 + "The moon pulls at the sea.")

    assert text == "The tide rises twice a day. The moon pulls at the sea."


@pytest.mark.parametrize("content", ["", " \n ", "import os\nx = 1", ">>> 1 + 1\n2", "-----"])
def test_a_text_with_nothing_to_summarise_is_given_up(content: str) -> None:
    with pytest.raises(GiveUp, match="nothing to summarise"):
        summary(content)


def test_every_document_of_the_standard_library_has_a_summary_of_its_own_words() -> None:
    for document in standard_library_documents():
        text = summary(document.content, document.title)

        assert 0 < len(text) <= SUMMARY_CHARACTERS_MAX, document.name
        assert ">>>" not in text
        assert text.split()[0] in " ".join(paragraphs(document.content))
        assert text == summary(document.content, document.title)


@pytest.mark.parametrize(
    "content",
    [
        "\n\n".join(document.content for document in standard_library_documents()) * 3,
        CHINESE * 9_000,
        "x" * 1_000_000,
        "[" * 1_000_000,
        "`" * 500_000 + "*" * 500_000,
        "!" + ")" * 1_000_000,
        "- a\n" * 250_000,
        "a::\n\n b\n\n" * 110_000,
        ("word " * 11 + "word. ") * 16_000,
        (" " * 100_000 + "a\n") * 10,
    ],
    ids=["docs", "chinese", "word", "brackets", "ticks", "closers", "items", "literals", "prose", "indent"],
)
def test_a_megabyte_of_anything_is_done_soon(content: str) -> None:
    """Some 0.1 to 1 s here; a rule that took quadratic time would take minutes."""
    start_s = time.process_time()
    try:
        text = summary(content)
    except GiveUp:
        text = ""

    assert len(text) <= SUMMARY_CHARACTERS_MAX
    assert time.process_time() - start_s < 10


def test_of_a_long_document_a_bounded_number_of_sentences_is_compared_evenly_spread() -> None:
    text = [f"We saw exactly {n} cats." for n in range(3 * SENTENCES_COMPARED_MAX)]

    found = _candidates(text, UNKNOWN, 100)

    assert len(found) == SENTENCES_COMPARED_MAX
    assert found == text[::3]


async def test_the_loop_goes_on_meanwhile_and_several_run_at_once() -> None:
    summarizer = ExtractiveSummarizer(characters_max=SUMMARY_CHARACTERS_MAX)
    documents = [("Die Gezeiten", GERMAN), ("潮汐", CHINESE)] * 10

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(summarizer.summarize(*document, key="k")) for document in documents]
    await summarizer.close()

    assert [task.result() for task in running] == [summary(content, title) for title, content in documents]


def test_it_says_what_it_is() -> None:
    assert "offline" in ExtractiveSummarizer(characters_max=1).description
