"""How a process shows the others that it lives, and sees which of them are gone.

Each process that runs workers holds the role `instance/ID`, which is free at once when it dies, however it dies; and it
puts a note under the key `instances/ID` again and again, so that the key's revision grows. A process is gone when
somebody else can take its role; or when its revision did not grow over BEATS of an observer's own heartbeats, because
it was stopped, or hangs with its machine.

No clock is read for that. An observer counts only what it has seen: while its own heartbeats or reads fail, or it is
stopped itself, it counts nothing, and whoever was stopped together with it is not taken for gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from journeyman.errors import JourneymanError, NotReady
from journeyman.store.base import KeyValue, Store

logger = logging.getLogger(__name__)

#: Over how many of the observer's heartbeats a revision must not have grown.
BEATS: Final = 5

#: How often, in seconds, a process looks for roles that are free, and the longest pause between heartbeats.
LOOK_S: Final = 0.5
BEAT_S_MAX: Final = 2.0

KEY_PREFIX: Final = "instances/"


class WorkerNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of one of its workers; see status.WorkerStatus.

    `lane_until_us` is until when its lane lets nothing through, in microseconds since 1970 UTC, by its own clock.
    """

    name: str
    status: str
    position: int | None = None
    last_error: str | None = None
    lane_until_us: int | None = None


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of itself: for people, but for `left`, which means that it has ended by itself.

    `at_us` is when it said so, by its own clock, in microseconds since 1970 UTC. `version` is that of Journeyman.
    """

    pid: int
    host: str
    started_at_us: int
    at_us: int
    left: bool = False
    version: str = ""
    workers: tuple[WorkerNote, ...] = ()


class Silence:
    """For how many looks in a row the revision of each instance has been the same."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def see(self, revisions: Mapping[str, int]) -> None:
        """Take in one look at all instances. Those that are not there any more are forgotten."""
        self._seen = {instance: self._count(instance, revision) for instance, revision in revisions.items()}

    def _count(self, instance: str, revision: int) -> tuple[int, int]:
        known, same = self._seen.get(instance, (None, 0))
        return revision, same + 1 if revision == known else 0

    def of(self, instance: str) -> int:
        return self._seen.get(instance, (0, 0))[1]


class Heartbeat:
    """The heartbeat of one process. Lives in an event loop of its own, which nothing else keeps busy.

    Args:
        store: a handle for that loop; closed at the end.
        note: makes the note of this moment. Called in this thread.
        at_work: the instances that have attempts under way.
        gone: is told of an instance that is gone, and whether it left by itself; returns once that is recorded.
        takeover_s: how long an instance may be silent.
    """

    def __init__(
        self,
        store: Store,
        instance: str,
        *,
        note: Callable[[], Note],
        at_work: Callable[[], Awaitable[set[str]]],
        gone: Callable[[str, bool], Awaitable[None]],
        takeover_s: float,
    ) -> None:
        self._store = store
        self._instance = instance
        self._note = note
        self._at_work = at_work
        self._gone = gone
        self._beat_s = min(BEAT_S_MAX, takeover_s / BEATS)
        self._beats = round(takeover_s / self._beat_s)
        self._silence = Silence()
        #: Other instances that have a key, or had attempts under way at the last look.
        self._others: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Show that this process lives, take note of who is gone already, and go on with both.

        Raises:
            StoreError: the store can't be used.
        """
        await self._appear()
        await self._look()
        for step, every_s in ((self._beat, self._beat_s), (self._look, min(LOOK_S, self._beat_s))):
            self._tasks.append(
                asyncio.create_task(_again_and_again(step, every_s), name=f"journeyman: {step.__name__}")
            )

    async def become(self, instance: str) -> None:
        """Go on as another instance. Harmless when repeated."""
        if instance != self._instance:
            old, self._instance = self._instance, instance
            await self._store.keys.delete(_key(old))
            await self._store.release(_role(old))
        await self._appear()

    async def tell(self) -> None:
        """Put the note of this moment: there is news in it."""
        await self._put()

    async def claim(self, role: str) -> bool:
        """See Store.claim. The role is given up when this process dies, or stops."""
        return await self._store.claim(role)

    async def release(self, role: str) -> None:
        """See Store.release."""
        await self._store.release(role)

    async def stop(self, *, left: bool) -> None:
        """Show no life any more. `left` when attempts are still open here: then others need not suspect their jobs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await (self._put(left=True) if left else self._store.keys.delete(_key(self._instance)))
        finally:
            await self._store.close()  # Only now the role is free: who takes it reads that this process left.

    async def _appear(self) -> None:
        if not await self._store.claim(_role(self._instance)):
            raise NotReady(f"The role of the instance {self._instance} is taken. Start this process again.")
        await self._beat()

    async def _beat(self) -> None:
        await self._put()
        # What the application's own loop knows is not asked here: while it is busy, the heart goes on beating.
        revisions = dict.fromkeys(self._others, 0) | await _revisions(self._store.keys)
        self._silence.see(revisions)
        self._others = revisions.keys() - {self._instance}

    async def _put(self, *, left: bool = False) -> None:
        note = msgspec.structs.replace(self._note(), left=left)
        await self._store.keys.put(_key(self._instance), msgspec.json.encode(note))

    async def _look(self) -> None:
        self._others |= await self._at_work() - {self._instance}
        for instance in sorted(self._others):
            if await self._store.claim(_role(instance)):
                try:
                    await self._bury(instance)
                finally:
                    await self._store.release(_role(instance))
            elif self._silence.of(instance) >= self._beats:
                await self._bury(instance)

    async def _bury(self, instance: str) -> None:
        entry = await self._store.keys.get(_key(instance))
        await self._gone(instance, entry is not None and decode_note(entry.value).left)
        if entry is not None:
            # One that was only stopped may go on meanwhile: its newer note stays.
            await self._store.keys.delete(_key(instance), expect=entry.revision)
        self._others.discard(instance)


async def notes(keys: KeyValue) -> dict[str, Note]:
    """The notes of all processes, by instance."""
    found: dict[str, Note] = {}
    for key in await keys.keys(KEY_PREFIX):
        if (entry := await keys.get(key)) is not None:
            found[key.removeprefix(KEY_PREFIX)] = decode_note(entry.value)
    return found


async def is_dead(store: Store, instance: str) -> bool:
    """Whether the process has surely died: nobody has its role."""
    if not await store.claim(_role(instance)):
        return False
    await store.release(_role(instance))
    return True


def decode_note(value: bytes) -> Note:
    """A note; one that can't be read, of another version of Journeyman, says nothing."""
    try:
        return msgspec.json.decode(value, type=Note)
    except msgspec.DecodeError:
        return Note(pid=0, host="", started_at_us=0, at_us=0)


async def _revisions(keys: KeyValue) -> dict[str, int]:
    found: dict[str, int] = {}
    for key in await keys.keys(KEY_PREFIX):
        if (entry := await keys.get(key)) is not None:
            found[key.removeprefix(KEY_PREFIX)] = entry.revision
    return found


async def _again_and_again(step: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Whatever a step meets, the next one may go better: the store comes back, or the process ends."""
    failing = False
    while True:
        await asyncio.sleep(every_s)
        try:
            await step()
            failing = False
        except JourneymanError as error:
            if not failing:
                logger.warning("this process can't show that it lives, or see who does: %s", error)
            failing = True


def _key(instance: str) -> str:
    return f"{KEY_PREFIX}{instance}"


def _role(instance: str) -> str:
    return f"instance/{instance}"
