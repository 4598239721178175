"""No stored text can hide, turn other text around, or stand for markup; what people write stays as it is."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest

from journeyman.doors.web import text
from journeyman.doors.web.text import moment, paragraphs, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("safe\u202egnp.exe", "safe⟨U+202E⟩gnp.exe"),
        ("a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"),
        ("\u200e\u200f\u061c", "⟨U+200E⟩⟨U+200F⟩⟨U+061C⟩"),
        ("\x00\x1b[31m\x7f\r", "␀␛[31m␡␍"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
    ],
)
def test_what_would_hide_or_turn_text_around_is_shown_as_a_sign(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["tab\tand\nlines", "👩‍💻 می‌خواهم", "שלום عربى", "ä ß € – 字", "<b>&amp;"])
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


def test_every_character_that_has_a_sign_is_shown_by_it() -> None:
    assert [code for code in text._SIGNS if visible(f"a{chr(code)}") != f"a{text._SIGNS[code]}"] == []


def test_no_character_that_formats_others_is_left_out() -> None:
    """All of Unicode's bidirectional controls, and all control characters but tab and line end."""
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    characters = map(chr, range(0x110000))
    hidden = [c for c in characters if unicodedata.bidirectional(c) in directions or unicodedata.category(c) == "Cc"]
    assert [c for c in hidden if visible(c) == c] == ["\t", "\n"]


def test_paragraphs_are_parted_at_empty_lines_only() -> None:
    text = "\n\nOne\nstill one\r\n\r\nTwo\n\n\n  indented\n\n \n"
    assert paragraphs(text) == ["One\nstill one", "Two", "  indented"]
    assert paragraphs("") == []


def test_a_moment_is_told_in_utc_for_people_and_machines() -> None:
    at = datetime(2026, 3, 1, 1, 5, 7, 123456, tzinfo=timezone(timedelta(hours=2)))
    shown = '<time datetime="2026-02-28T23:05:07.123Z">28 Feb 2026, 23:05 UTC</time>'
    assert moment(at) == shown
    assert moment(int(at.astimezone(UTC).timestamp() * 1_000_000)) == shown
