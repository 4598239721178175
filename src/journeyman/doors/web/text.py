"""Stored text made safe to look at: what would hide, or would turn other text around, is shown as a sign.

Escaping keeps text from becoming markup. It does not keep a title from holding U+202E, behind which a browser writes
the rest of the line from right to left (Unicode Standard Annex 9, section 6.1; CVE-2021-42574).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup


def _signs() -> Iterator[tuple[int, str]]:
    for code in range(0x20):
        yield code, chr(0x2400 + code)  # Unicode has a picture of each: U+241B is what Escape looks like.
    yield 0x7F, "\N{SYMBOL FOR DELETE}"
    invisible = [*range(0x80, 0xA0), 0x061C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070)]
    for code in (*invisible, 0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)):
        yield code, f"⟨U+{code:04X}⟩"


#: By code point. Tabs and line ends stay; so do the joiners that emoji and some scripts need (U+200C, U+200D).
_SIGNS: Final = {code: sign for code, sign in _signs() if chr(code) not in "\t\n"}


def visible(text: object) -> str:
    """The text, with a sign in place of each character that is invisible or changes the direction of others."""
    told = str(text)
    # All of these signs stand for what is not printable, and looking for that takes a tenth of the time of replacing.
    return told if told.isprintable() else told.translate(_SIGNS)


def paragraphs(text: str) -> list[str]:
    """A text at its empty lines. Single line ends stay within."""
    blocks = visible(text.replace("\r\n", "\n")).split("\n\n")
    return [block for block in (block.strip("\n") for block in blocks) if block.strip()]


def moment(at: datetime | int) -> Markup:
    """A moment as `<time>`: a datetime, or microseconds since 1970. In UTC, so that all see the same."""
    at = datetime.fromtimestamp(at / 1_000_000, UTC) if isinstance(at, int) else at.astimezone(UTC)
    machine = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(machine, f"{at.day} {at:%b %Y, %H:%M} UTC")
