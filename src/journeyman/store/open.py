"""From a URL to an open store. A backend is imported only when its URL asks for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from journeyman.errors import NotReady, UnknownName
from journeyman.store.base import Store

if TYPE_CHECKING:
    from journeyman.store.jetstream import JetStreamStore
    from journeyman.store.postgres import PostgresStore

#: The forms of URL that `open_store` knows, for error texts and help.
URL_FORMS = ("memory:", "sqlite:///relative.db", "sqlite:////absolute.db", "postgresql://…", "nats://…")


async def open_store(url: str) -> Store:
    """Open the store that the URL names; create it where that is possible. The caller closes it.

    `memory:` is a fresh store each time. `sqlite:///blog.db` is a file in the working directory,
    `sqlite:////var/lib/blog.db` one anywhere. What follows `sqlite:///` is the path as it is: no escapes, no options.
    `nats://host:4222/NAME` is a log of that name in JetStream; what else it may say is in docs/scaling.md.

    Raises:
        UnknownName: no backend has URLs of that form.
        NotReady: the store can't be opened now.
        NotAStore: it holds something else, or a layout newer than this version knows.
    """
    scheme, _, rest = url.partition(":")
    if url == "memory:":
        from journeyman.store.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        return await _open_sqlite(url, rest)
    if scheme == "postgresql" and rest.startswith("//"):
        return await _postgres().open(url)
    if scheme == "nats" and rest.startswith("//"):
        return await _jetstream().open(url)
    # Only the scheme is shown: the rest may hold a password.
    raise UnknownName("store URL", f"{scheme}:…" if rest else url, known=URL_FORMS)


async def find_store(url: str) -> Store:
    """Open a store that is there already, as `open_store` does; create none.

    Raises:
        UnknownName, NotReady, NotAStore: as `open_store`; NotReady also when there is none.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "postgresql" and rest.startswith("//"):
        return await _postgres().find(url)
    if scheme == "nats" and rest.startswith("//"):
        return await _jetstream().find(url)
    path = rest.removeprefix("///")
    if scheme == "sqlite" and path not in ("", rest) and not os.path.exists(path):  # noqa: ASYNC240  # a moment
        raise NotReady(f"There is no store {url} yet: check the URL, or make it: journeyman store init {url}")
    return await open_store(url)


async def _open_sqlite(url: str, rest: str) -> Store:
    path = rest.removeprefix("///")
    if path in ("", rest):
        raise UnknownName("SQLite store URL", url, known=[form for form in URL_FORMS if form.startswith("sqlite:")])
    if path == ":memory:":
        raise UnknownName("SQLite store URL", url, known=["memory: (for a store in memory)"])
    from journeyman.store.sqlite import SqliteStore

    return await SqliteStore.open(path, url=url)


def _postgres() -> type[PostgresStore]:
    try:
        from journeyman.store.postgres import PostgresStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise NotReady("A PostgreSQL store needs its driver: pip install 'journeyman[postgres]'") from error
    return PostgresStore


def _jetstream() -> type[JetStreamStore]:
    try:
        from journeyman.store.jetstream import JetStreamStore
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "nats":
            raise
        raise NotReady("A JetStream store needs the driver of NATS: pip install 'journeyman[jetstream]'") from error
    return JetStreamStore
