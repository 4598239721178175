"""What must be so on the server before a store is used: its settings, and the layout of its schema."""

from __future__ import annotations

from typing import Final

import asyncpg

from journeyman.errors import NotAStore, NotReady
from journeyman.store.base import Check
from journeyman.store.postgres_address import Address
from journeyman.store.postgres_link import Connection
from journeyman.store.postgres_sql import Migration, Statements, migrations

#: The oldest server whose makers still mend it, as of November 2026.
SERVER_VERSION_MIN: Final = 15

#: How long the migrations may wait for each other and for locks, in milliseconds.
MIGRATION_LOCK_MS: Final = 60_000

#: The settings that are looked at, in this order, on each new connection.
_SETTINGS: Final = (
    "server_version_num",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "server_encoding",
    "transaction_read_only",
)

#: Why each must be so, and what mends it.
_FIXES: Final = {
    "version": f"upgrade it to PostgreSQL {SERVER_VERSION_MIN} or newer",
    "fsync": "what was told is lost when the machine fails: ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();",
    "full_page_writes": (
        "a page that is half written when the machine fails is lost: ALTER SYSTEM SET full_page_writes = on; "
        "SELECT pg_reload_conf();"
    ),
    "synchronous_commit": (
        "a command is told before it is durable: ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf(); "
        "and see that neither the user nor the database sets it (\\drds in psql)"
    ),
    "server_encoding": "make a database with ENCODING 'UTF8'",
    "transaction_read_only": "it is a standby, or set to be read-only: use the URL of the primary",
}

_LOOK: Final = "SELECT " + ", ".join(f"current_setting('{name}')" for name in _SETTINGS)

_CREATE: Final = """
CREATE SCHEMA IF NOT EXISTS "{schema}";
CREATE TABLE "{schema}".journeyman_layout (
    number     integer     PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


#: What a user must be allowed, by table, and for the sequence of revisions.
_PRIVILEGES: Final = {
    "messages": "SELECT, INSERT",
    "key_values": "SELECT, INSERT, UPDATE, DELETE",
    "blobs": "SELECT, INSERT, UPDATE, DELETE",
    "blob_parts": "SELECT, INSERT, DELETE",
    "roles": "SELECT, INSERT, UPDATE, DELETE",
    "revisions": "USAGE",
}


async def server_checks(connection: Connection) -> list[Check]:
    """What durability and order need of the server."""
    row = await connection.fetchrow(_LOOK)
    assert row is not None
    found = dict(zip(_SETTINGS, row, strict=True))
    version = int(found["server_version_num"])
    return [
        _judged("version", f"{version // 10_000}.{version % 10_000}", version >= SERVER_VERSION_MIN * 10_000),
        _judged("fsync", found["fsync"], found["fsync"] == "on"),
        _judged("full_page_writes", found["full_page_writes"], found["full_page_writes"] == "on"),
        _judged("synchronous_commit", found["synchronous_commit"], found["synchronous_commit"] != "off"),
        _judged("server_encoding", found["server_encoding"], found["server_encoding"] == "UTF8"),
        _judged("transaction_read_only", found["transaction_read_only"], found["transaction_read_only"] == "off"),
    ]


def _judged(name: str, found: str, ok: bool) -> Check:
    return Check(name, ok, found, "" if ok else _FIXES[name])


def refuse_what_is_wrong(address: Address, checks: list[Check]) -> None:
    """Let nobody use a server that can't keep what it was told.

    Raises:
        NotReady: something is wrong; names all of it, with the fixes.
    """
    wrong = [f"{check.name} is {check.found}: {check.fix}" for check in checks if not check.ok]
    if wrong:
        raise NotReady(f"{address.url} can't be used safely. {'. '.join(wrong)}.")


async def migrate(connection: Connection, address: Address) -> None:
    """Make the schema a store of the newest layout, whatever other processes do so meanwhile.

    Raises:
        NotAStore: the schema holds something else, or a newer layout.
        NotReady: this user may not do so.
    """
    known = migrations(address.schema)
    layout = await layout_of(connection, address)
    if not _missing(known, layout, address):
        return
    try:
        await _migrate(connection, address, known)
    except asyncpg.InsufficientPrivilegeError as error:
        found = f"has layout {layout}" if layout else "holds no store yet"
        raise NotReady(
            f"{address.url}: the schema {address.schema} {found}, this version of Journeyman needs {len(known)}, "
            f"and this user may not bring it: {error}. Nothing was written. As the user who owns the store, or is to: "
            "journeyman store init URL"
        ) from error


async def _migrate(connection: Connection, address: Address, known: list[Migration]) -> None:
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL lock_timeout = {MIGRATION_LOCK_MS}")
        await connection.execute(f"SELECT pg_advisory_xact_lock({address.lock_key('migrations')})")
        # Only now: another process may have done it meanwhile.
        layout = await layout_of(connection, address)
        if layout == 0:
            await connection.execute(_CREATE.format(schema=address.schema))
        for migration in _missing(known, layout, address):
            await connection.execute(migration.sql)
            await connection.execute(Statements(address.schema)["migrated"], migration.number)


async def check_layout(connection: Connection, address: Address) -> None:
    """Make sure that the schema is a store of the newest layout.

    Raises:
        NotAStore: it holds something else, or a newer layout.
        NotReady: there is no store, or it has an older layout.
    """
    if _missing(migrations(address.schema), await layout_of(connection, address), address):
        raise NotReady(
            f"There is no store of this version's layout in the schema {address.schema} of {address.url} yet. Make it: "
            "journeyman store init URL"
        )


async def layout_of(connection: Connection, address: Address) -> int:
    """The layout's number; 0 when there is nothing yet.

    Raises:
        NotAStore: the schema holds something else.
    """
    row = await connection.fetchrow(Statements(address.schema)["content"], address.schema)
    assert row is not None
    is_store, relations = row
    if is_store:
        number = await connection.fetchval(Statements(address.schema)["layout"])
        assert isinstance(number, int)
        return number
    if relations:
        raise NotAStore(
            f"The schema {address.schema} of {address.url} holds something else. Name another one in the store's URL: "
            "?schema=NAME"
        )
    return 0


def _missing(known: list[Migration], layout: int, address: Address) -> list[Migration]:
    if layout > len(known):
        raise NotAStore(
            f"The schema {address.schema} of {address.url} has layout {layout}, this version of Journeyman knows "
            f"{len(known)}. Upgrade Journeyman."
        )
    return known[layout:]


async def privilege_checks(connection: Connection, address: Address) -> list[Check]:
    """What this user must be allowed to do with each table, and with the sequence."""
    return [await _privilege(connection, address, name, needed) for name, needed in _PRIVILEGES.items()]


async def _privilege(connection: Connection, address: Address, name: str, needed: str) -> Check:
    kind = "sequence" if needed == "USAGE" else "table"
    full = f'"{address.schema}".{name}'
    ask = f"SELECT has_{kind}_privilege($1, $2)"
    missing = [one for one in needed.split(", ") if not await connection.fetchval(ask, full, one)]
    if not missing:
        return Check(f"rights on {name}", True, needed)
    user = await connection.fetchval("SELECT quote_ident(current_user)")
    return Check(f"rights on {name}", False, f"no {', '.join(missing)}", f"GRANT {needed} ON {kind} {full} TO {user};")


async def facts(connection: Connection, address: Address) -> dict[str, str | int]:
    """What a person may want to know of a store."""
    row = await connection.fetchrow(Statements(address.schema)["facts"], f'"{address.schema}"')
    assert row is not None
    return {
        "schema": address.schema,
        "layout": await layout_of(connection, address),
        **dict(row.items()),
        "pooler": "transaction" if address.pooled else "none",
    }
