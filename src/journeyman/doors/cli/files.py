"""Documents in files: JSON Lines, CSV, Markdown, plain text; read as a stream, each fault with its file and line."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from journeyman.errors import Invalid
from journeyman.message import BODY_BYTES_MAX

#: The longest line of a JSON Lines or CSV file, in bytes: JSON may write one character in six.
LINE_BYTES_MAX: Final = 8 * BODY_BYTES_MAX

#: The longest title that is taken from a text, in characters.
TITLE_CHARACTERS_MAX: Final = 200

_COLUMNS: Final = frozenset({"title", "content"})
_COLUMNS_POSSIBLE: Final = frozenset({"title", "content", "post_id"})

_HEADING: Final = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
_FENCE: Final = re.compile(r" {0,3}(```|~~~)")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One text to import.

    `file` is the file's name without its folders, `place` says where the text stands, for people, and `read_bytes` how
    much of this file, and of those before it, was read with it.
    """

    title: str
    content: str
    post_id: str | None = None
    file: str
    place: str
    read_bytes: int


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    content: str
    post_id: str | None = None


class _Line(msgspec.Struct, frozen=True):
    number: int
    text: str
    end_bytes: int


class Files(msgspec.Struct, frozen=True):
    """The files to import, each once, in order; and how many others stand in the same folders."""

    paths: list[Path]
    passed_over: int

    def size_bytes(self) -> int:
        """The size of all files together.

        Raises:
            Invalid: a file can't be read; says which.
        """
        size = 0
        for path in self.paths:
            with _told_of(path):
                size += path.stat().st_size
        return size

    def documents(self) -> Iterator[Document]:
        """All documents, file by file.

        Raises:
            Invalid: a file or a line can't be read; says which.
        """
        before_bytes = 0
        for path in self.paths:
            with _told_of(path):
                for document in KINDS[path.suffix.lower()](path):
                    yield msgspec.structs.replace(document, read_bytes=before_bytes + document.read_bytes)
                before_bytes += path.stat().st_size


def find_files(paths: Iterable[Path]) -> Files:
    """The files that these paths name, and in folders, at any depth, those of a known kind that are not hidden.

    Raises:
        Invalid: a path is not there, or names a file of another kind.
    """
    found: dict[str, Path] = {}
    passed_over = 0
    for path in paths:
        if not path.exists():
            raise Invalid(str(path), ["there is no such file or folder"])
        inside = sorted(_inside(path)) if path.is_dir() else [path]
        for file in inside:
            if file.suffix.lower() in KINDS:
                found.setdefault(os.path.realpath(file), file)
            elif path.is_dir():
                passed_over += 1
            else:
                raise Invalid(str(path), [f"it is none of the kinds that can be read: {', '.join(KINDS)}"])
    return Files(list(found.values()), passed_over)


def _inside(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(where, name) for name in names if not name.startswith("."))


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Say an operating system's error with the file's name."""
    try:
        yield
    except OSError as error:
        raise Invalid(str(path), [error.strerror or str(error)]) from error


def _json_lines(path: Path) -> Iterator[Document]:
    for line in _lines(path):
        if not line.text.strip():
            continue
        try:
            row = msgspec.json.decode(line.text.encode(), type=_Row)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _fault(path, line.number, str(error)) from error
        yield _document(path, line.number, row, line.end_bytes)


def _csv(path: Path) -> Iterator[Document]:
    csv.field_size_limit(LINE_BYTES_MAX)
    end_bytes = 0

    def texts() -> Iterator[str]:
        nonlocal end_bytes
        for line in _lines(path):
            end_bytes = line.end_bytes
            yield line.text

    reader = csv.reader(texts(), strict=True)
    first_line = 1
    columns: list[str] = []
    try:
        columns = next(reader, [])
        _check_columns(path, columns)
        first_line = reader.line_num + 1
        for values in reader:
            if values:
                yield _document(path, first_line, _row(path, first_line, columns, values), end_bytes)
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise _fault(path, first_line, f"this is no CSV: {error}") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    found = set(columns)
    if not _COLUMNS <= found <= _COLUMNS_POSSIBLE or len(found) != len(columns):
        raise _fault(
            path, 1, f"it must name the columns title, content and perhaps post_id, not {','.join(columns)[:100]!r}"
        )


def _row(path: Path, number: int, columns: list[str], values: list[str]) -> _Row:
    if len(values) != len(columns):
        raise _fault(path, number, f"it has {len(values)} values for {len(columns)} columns")
    named = dict(zip(columns, values, strict=True))
    return _Row(named["title"], named["content"], named.get("post_id") or None)


def _markdown(path: Path) -> Iterator[Document]:
    text = _whole(path)
    yield _text_document(path, _heading(text) or path.stem, text)


def _text(path: Path) -> Iterator[Document]:
    text = _whole(path)
    first = text.lstrip().partition("\n")[0].strip()
    yield _text_document(path, first if 0 < len(first) <= TITLE_CHARACTERS_MAX else path.stem, text)


def _heading(text: str) -> str | None:
    """The first ATX heading (CommonMark 0.31, 4.2) outside of front matter and fenced code; None without one."""
    lines = text.splitlines()
    if lines[:1] == ["---"] and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    fence: str | None = None
    for line in lines:
        found = _FENCE.match(line)
        if found and fence in (None, found[1]):
            fence = found[1] if fence is None else None
        elif fence is None and (heading := _HEADING.fullmatch(line)) and heading[1]:
            return heading[1]
    return None


def _text_document(path: Path, title: str, text: str) -> Document:
    if len(title) > TITLE_CHARACTERS_MAX:
        title = title[: TITLE_CHARACTERS_MAX - 1] + "…"
    # A file's name may hold bytes that are no text.
    title = title.encode(errors="replace").decode()
    return Document(title=title, content=text, file=path.name, place=str(path), read_bytes=path.stat().st_size)


def _whole(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(BODY_BYTES_MAX + 1)
    if len(data) > BODY_BYTES_MAX:
        raise Invalid(str(path), [f"it has more than {BODY_BYTES_MAX} bytes, which no message may"])
    for number, line in enumerate(data.split(b"\n"), 1):
        _decode(path, number, line)
    return data.decode("utf-8-sig")


def _lines(path: Path) -> Iterator[_Line]:
    """The lines of a file, with their ends, as text: UTF-8, with or without a byte order mark."""
    end_bytes = 0
    with path.open("rb") as file:
        number = 0
        while data := file.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(data) > LINE_BYTES_MAX:
                raise _fault(path, number, f"it has more than {LINE_BYTES_MAX} bytes")
            end_bytes += len(data)
            text = _decode(path, number, data)
            yield _Line(number, text.removeprefix("\ufeff") if number == 1 else text, end_bytes)


def _decode(path: Path, number: int, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _fault(path, number, f"this is not UTF-8: {error.reason} at byte {error.start + 1}") from error


def _document(path: Path, number: int, row: _Row, end_bytes: int) -> Document:
    return Document(
        title=row.title,
        content=row.content,
        post_id=row.post_id or None,
        file=path.name,
        place=f"{path}, line {number}",
        read_bytes=end_bytes,
    )


def _fault(path: Path, number: int, problem: str) -> Invalid:
    return Invalid(f"{path}, line {number}", [problem])


#: How files of each kind are read, by the end of their name.
KINDS: Final[dict[str, Callable[[Path], Iterator[Document]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _text,
}
