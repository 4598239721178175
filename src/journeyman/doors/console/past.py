"""Time travel: the state that was, computed aside from the log. The live state takes no part in it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final, Literal

import msgspec

from journeyman.app import App
from journeyman.doors.console.changes import TableChanges, changes_between
from journeyman.errors import Busy, JourneymanError, NotFound
from journeyman.replica import Replica
from journeyman.tables import AppState
from journeyman.threads import in_thread
from journeyman.todo.ledger import JobLedger

#: How many states of the past are kept at a time, and how many are computed at a time.
KEPT_MAX: Final = 3
COMPUTED_MAX: Final = 1

#: The most rows of a state of the past: each takes memory, beside the live ones.
ROWS_MAX: Final = 1_000_000

#: After how long a state of the past that nobody looks at is dropped, in seconds.
KEPT_S: Final = 600.0

#: How many records are applied at a time, in a thread: between two such steps it can be cancelled.
STEP: Final = 500

Standing = Literal["under way", "done", "failed", "cancelled"]


class Moment(msgspec.Struct, frozen=True):
    """What is looked at: the state at a position; with `since`, also what changed from that position on."""

    position: int
    since: int | None = None


class Travel:
    """The way to a moment: how far it is, and at its end the state that was."""

    def __init__(self, moment: Moment, used_s: float) -> None:
        self.moment = moment
        self.standing: Standing = "under way"
        #: How far the log is applied; where that began: at a snapshot, or at 0.
        self.reached = 0
        self.began_at = 0
        #: What went wrong, for people.
        self.error: str | None = None
        self.state: AppState | None = None
        self.changes: list[TableChanges] = []
        #: When it was last looked at, on the loop's clock, in seconds.
        self.used_s = used_s

    @property
    def share(self) -> float:
        """How much of the way is done, from 0 to 1."""
        whole = self.moment.position - self.began_at
        return 1.0 if whole <= 0 else min(1.0, (self.reached - self.began_at) / whole)


class TooManyRows(JourneymanError):
    """The state that was has more rows than are computed beside the live ones."""


class Past:
    """States of the past: few at a time, each computed by a replica of its own, and dropped when nobody looks."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._travels: dict[Moment, Travel] = {}
        self._tasks: dict[Moment, asyncio.Task[None]] = {}

    def travel(self, moment: Moment) -> Travel:
        """The way to a moment: the one under way or done, else one that begins now. One that failed is told once.

        Raises:
            NotFound: the log has no such position.
            Busy: another one is under way.
        """
        self._drop_unused()
        found = self._travels.get(moment)
        if found is not None and found.standing == "failed":
            return self._travels.pop(moment)
        if found is not None and found.standing != "cancelled":
            found.used_s = self._now_s()
            return found
        self._check(moment)
        return self._begin(moment)

    async def arrive(self, moment: Moment, *, timeout_s: float) -> Travel:
        """Like `travel`, and wait so long for its end."""
        travel = self.travel(moment)
        if (task := self._tasks.get(moment)) is not None:
            await asyncio.wait({task}, timeout=timeout_s)
        return travel

    def find(self, moment: Moment) -> Travel | None:
        """The way to a moment, when it was begun."""
        return self._travels.get(moment)

    def cancel(self, moment: Moment) -> None:
        """Give it up. Harmless when it is over."""
        task, travel = self._tasks.get(moment), self._travels.get(moment)
        if task is not None and travel is not None and travel.standing == "under way":
            travel.standing = "cancelled"
            task.cancel()

    async def stop(self) -> None:
        """Give everything up, and forget it."""
        self._app.not_at_stop(self.stop)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._travels.clear()

    def _check(self, moment: Moment) -> None:
        since = moment.position if moment.since is None else moment.since
        if not 0 <= since <= moment.position <= self._app.position:
            raise NotFound(f"The log has the positions 0 to {self._app.position}, and a comparison goes forward.")
        if len(self._tasks) >= COMPUTED_MAX:
            raise Busy("A state of the past is being computed already; wait for it, or cancel it.")

    def _begin(self, moment: Moment) -> Travel:
        while len(self._travels) >= KEPT_MAX:
            del self._travels[min(self._travels, key=lambda one: self._travels[one].used_s)]
        self._app.at_stop(self.stop)
        travel = self._travels[moment] = Travel(moment, self._now_s())
        task = asyncio.create_task(self._run(travel), name=f"journeyman: state at {moment.position}")
        self._tasks[moment] = task
        task.add_done_callback(lambda _: self._tasks.pop(moment, None))
        return travel

    def _drop_unused(self) -> None:
        oldest_s = self._now_s() - KEPT_S
        for moment, travel in list(self._travels.items()):
            if travel.used_s < oldest_s and travel.standing != "under way":
                del self._travels[moment]

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()

    # On the way.

    async def _run(self, travel: Travel) -> None:
        try:
            await self._compute(travel)
            travel.standing = "done"
        except JourneymanError as error:
            travel.standing, travel.error = "failed", str(error)

    async def _compute(self, travel: Travel) -> None:
        app, moment = self._app, travel.moment
        replica = Replica(app.store.log, app.catalog, [JobLedger(app.todo_workers)])
        first = moment.position if moment.since is None else moment.since
        await replica.begin_before(first, app.snapshots)
        travel.began_at = travel.reached = replica.settled_position
        await self._replay(replica, first, travel)
        if moment.since is not None:
            before = {place: table.items() for place, table in _tables(replica.state)}
            await self._replay(replica, moment.position, travel)
            travel.changes = await in_thread(
                lambda: [
                    changes_between(*place, dict(before[place]), dict(table.items()))
                    for place, table in _tables(replica.state)
                ],
                name="journeyman: changes",
            )
        travel.state = replica.state

    async def _replay(self, replica: Replica, position: int, travel: Travel) -> None:
        log = self._app.store.log
        while (missing := position - replica.settled_position) > 0:
            records = await log.read(replica.settled_position, min(missing, STEP))
            if not records:
                raise NotFound(f"The log ends at {replica.settled_position}.")
            await in_thread(partial(replica.replay, records), name="journeyman: past")
            travel.reached = replica.settled_position
            if (rows := sum(len(table) for _, table in _tables(replica.state))) > ROWS_MAX:
                raise TooManyRows(
                    f"At position {travel.reached} there are {rows} rows; at most {ROWS_MAX} are computed beside the "
                    "live ones. Start a copy of the log in another process, and look there."
                )


def _tables(state: AppState) -> list[tuple[tuple[str, str], Any]]:
    """All tables, the features' own first."""
    found = [
        ((feature, name), table) for feature, one in state.features.items() for name, table in one.tables().items()
    ]
    return sorted(found, key=lambda pair: (pair[0][0].startswith("journeyman"), pair[0]))
