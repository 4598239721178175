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

import msgspec
import nats.errors
from nats.aio.msg import Msg

from journeyman.errors import JourneymanError, NotReady
from journeyman.store.jetstream_connection import Connection
from journeyman.store.jetstream_keys import ROLES, SESSIONS, JetStreamKeys
from journeyman.store.jetstream_reply import Nobody, NoReply

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

#: How often a claim is tried that others change while it is made, and the pause between, in seconds.
TRIES: Final = 10
PAUSE_S: Final = 0.05


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
        self._calls = f"{name}-alive"
        self._sessions = JetStreamKeys(connection, name, part=SESSIONS)
        self._roles = JetStreamKeys(connection, name, part=ROLES)
        self._others = _Others(connection, self._sessions, self._calls)
        self._session: Session | None = None
        self._held: set[str] = set()
        #: Those that were held by a session that others have ended.
        self._lost: set[str] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def claim(self, role: str) -> bool:
        """Take the role, or find that one has it.

        Raises:
            NotReady, OutcomeUnknown: the store can't be asked.
        """
        for _ in range(TRIES):
            session = await self._own_session()
            entry = await self._roles.get(role)
            holder, revision = (None, 0) if entry is None else (entry.value.decode(), entry.revision)
            if holder not in (None, session.id) and not await self._others.is_gone(holder):
                return False
            if holder == session.id or await self._roles.put(role, session.id.encode(), expect=revision):
                if await session.renew():  # Only now: it may have been ended while the role was taken.
                    self._held.add(role)
                    return True
                self._lose(session)
            await asyncio.sleep(PAUSE_S)
        raise NotReady(f"The role {role} changed hands {TRIES} times while it was claimed. Try again.")

    async def release(self, role: str) -> None:
        self._held.discard(role)
        self._lost.discard(role)
        if self._session is not None:
            await self._give_back(role, self._session)

    async def close(self) -> None:
        """Give up everything. Where the store can't be told, the session ends LEASE_S after its connection."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        session, self._session = self._session, None
        if session is not None:
            with suppress(JourneymanError):
                for role in sorted(self._held):
                    await self._give_back(role, session)
                await session.end()

    async def _give_back(self, role: str, session: Session) -> None:
        entry = await self._roles.get(role)
        if entry is not None and entry.value.decode() == session.id:
            await self._roles.delete(role, expect=entry.revision)

    async def _own_session(self) -> Session:
        async with self._lock:
            if self._session is None:
                session = Session(self._sessions)
                await self._connection.listen(f"{self._calls}.{session.id}", _answer)
                await session.begin()
                self._session = session
            if self._keeping is None:
                self._keeping = asyncio.create_task(self._keep(), name="journeyman: session")
            return self._session

    async def _keep(self) -> None:
        """Renew the session, for as long as the store is open; claim again what was lost with one."""
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(JourneymanError):
                session = self._session
                if session is not None and not await session.renew():
                    self._lose(session)
                for role in sorted(self._lost):
                    if not await self.claim(role):
                        logger.warning("the role %s is another process's now", role)
                    self._lost.discard(role)

    def _lose(self, session: Session) -> None:
        """Note that others have ended the session, and with it all roles that were held by it."""
        if self._session is session:
            self._session = None
            self._connection.ignore(f"{self._calls}.{session.id}")
            self._lost |= self._held
            self._held = set()
            logger.warning("this process was cut off from the servers for over %g s: its roles were free", LEASE_S)


class _Seen(msgspec.Struct, frozen=True):
    """A session's revision, since when it has been the same, and over which of one's own connections that was read."""

    revision: int
    since_s: float
    connection: int


class _Others:
    """The sessions of other handles, and for how long each has not changed."""

    def __init__(self, connection: Connection, sessions: JetStreamKeys, calls: str) -> None:
        self._connection = connection
        self._sessions = sessions
        self._calls = calls
        self._seen: dict[str, _Seen] = {}

    async def is_gone(self, holder: str) -> bool:
        """Whether that session has ended, or is ended now because its owner is not connected and does not renew it."""
        before: int | None = None
        while (entry := await self._sessions.get(holder)) is not None:
            if before not in (None, entry.revision) or await self._may_live(holder):
                return False
            if before is None:
                await self._look_at_all()
            before = entry.revision
            if self._silent_s(holder, before) > LEASE_S:
                return await self._sessions.delete(holder, expect=before)
            await asyncio.sleep(LOOK_S)
        return True

    async def _may_live(self, holder: str) -> bool:
        """Whether some connection of that session's owner stands, if it answers or not."""
        try:
            await self._connection.call(f"{self._calls}.{holder}", timeout_s=ANSWER_S)
        except Nobody:
            return False
        except NoReply:
            return True
        return True

    def _silent_s(self, holder: str, revision: int) -> float:
        """For how long that revision has been the same, as far as is known; over one connection, without a break."""
        seen, now_s = self._seen.get(holder), asyncio.get_running_loop().time()
        if seen is None or (seen.revision, seen.connection) != (revision, self._connection.made):
            seen = self._seen[holder] = _Seen(revision, now_s, self._connection.made)
        return now_s - seen.since_s

    async def _look_at_all(self) -> None:
        """Begin with all at once, where several died together: else each would be waited for after the other."""
        holders = await self._sessions.keys()
        entries = await asyncio.gather(*map(self._sessions.get, holders))
        found = {holder: entry.revision for holder, entry in zip(holders, entries, strict=True) if entry is not None}
        for holder, revision in found.items():
            self._silent_s(holder, revision)
        self._seen = {holder: seen for holder, seen in self._seen.items() if holder in found}


async def _answer(message: Msg) -> None:
    with suppress(nats.errors.Error):
        await message.respond(b"yes")
