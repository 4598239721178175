"""The store in a PostgreSQL database: many machines, as many processes as the server takes.

Each store has up to four connections, opened when they are needed: one that appends, one that reads, one for the
writers' turn, and a kept session that listens and holds roles. Behind a pooler there is no session: the log is looked
at more often, and roles are leased.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast
from uuid import uuid4

import asyncpg
import msgspec

from journeyman.errors import Corrupt, NotReady, OutcomeUnknown, WrongLog
from journeyman.message import Record
from journeyman.store import postgres_schema
from journeyman.store.base import Blobs, Entry, Examination, KeyValue, MessageLog
from journeyman.store.limits import check_batch, check_entry, check_written
from journeyman.store.postgres_address import Address, parse_address
from journeyman.store.postgres_blobs import PostgresBlobs
from journeyman.store.postgres_link import (
    BEGIN,
    CALL_S,
    CLOSE_S,
    DRIVER_ERRORS,
    LONG_CALL_S,
    Connection,
    Link,
    connect,
    not_ready,
)
from journeyman.store.postgres_session import Leases, Roles, Session
from journeyman.store.postgres_sql import Statements
from journeyman.store.postgres_watch import LOOK_S, LOOK_UNTOLD_S, Notifier, Watch

#: The most records that one statement reads.
READ_RECORDS_MAX: Final = 2000

#: How long opening may take, in seconds: it may wait for another process that brings the layout up to date.
OPEN_S: Final = 60.0

#: What makes sure that a store is there, over a connection of its own.
Prepare: TypeAlias = Callable[[Connection, Address], Awaitable[None]]

#: The message name that has an index of its own.
SET_ASIDE: Final = "journeyman/message-set-aside"


class PostgresStore:
    """A store in a PostgreSQL database. Open it by `open`, or by `open_store` from a URL."""

    durability = "PostgreSQL, synchronous_commit and fsync on"

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self._address = address
        self._last = _LastSeen()
        begin = BEGIN if address.pooled else None
        self._reader = Link(address, self._connect, begin=begin)
        self._writer = Link(address, self._connect, begin=begin)
        # Its transaction is the turn itself.
        self._turn = Link(address, self._connect, begin=None)
        holder = uuid4().hex
        self._session = None if address.pooled else Session(address, holder, self._connect, on_news=self._tell)
        self._roles: Roles = self._session or Leases(address, holder, self._reader)
        self._log = PostgresLog(address, self._reader, self._writer, self._turn, self._session, self._last)
        self.log: MessageLog = self._log
        self.keys: KeyValue = PostgresKeys(address, self._reader)
        self.blobs: Blobs = PostgresBlobs(address, self._reader)

    @classmethod
    async def open(cls, url: str) -> PostgresStore:
        """Open the store, or make it, and bring its layout up to this version's.

        Raises:
            NotReady: it can't be opened now, or the server is not set to keep what it is told; says the fix.
            NotAStore: the schema holds something else, or a layout newer than known.
        """
        return await cls._opened(parse_address(url), postgres_schema.migrate)

    @classmethod
    async def find(cls, url: str) -> PostgresStore:
        """Open a store that is there, and make none.

        Raises:
            NotReady, NotAStore: as `open`; also when there is none.
        """
        return await cls._opened(parse_address(url), postgres_schema.check_layout)

    @classmethod
    async def _opened(cls, address: Address, prepare: Prepare) -> PostgresStore:
        try:
            async with asyncio.timeout(OPEN_S):
                await _prepare(address, prepare)
        except DRIVER_ERRORS as error:
            raise not_ready(address, error) from error
        return cls(address)

    async def _connect(self) -> Connection:
        """A connection to the log that was read before: the server may have been replaced, or restored, meanwhile."""
        connection = await connect(self._address)
        try:
            postgres_schema.refuse_what_is_wrong(self._address, await postgres_schema.server_checks(connection))
            await self._last.check(connection, self._address)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _tell(self) -> None:
        self._log.watch.tell()

    async def claim(self, role: str) -> bool:
        return await self._roles.claim(role)

    async def release(self, role: str) -> None:
        await self._roles.release(role)

    async def examine(self) -> Examination:
        return await self._reader.call(self._examined)

    async def _examined(self, connection: Connection) -> Examination:
        checks = await postgres_schema.server_checks(connection)
        checks += await postgres_schema.privilege_checks(connection, self._address)
        return Examination(checks=tuple(checks), facts=await postgres_schema.facts(connection, self._address))

    async def open_again(self) -> PostgresStore:
        store = PostgresStore(self._address)
        try:
            await store.log.head()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        await self._log.close()
        await self._roles.close()
        for link in (self._turn, self._writer, self._reader):
            await link.close()


async def _prepare(address: Address, prepare: Prepare) -> None:
    connection = await connect(address)
    try:
        async with asyncio.timeout(CALL_S):
            postgres_schema.refuse_what_is_wrong(address, await postgres_schema.server_checks(connection))
        await prepare(connection, address)
        await connection.close(timeout=CLOSE_S)
    finally:
        connection.terminate()


class _LastSeen:
    """The last record that a store has read or written: what a new connection must find in its place."""

    def __init__(self) -> None:
        self._position = 0
        self._id = ""

    def see(self, record: Record) -> None:
        if record.position > self._position:
            self._position, self._id = record.position, record.id

    async def check(self, connection: Connection, address: Address) -> None:
        """Make sure that it is there.

        Raises:
            WrongLog: it isn't.
        """
        position, id = self._position, self._id  # Now: another connection may see more meanwhile.
        if position == 0:
            return
        if await connection.fetchval(Statements(address.schema)["ids"], position - 1, 1) != id:
            raise WrongLog(
                f"{address.url}: the log's message at position {position} is not the one that was there before: "
                "the log was replaced, or restored from an older backup. Find out which, then restart this process."
            )


class PostgresLog:
    """The message log: the table `messages`."""

    def __init__(
        self, address: Address, reader: Link, writer: Link, turn: Link, session: Session | None, last: _LastSeen
    ) -> None:
        self._sql = Statements(address.schema)
        self._queue = address.lock_key("writers")
        self._reader, self._writer, self._turn = reader, writer, turn
        self._last = last
        self._turns = asyncio.Lock()
        self._turn_held = False
        self.watch = Watch(self.head, look_s=LOOK_UNTOLD_S if address.pooled else LOOK_S)
        self._session = session
        self._notifier = Notifier(reader if session is None else session.link, address.channel)

    async def head(self) -> int:
        return cast(int, await self._reader.call(lambda connection: connection.fetchval(self._sql["head"])))

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        records: list[Record] = []
        news = self.watch.news
        while (wanted := min(limit - len(records), READ_RECORDS_MAX)) > 0:
            chunk = await self._read(after, wanted, name)
            records = records + chunk if records else chunk
            if name is None:
                self._note(chunk, after=after, is_end=len(chunk) < wanted, news=news)
            if len(chunk) < wanted:
                break
            after = chunk[-1].position
        return records

    def _note(self, chunk: list[Record], *, after: int, is_end: bool, news: int) -> None:
        if chunk:
            self.watch.saw(chunk[-1].position)
        # Who asks for what is behind a position that nobody has seen does not know where the log ends.
        if is_end and after <= self.watch.head:
            self.watch.looked(news)

    async def _read(self, after: int, limit: int, name: str | None) -> list[Record]:
        statement = "read" if name is None else "read_set_aside" if name == SET_ASIDE else "read_named"
        args = (after, limit, name) if statement == "read_named" else (after, limit)
        rows = await self._reader.call(
            lambda connection: connection.fetch(self._sql[statement], *args), within_s=LONG_CALL_S
        )
        records = [Record(*row) for row in rows]
        if records:
            if name is None and records[-1].position - after != len(records):
                raise Corrupt(
                    f"Of the positions {after + 1} to {records[-1].position} some are missing. Restore the store from "
                    "a backup that is whole."
                )
            self._last.see(records[-1])
        return records

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        check_batch(records, after=after)
        head = await self._append(records, after)
        if head != after:
            await self._check_written(records, after, head)
        elif records:
            self._notifier.tell()
        if records:
            self._last.see(records[-1])
        self.watch.saw(after + len(records))

    async def _append(self, records: Sequence[Record], after: int) -> int:
        """Append, if the head is `after`; return the head that was found."""
        rows = [msgspec.structs.astuple(record)[1:] for record in records]
        queue = None if self._turn_held else self._queue
        try:
            head = await self._writer.call(
                lambda connection: connection.fetchval(self._sql["append"], after, queue, rows), lost=OutcomeUnknown
            )
        except NotReady as error:
            if not isinstance(error.__cause__, asyncpg.UniqueViolationError):
                raise
            # Another writer was there first, who did not queue, or whom this one did not queue for.
            head = await self.head()
            if head == after:
                raise
        return cast(int, head)

    async def _check_written(self, records: Sequence[Record], after: int, head: int) -> None:
        """What was at `after` is not the head any more, so whatever stands there stands there for good."""
        rows = await self._reader.call(lambda connection: connection.fetch(self._sql["ids"], after, len(records)))
        check_written(records, [row[0] for row in rows], after=after, head=head)

    async def wait(self, after: int, timeout_s: float) -> None:
        if self._session is not None:
            self._session.keep()
        await self.watch.wait(after, timeout_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the lock that all appends queue for, by a transaction of its own.

        The server ends one that does nothing for too long: a holder who was stopped does not hold up the others.
        """
        async with self._turns:
            try:
                await self._turn.call(self._take_turn)
                self._turn_held = True
                yield
            finally:
                self._turn_held = False
                # If this task was cancelled while it waited for the lock, it is taken first, then given.
                self._turn.post(_give_turn)

    async def _take_turn(self, connection: Connection) -> None:
        await connection.execute(f"{BEGIN}; SELECT pg_advisory_xact_lock({self._queue})")

    async def close(self) -> None:
        await self.watch.stop()
        await self._notifier.close()


async def _give_turn(connection: Connection) -> None:
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


class PostgresKeys:
    """The key-value table: the table `key_values`."""

    def __init__(self, address: Address, link: Link) -> None:
        self._sql = Statements(address.schema)
        self._link = link

    async def get(self, key: str) -> Entry | None:
        row = await self._link.call(lambda connection: connection.fetchrow(self._sql["get"], key))
        return Entry(*row) if row is not None else None

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        check_entry(key, value)
        statement = "put" if expect is None else "put_new" if expect == 0 else "put_expected"
        args = (key, value, expect) if expect else (key, value)
        revision = await self._link.call(
            lambda connection: connection.fetchval(self._sql[statement], *args), lost=OutcomeUnknown
        )
        return cast("int | None", revision)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        deleted = await self._link.call(
            lambda connection: connection.fetchval(self._sql["delete"], key, expect), lost=OutcomeUnknown
        )
        return deleted is True

    async def keys(self, prefix: str = "") -> list[str]:
        rows = await self._link.call(lambda connection: connection.fetch(self._sql["keys"], prefix))
        return [row[0] for row in rows]
