"""What lives as long as a session of the server: listening for news, and holding roles.

The session is kept: asked each second whether it is still there, and opened again at once when it is lost. Then its
roles are claimed again. There is time for that: whoever finds a role that was not given back, but that no session
holds, looks again after RETURN_S before he takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final, Protocol, cast

from journeyman.errors import StoreError
from journeyman.store.postgres_address import Address
from journeyman.store.postgres_link import Connection, Link
from journeyman.store.postgres_sql import Statements

#: How often the session is asked whether it is there, and how long it may take to say so, in seconds.
PING_S: Final = 1.0

#: The pauses between tries to open it again, in seconds: short, for the roles' sake.
AGAIN_S: Final = 0.1

#: How long one who was cut off has to come back before a role of his is taken, in seconds; and after a start of the
#: server, which cuts off everybody.
RETURN_S: Final = 0.4
RETURN_AFTER_START_S: Final = 5.0

#: How long a role is leased behind a pooler, where no session is ours, and how often that is renewed, in seconds.
LEASE_S: Final = 10.0
RENEW_S: Final = 2.0

#: How long giving everything back may take at the end, in seconds.
CLOSE_S: Final = 2.0


class Roles(Protocol):
    """See Store.claim and Store.release."""

    async def claim(self, role: str) -> bool: ...

    async def release(self, role: str) -> None: ...

    async def close(self) -> None: ...


class Session:
    """The kept session of one store. It is opened when it is first needed.

    Args:
        holder: the store's own id, under which it holds roles.
        on_news: is called when others have appended, or may have while nobody listened.
    """

    def __init__(
        self,
        address: Address,
        holder: str,
        opened: Callable[[], Awaitable[Connection]],
        *,
        on_news: Callable[[], None],
    ) -> None:
        self._address = address
        self._sql = Statements(address.schema)
        self._holder = holder
        self._opened = opened
        self._on_news = on_news
        self.link = Link(address, self._open, begin=None, pause_s_max=AGAIN_S)
        self._lost = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._closed = False
        self._pid = 0
        #: The roles that were claimed and not given back, and those that this very session has the locks of, which only
        #: the calls change that take and give them. What is not locked is claimed again and again.
        self._roles: set[str] = set()
        self._locked: set[str] = set()

    def keep(self) -> None:
        """Open the session, and keep it from now on."""
        if self._keeping is None and not self._closed:
            self._keeping = asyncio.create_task(self._keep(), name="journeyman: session")

    async def claim(self, role: str) -> bool:
        self.keep()
        had = role in self._roles
        if had and role in self._locked:
            return True
        self._roles.add(role)
        try:
            is_ours = await self._try_claim(role)
        except BaseException:
            if not had:  # Nobody knows whether it was claimed, and nobody would give it back.
                self._roles.discard(role)
                self.link.post(partial(self._release, role=role))
            raise
        if not is_ours:
            self._roles.discard(role)
        return is_ours

    async def _try_claim(self, role: str) -> bool:
        found = await self.link.call(partial(self._claim, role=role, left_before=False))
        if found == "left":
            await asyncio.sleep(RETURN_S)
            found = await self.link.call(partial(self._claim, role=role, left_before=True))
        return found in ("held", "waiting")

    async def release(self, role: str) -> None:
        self._roles.discard(role)
        await self.link.call(partial(self._release, role=role))

    async def close(self) -> None:
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for role in list(self._roles):
                    await self.release(role)
        await self.link.close()

    async def _keep(self) -> None:
        while True:
            pause_s = PING_S
            try:
                await self.link.call(self._ping, within_s=PING_S)
            except StoreError:
                pause_s = AGAIN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._lost.wait()
            self._lost.clear()

    async def _open(self) -> Connection:
        connection = await self._opened()
        try:
            self._pid = connection.get_server_pid()
            self._lost.clear()
            self._locked.clear()
            connection.add_termination_listener(partial(self._note_loss, self._pid))
            await connection.add_listener(self._address.channel, self._note_news)
            await self._claim_again(connection)
        except BaseException:
            connection.terminate()
            raise
        self._on_news()  # What came while nobody listened.
        return connection

    async def _ping(self, connection: Connection) -> None:
        if self._roles <= self._locked:
            await connection.execute("SELECT")
        else:
            await self._claim_again(connection)

    async def _claim_again(self, connection: Connection) -> None:
        for role in self._roles - self._locked:
            await self._claim(connection, role=role, left_before=False)

    async def _claim(self, connection: Connection, *, role: str, left_before: bool) -> str:
        if role in self._locked:  # A session could lock it twice, and would have to unlock it twice.
            return "held"
        key, start_grace = self._address.lock_key(f"role {role}"), timedelta(seconds=RETURN_AFTER_START_S)
        found = await connection.fetchval(self._sql["claim"], role, key, self._holder, left_before, None, start_grace)
        if found == "held":
            self._locked.add(role)
        return cast(str, found)

    async def _release(self, connection: Connection, *, role: str) -> None:
        self._locked.discard(role)
        await connection.execute(self._sql["release"], role, self._address.lock_key(f"role {role}"), self._holder, True)

    def _note_news(self, _connection: object, pid: int, _channel: str, _payload: object) -> None:
        if pid != self._pid:  # What this store itself tells is no news to it.
            self._on_news()

    def _note_loss(self, pid: int, _connection: object) -> None:
        if pid == self._pid:  # The end of one that was dropped may be told when the next one is there.
            self._lost.set()
            self._locked.clear()


class Leases:
    """Roles behind a pooler: rows that are renewed, and free when they were not for LEASE_S, on the server's clock."""

    def __init__(self, address: Address, holder: str, link: Link) -> None:
        self._address = address
        self._sql = Statements(address.schema)
        self._holder = holder
        self._link = link
        self._roles: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def claim(self, role: str) -> bool:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="journeyman: leases")
        if await self._link.call(partial(self._claim, role=role)) != "held":
            self._roles.discard(role)
            return False
        self._roles.add(role)
        return True

    async def release(self, role: str) -> None:
        self._roles.discard(role)
        await self._link.call(partial(self._release, role=role))

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for role in list(self._roles):
                    await self.release(role)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            for role in list(self._roles):
                with suppress(StoreError):
                    await self._link.call(partial(self._renew_one, role=role))

    async def _renew_one(self, connection: Connection, *, role: str) -> None:
        if role in self._roles:  # It may have been given back meanwhile.
            await self._claim(connection, role=role)

    async def _claim(self, connection: Connection, *, role: str) -> str:
        key, start_grace = self._address.lock_key(f"role {role}"), timedelta(seconds=RETURN_AFTER_START_S)
        lease = timedelta(seconds=LEASE_S)
        found = await connection.fetchval(self._sql["claim"], role, key, self._holder, True, lease, start_grace)
        return cast(str, found)

    async def _release(self, connection: Connection, *, role: str) -> None:
        key = self._address.lock_key(f"role {role}")
        await connection.execute(self._sql["release"], role, key, self._holder, False)
