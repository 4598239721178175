"""Running text is found among code and markup, and is cut only between sentences or words."""

import time

import pytest

from journeyman.examples.blog.posts.prose import cut, is_sentence, paragraphs, sentences

DOCSTRING = """\
    Counting things
    ===============

    A ``Counter`` counts things. It is used by
    :class:`~shop.Till` and *often* by `others <https://example.org>`_::

        till = Till()
        till.count("apples")

    .. note:: Not for readers.

    It is fast.

    >>> Counter("abc")
    Counter(a=1)

    :param things: what to count

    - First it looks.
    - Then it counts
      each of them.
"""


def test_a_docstring_leaves_its_prose() -> None:
    assert paragraphs(DOCSTRING) == [
        "A Counter counts things. It is used by shop.Till and often by others:",
        "It is fast.",
        "First it looks.",
        "Then it counts each of them.",
    ]


def test_markdown_leaves_its_prose() -> None:
    text = (
        "# Title\n\nSee **the** [manual](https://example.org).\n\n```python\nimport os\n```\n\n| a | b |\n|---|---|\n"
    )

    assert paragraphs(text) == ["See the manual."]


@pytest.mark.parametrize(
    "code",
    [
        "",
        "   \n\t\n",
        "import os",
        "x = 1\ny = 2",
        "def f(a):\n    return a",
        "class A:\n    pass_(1)",
        ">>> 1 + 1\n2",
        "```\nany words\n```",
        "int main() {\n}",
        "-----",
        "a     b     c\nd     e     f",
        "12 34 !?",
    ],
)
def test_code_tables_and_rules_are_no_prose(code: str) -> None:
    assert paragraphs(code) == []


@pytest.mark.parametrize("text", ["海水每天涨落两次。", "पानी दिन में दो बार उठता है।", "يرتفع الماء مرتين في اليوم."])
def test_prose_of_other_scripts_is_prose(text: str) -> None:
    assert paragraphs(text) == [text]


def test_sentences_know_abbreviations() -> None:
    assert list(sentences("Dr. Smith saw e.g. cats. He left!", "en")) == ["Dr. Smith saw e.g. cats.", "He left!"]


def test_a_paragraph_of_any_length_gives_the_same_sentences() -> None:
    text = "We saw cats. " * 1_000

    assert set(sentences(text, "en")) == {"We saw cats."}
    assert len(list(sentences(text, "en"))) == 1_000


def test_a_megabyte_of_chinese_is_split_in_linear_time() -> None:
    """In one piece, a third of it took 25 s."""
    start_s = time.process_time()
    found = list(sentences("我们今天去公园。" * 120_000, "en"))

    assert len(found) == 120_000
    assert time.process_time() - start_s < 5


@pytest.mark.parametrize("text", ["Yes.", 'He said "no."', "什么？", "(It ends here!)", "और नहीं।"])
def test_a_sentence_has_an_end(text: str) -> None:
    assert is_sentence(text)


@pytest.mark.parametrize("text", ["", "A heading", "and then:", "key, value"])
def test_a_fragment_has_none(text: str) -> None:
    assert not is_sentence(text)


def test_a_text_within_the_limit_is_not_cut() -> None:
    assert cut("No end", "en", characters_max=6) == "No end"


def test_a_long_text_is_cut_after_a_sentence() -> None:
    assert cut("One is here. Two is here. Three is here.", "en", characters_max=30) == "One is here. Two is here."


def test_a_sentence_that_just_fits_is_kept() -> None:
    assert cut("One is here. Two is here.", "en", characters_max=12) == "One is here."


def test_a_long_sentence_is_cut_after_a_word_and_says_so() -> None:
    assert cut("One two three four", "en", characters_max=10) == "One two…"


def test_a_long_word_is_cut_within() -> None:
    assert cut("x" * 20, "en", characters_max=10) == "x" * 9 + "…"
