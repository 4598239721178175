"""The store in NATS JetStream: many machines, and with three replicas none of them is needed for it to go on.

The log is a stream whose sequence numbers are the positions; appends are atomic batches that expect the last one. What
a server may answer that is behind the others, or was cut off from them, is in `jetstream_watch`; what it means to hold
a role, in `jetstream_claims`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from journeyman.store.base import Blobs, Examination, KeyValue, MessageLog
from journeyman.store.jetstream_address import Address, parse_address
from journeyman.store.jetstream_blobs import JetStreamBlobs
from journeyman.store.jetstream_claims import Claims
from journeyman.store.jetstream_connection import Connection
from journeyman.store.jetstream_keys import JetStreamKeys
from journeyman.store.jetstream_log import JetStreamLog
from journeyman.store.jetstream_streams import Streams, find_streams, open_streams


class JetStreamStore:
    """A store in JetStream. Open it by `open`, or by `open_store` from a URL."""

    def __init__(self, address: Address, connection: Connection, streams: Streams) -> None:
        self.url = address.url
        self.durability = streams.durability
        self._address, self._connection = address, connection
        self._log = JetStreamLog(connection, address.name, replicated=streams.replicas > 1)
        self._claims = Claims(connection, address.name)
        self.log: MessageLog = self._log
        self.keys: KeyValue = JetStreamKeys(connection, address.name)
        self.blobs: Blobs = JetStreamBlobs(connection, address.name)

    @classmethod
    async def open(cls, url: str) -> JetStreamStore:
        """Open the store, or create it; see jetstream_address.parse_address for what a URL may say.

        Raises:
            UnknownName: the URL has another form, or says something that is not known.
            NotReady: no server can be used now, or JetStream, as it is set up, can't keep the promises.
            NotAStore: what is there belongs to another application, or has a layout newer than known.
            Corrupt: the log has lost messages.
        """
        return await cls._open(parse_address(url), open_streams)

    @classmethod
    async def find(cls, url: str) -> JetStreamStore:
        """Open a store that is there already, and create nothing.

        Raises:
            UnknownName, NotReady, NotAStore, Corrupt: as `open`; NotReady also when there is none.
        """
        return await cls._open(parse_address(url), find_streams)

    @classmethod
    async def _open(cls, address: Address, find: Callable[[Connection, Address], Awaitable[Streams]]) -> JetStreamStore:
        connection = Connection(address)
        try:
            await connection.open()
            store = cls(address, connection, await find(connection, address))
            await connection.listen(store._log.news, store._log.watch.hear)
            return store
        except BaseException:
            await connection.close()
            raise

    async def claim(self, role: str) -> bool:
        return await self._claims.claim(role)

    async def release(self, role: str) -> None:
        await self._claims.release(role)

    async def examine(self) -> Examination:
        return (await find_streams(self._connection, self._address)).examination()

    async def open_again(self) -> JetStreamStore:
        return await JetStreamStore._open(self._address, open_streams)

    async def close(self) -> None:
        await self._log.watch.stop()
        await self._claims.close()
        await self._connection.close()
