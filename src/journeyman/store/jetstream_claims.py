"""Roles that one process at a time has, where nothing frees them by itself when a process dies.

A handle that claims a role has a *session*: a key that it puts again each second, expecting its own last revision. A
role is a key that holds the id of a session. It is free when that session is gone, and a session is gone when

- it was ended, by its owner, who closed; or
- its owner does not answer, because it has no connection to any server, *and* its revision has not changed for LEASE_S
  on the clock of the one who asks, who could read it and ask all the time. Then the session is removed, expecting that
  revision: from that moment on its owner can't renew it.

So a process that was stopped keeps its roles, as long as its connection stands. One that is cut off from all servers
for longer than LEASE_S loses them, and finds that out when it renews, or claims, the next time.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final
from uuid import uuid4

import nats.errors
from nats.aio.msg import Msg

from journeyman.errors import JourneymanError, NotReady
from journeyman.store.jetstream_connection import Connection, Nobody, NoReply
from journeyman.store.jetstream_keys import ROLES, SESSIONS, JetStreamKeys

logger = logging.getLogger(__name__)

#: How often a session is renewed, in seconds.
RENEW_S: Final = 1.0

#: For how long a session whose owner does not answer must be without change, in seconds: a few times as long as a
#: process needs that lost its connection, because a server was restarted, to connect and renew.
LEASE_S: Final = 2.5

#: How often a silent session is looked at, in seconds.
LOOK_S: Final = 0.2

#: How long a process may take to answer, in seconds. One that takes longer lives.
ANSWER_S: Final = 0.5

#: How often a claim is tried that others change while it is made.
TRIES: Final = 10


class Session:
    """What a handle shows of itself while it has roles."""

    def __init__(self, keys: JetStreamKeys) -> None:
        self.id = uuid4().hex
        self._keys = keys
        #: None when it has ended.
        self._revision: int | None = None
        self._renewals = 0
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        self._revision = await self._keys.put(self.id, b"0", expect=0)

    async def renew(self) -> bool:
        """Show that the owner lives; False when others have ended this session."""
        async with self._lock:
            if self._revision is not None:
                self._renewals += 1
                self._revision = await self._put_again(self._revision)
            return self._revision is not None

    async def _put_again(self, expected: int) -> int | None:
        revision = await self._keys.put(self.id, b"%d" % self._renewals, expect=expected)
        if revision is None and (entry := await self._keys.get(self.id)) is not None:
            # Only its owner puts it, so it is an earlier renewal of which no reply came.
            revision = entry.revision
        return revision

    async def end(self) -> None:
        await self._keys.delete(self.id)


class Claims:
    """The roles of one handle. See Store.claim and Store.release."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._sessions = JetStreamKeys(connection, name, part=SESSIONS)
        self._roles = JetStreamKeys(connection, name, part=ROLES)
        self._calls = f"{name}-alive"
        self._session: Session | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._held: set[str] = set()
        self._lock = asyncio.Lock()

    async def claim(self, role: str) -> bool:
        """Take the role, or find that one has it.

        Raises:
            NotReady, OutcomeUnknown: the store can't be asked.
        """
        for _ in range(TRIES):
            session = await self._own_session()
            entry = await self._roles.get(role)
            holder = None if entry is None else entry.value.decode()
            if holder == session.id:
                if await session.renew():
                    self._held.add(role)
                    return True
                await self._lose(session)
            elif entry is None or holder is None:
                await self._roles.put(role, session.id.encode(), expect=0)
            elif await self._is_gone(holder):
                await self._roles.put(role, session.id.encode(), expect=entry.revision)
            else:
                return False
        raise NotReady(f"The role {role} changed hands {TRIES} times while it was claimed. Try again.")

    async def release(self, role: str) -> None:
        session = self._session
        self._held.discard(role)
        if session is None:
            return
        entry = await self._roles.get(role)
        if entry is not None and entry.value.decode() == session.id:
            await self._roles.delete(role, expect=entry.revision)

    async def close(self) -> None:
        """Give up everything. Where the store can't be told, the session has ended LEASE_S after its connection."""
        session, self._session = self._session, None
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        if session is None:
            return
        with suppress(JourneymanError):
            for role in sorted(self._held):
                entry = await self._roles.get(role)
                if entry is not None and entry.value.decode() == session.id:
                    await self._roles.delete(role, expect=entry.revision)
            await session.end()

    # This handle's session.

    async def _own_session(self) -> Session:
        async with self._lock:
            if self._session is None:
                session = Session(self._sessions)
                await self._connection.listen(self._call(session.id), _answer)
                await session.begin()
                self._session = session
                self._renewing = asyncio.create_task(self._renew(session), name="journeyman: session")
            return self._session

    async def _renew(self, session: Session) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(JourneymanError):
                if not await session.renew():
                    return await self._lose(session)

    async def _lose(self, session: Session) -> None:
        if self._session is session:
            self._session = None
            self._connection.ignore(self._call(session.id))
            lost, self._held = sorted(self._held), set()
            if lost:
                logger.warning("cut off from the servers for over %g s, this process lost the roles %s", LEASE_S, lost)

    # Those of others.

    async def _is_gone(self, holder: str) -> bool:
        """Whether that session has ended, or is ended now because its owner is not connected and does not renew it."""
        first = await self._sessions.get(holder)
        loop = asyncio.get_running_loop()
        since, connections = loop.time(), self._connection.made
        while first is not None:
            if await self._may_live(holder) or self._connection.made != connections:
                return False
            now = await self._sessions.get(holder)
            if now is None:
                break
            if now.revision != first.revision:
                return False
            if loop.time() - since > LEASE_S:
                return await self._sessions.delete(holder, expect=first.revision)
            await asyncio.sleep(LOOK_S)
        return True

    async def _may_live(self, holder: str) -> bool:
        """Whether some connection of that session's owner stands, if it answers or not."""
        try:
            await self._connection.call(self._call(holder), timeout_s=ANSWER_S)
        except Nobody:
            return False
        except NoReply:
            return True
        return True

    def _call(self, session: str) -> str:
        return f"{self._calls}.{session}"


async def _answer(message: Msg) -> None:
    with suppress(nats.errors.Error):
        await message.respond(b"yes")
