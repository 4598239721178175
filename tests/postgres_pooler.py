"""A pooler in transaction mode, as small as it can be: each transaction of a client gets another session of the server.

What PgBouncer does by chance under load, this one does always: sessions are given in turn. Settings that a client asks
for when it connects are refused, as PgBouncer refuses those that it does not know.

Messages: docs.postgresql.org, "Message Formats".
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

#: How many sessions of the server it has.
SESSIONS: Final = 4

_SSL_REQUEST: Final = 80877103
_CANCEL_REQUEST: Final = 80877102

#: What a client may say of itself when it connects.
_KNOWN: Final = {b"user", b"database", b"client_encoding", b"application_name"}

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pooler:
    """`transactions` counts those that went through it."""

    def __init__(self, target: int, database: str, user: str) -> None:
        self._target, self._database, self._user = target, database, user
        self.port = 0
        self.transactions = 0
        self._sessions: asyncio.Queue[Streams] = asyncio.Queue()
        self._greeting = b""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> asyncio.Server:
        for _ in range(SESSIONS):
            await self._sessions.put(await self._session())
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._sessions.empty():
            self._sessions.get_nowait()[1].close()

    async def _session(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        asked = b"".join(
            word + b"\0"
            for word in (
                b"user",
                self._user.encode(),
                b"database",
                self._database.encode(),
                b"client_encoding",
                b"utf8",
            )
        )
        writer.write(struct.pack("!II", len(asked) + 9, 3 << 16) + asked + b"\0")
        greeting = b""
        while not greeting.endswith(b"Z\0\0\0\5I"):
            greeting += await _message(reader)
        self._greeting = greeting
        return reader, writer

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # Streams would log a cancellation as an error of this server's.
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                if await self._greet(reader, writer):
                    await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            size, code = struct.unpack("!II", await reader.readexactly(8))
            rest = await reader.readexactly(size - 8)
            if code == _SSL_REQUEST:
                writer.write(b"N")
                continue
            if code == _CANCEL_REQUEST:
                return False
            unknown = set(rest.rstrip(b"\0").split(b"\0")[::2]) - _KNOWN
            if unknown:
                text = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: " + b" ".join(unknown) + b"\0\0"
                writer.write(b"E" + struct.pack("!I", len(text) + 4) + text)
                await writer.drain()
                return False
            writer.write(self._greeting)
            return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (message := await _message(reader))[:1] != b"X":
            session = await self._sessions.get()
            try:
                await self._transaction(message, reader, writer, session)
            except BaseException:
                # A client that goes away within a transaction takes the session with it.
                session[1].transport.abort()
                self._sessions.put_nowait(await self._session())
                raise
            self.transactions += 1
            self._sessions.put_nowait(session)

    async def _transaction(
        self, message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Streams
    ) -> None:
        """Pass on messages and answers, until the session is ready and in no transaction."""
        ready: asyncio.Queue[bytes] = asyncio.Queue()
        answering = asyncio.create_task(_pass_on(session[0], writer, ready))
        try:
            while True:
                session[1].write(message)
                # Only after these two the server gets ready: to a query, and to the end of prepared ones.
                if message[:1] in b"QS" and await ready.get() == b"I":
                    return
                message = await _message(reader)
        finally:
            answering.cancel()
            await asyncio.wait({answering})


async def _pass_on(session: asyncio.StreamReader, writer: asyncio.StreamWriter, ready: asyncio.Queue[bytes]) -> None:
    """Pass on answers; tell the state of the transaction each time that the session is ready."""
    while True:
        message = await _message(session)
        writer.write(message)
        if message[:1] == b"Z":
            ready.put_nowait(message[5:])


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)


@asynccontextmanager
async def pooler(target: int, *, database: str = "postgres", user: str = "postgres") -> AsyncIterator[Pooler]:
    """A running pooler to the server at that port."""
    made = Pooler(target, database, user)
    server = await made.serve()
    try:
        yield made
    finally:
        server.close()
        await made.close()
