"""The running text of a document: its paragraphs without code and markup, its sentences, a cut that keeps them whole.

Documents are Markdown, reStructuredText, docstrings or plain text, and nobody says which.
So these are rules of thumb, and each of them takes time in proportion to the document's length.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from itertools import groupby, takewhile

import sentencex

#: sentencex takes time quadratic in the length of Chinese text (320,000 characters: 25 s), so it gets pieces.
PIECE_CHARACTERS = 1_000
#: The share of ASCII digits and punctuation from which a line is taken for code, a table or a rule.
SYMBOLS_SHARE_MIN = 0.3

# These are matched against lines without spaces around them: after a leading \s*, each would be quadratic.
_UNDERLINE = re.compile(r"([=\-~^\"'`#*+_.:])\1{2,}$")
_MARKUP_LINE = re.compile(r"#{1,6}\s|\.\. |:\w[\w ]*:(?!`)")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)]|\(\d{1,3}\))\s+")
_CODE_LINE = re.compile(
    r"(?:import \w[\w.]*$|from [\w.]+ import |(?:async )?def \w+\(|class \w+.*:$|return\b.*[\w)\]]$|@\w+|[$%] \w"
    r"|(?:for|while|if|with|elif|try|else)\b.*:$|[\w.\[\]]+ *[-+*/|]?= *\S|[\w.]+\(.*\)[;:]?$|.*[;{}]$)"
)
_TABLE_LINE = re.compile(r"\S+(?: \S+)* {3,}\S+(?: \S+)* {3,}\S|\|.*\|$")
_SYMBOLS = frozenset(string.digits + string.punctuation)

_LINK = re.compile(r"!?\[([^\[\]\n]{1,200})\]\([^()\s]{1,500}\)|`([^`<\n]{1,200}) <[^>\n]{1,500}>`_{0,2}")
_ROLE = re.compile(r":[a-z]{1,20}(?::[a-z]{1,20})?:`~?([^`\n]{1,200})`")
_QUOTED_CODE = re.compile(r"(`{1,2})([^`\n]{1,200})\1")
_EMPHASIS = re.compile(r"(\*{1,2})(?=\S)([^*\n]{1,200})(?<=\S)\1")

_SENTENCE_END = re.compile(r"[.!?…。！？।؟][\"'”’»)\]」』]*$")


def paragraphs(content: str) -> list[str]:
    """The paragraphs and list items of running text in `content`, in order, each on one line."""
    lines = _without_fences(content.expandtabs().splitlines())
    blocks = (list(block) for blank, block in groupby(lines, key=_is_blank) if not blank)
    found = (_joined(item) for block in _without_literals(blocks) for item in _items(_without_markup(block)))
    return [paragraph for paragraph in found if any(map(str.isalpha, paragraph))]


def _is_blank(line: str) -> bool:
    return not line.strip()


def _without_fences(lines: Iterable[str]) -> Iterator[str]:
    """Leave out what stands between ``` and ```. A fence stands for a blank line: it parts paragraphs."""
    inside = False
    for line in lines:
        if line.lstrip().startswith("```"):
            inside = not inside
            yield ""
        elif not inside:
            yield line


def _without_literals(blocks: Iterable[list[str]]) -> Iterator[list[str]]:
    """Leave out the blocks that are indented deeper than a paragraph before them that ends in `::`.

    After that indentation says no more, so it is taken away.
    """
    literal_under: int | None = None
    for block in blocks:
        indent = _indent(block[0])
        if literal_under is not None and indent > literal_under:
            continue
        literal_under = indent if block[-1].rstrip().endswith("::") else None
        yield [line.strip() for line in block]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_markup(block: list[str]) -> list[str]:
    """Leave out headings, directives and doctests; a block that is mostly code leaves nothing."""
    text = list(takewhile(lambda line: not line.startswith(">>>"), _without_headings(block)))
    code = sum(map(_is_code, text))
    return [] if code * 2 >= len(text) else text


def _without_headings(block: list[str]) -> Iterator[str]:
    for line, following in zip(block, [*block[1:], ""], strict=True):
        if not (_UNDERLINE.match(line) or _UNDERLINE.match(following) or _MARKUP_LINE.match(line)):
            yield line


def _is_code(marked_line: str) -> bool:
    line = _plain(marked_line)
    symbols = sum(map(_SYMBOLS.__contains__, line))
    return symbols >= SYMBOLS_SHARE_MIN * len(line) or bool(_CODE_LINE.match(line) or _TABLE_LINE.match(line))


def _items(block: list[str]) -> Iterator[list[str]]:
    """Part a block where a list item begins."""
    item: list[str] = []
    for line in block:
        if (marker := _ITEM.match(line)) and item:
            yield item
            item = []
        item.append(line[marker.end() :] if marker else line)
    yield item


def _joined(lines: Iterable[str]) -> str:
    text = _plain(" ".join(" ".join(lines).split()))
    return text[:-1] if text.endswith("::") else text


def _plain(text: str) -> str:
    """Take the inline markup away: links, roles, quoted code, emphasis."""
    text = _LINK.sub(lambda link: link[1] or link[2], text)
    text = _QUOTED_CODE.sub(r"\2", _ROLE.sub(r"\1", text))
    return _EMPHASIS.sub(r"\2", text)


def sentences(text: str, language_code: str) -> Iterator[str]:
    """The sentences of one paragraph, in order, without the spaces around them."""
    start = 0
    while start < len(text):
        piece = text[start : start + PIECE_CHARACTERS]
        found = sentencex.segment(language_code, piece)
        if start + len(piece) < len(text) and len(found) > 1:
            found.pop()  # It may go on in the next piece, so that one begins with it.
        yield from filter(None, map(str.strip, found))
        start += sum(map(len, found))


def is_sentence(text: str) -> bool:
    """Whether `text` ends as a sentence does."""
    return _SENTENCE_END.search(text) is not None


def cut(text: str, language_code: str, *, characters_max: int) -> str:
    """The beginning of `text`, at most `characters_max` long: whole sentences, or if not even one fits, whole words."""
    if len(text) <= characters_max:
        return text
    kept = ""
    for sentence in sentences(text[: characters_max + 1], language_code):
        longer = f"{kept} {sentence}".lstrip()
        if len(longer) > characters_max or not is_sentence(sentence):
            break
        kept = longer
    return kept or _cut_at_word(text, characters_max)


def _cut_at_word(text: str, characters_max: int) -> str:
    beginning = text[:characters_max]
    words, space, _ = beginning.rpartition(" ")
    return (words if space else beginning[:-1]).rstrip() + "…"
