"""The statements of a PostgreSQL store, each from the file `postgres_NAME.sql` beside this one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

_FOLDER: Final = files(__package__)


class Statements(msgspec.Struct, frozen=True):
    """The statements for the store in one schema."""

    schema: str

    def __getitem__(self, name: str) -> str:
        return _in_schema(_text(name), self.schema)


class Migration(msgspec.Struct, frozen=True):
    """What leads from the layout before to layout `number`: the file `postgres_NUMBER.sql`."""

    number: int
    sql: str


def migrations(schema: str) -> list[Migration]:
    """All of them, in order; their numbers are 1, 2, 3 …"""
    names = sorted(
        file.name.removeprefix("postgres_").removesuffix(".sql")
        for file in _FOLDER.iterdir()
        if file.name.startswith("postgres_0")
    )
    return [Migration(int(name), _in_schema(_text(name), schema)) for name in names]


@cache
def _in_schema(sql: str, schema: str) -> str:
    return sql.replace("journeyman.", f'"{schema}".')


@cache
def _text(name: str) -> str:
    return _FOLDER.joinpath(f"postgres_{name}.sql").read_text(encoding="utf-8")
