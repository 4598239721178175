"""What the index is asked. It lives in one thread; nothing here waits for the event loop, or for the writer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import apsw
import msgspec

from journeyman.doors.console.index.job_effects import OVER, Event
from journeyman.doors.console.index.writer import MINUTE_US

#: How long one question may take, in seconds: a filter that nothing narrows would read the whole index.
ANSWER_S_MAX: Final = 1.0

#: After so many steps of SQLite's machine the time is looked at.
_STEPS: Final = 20_000

#: Of how many of the newest messages the present rate is counted.
RATE_MESSAGES_MAX: Final = 20_000

_COLUMNS: Final = "position, names.name, subject, recorded_at_us, actor, fence, causation IS NOT NULL"
_ID: Final = "coalesce(unhex(replace(?, '-', '')), ?)"


class TooSlow(Exception):
    """The question was given up after ANSWER_S_MAX."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages: those that fit all that is not None. Times are microseconds since 1970 UTC."""

    feature: str | None = None
    name: str | None = None
    subject: str | None = None
    correlation_id: str | None = None
    since_us: int | None = None
    until_us: int | None = None

    @property
    def is_empty(self) -> bool:
        return self == Filter()


class Entry(msgspec.Struct, frozen=True):
    """What the index knows of a message. `has_cause` when it follows from another one."""

    position: int
    name: str
    subject: str | None
    recorded_at_us: int
    actor: str | None
    fence: int | None
    has_cause: bool


class JobEvent(msgspec.Struct, frozen=True):
    """What happened to a job, at which message. `fence` is where the attempt began that it concerns."""

    worker: str
    job: str
    position: int
    event: Event
    fence: int | None
    recorded_at_us: int


class Link(msgspec.Struct, frozen=True):
    """A message in a chain of causes: `cause` is the position of the message that it follows from."""

    entry: Entry
    cause: int | None


class Bucket(msgspec.Struct, frozen=True):
    """What was recorded in a span of time that begins at `start_us`."""

    start_us: int
    messages: int = 0
    attempts: int = 0
    answers: int = 0
    failures: int = 0


class IndexReader:
    """Answers from the index, as it is committed at the moment."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._deadline_s = 0.0
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline_s, _STEPS)

    @property
    def position(self) -> int:
        """Up to where the messages are indexed."""
        return cast(int, self._all("SELECT position FROM progress")[0][0])

    def find(self, wanted: Filter, *, before: int | None = None, after: int | None = None, limit: int) -> list[Entry]:
        """The newest fitting messages below `before`, newest first; or the first ones above `after`, oldest first.

        Raises:
            TooSlow: it took too long: the filter fits little, and nothing narrows it.
        """
        where, values = self._where(wanted)
        if before is not None:
            where.append("position < ?")
            values.append(before)
        if after is not None:
            where.append("position > ?")
            values.append(after)
        order = "ASC" if after is not None else "DESC"
        rows = self._all(
            f"SELECT {_COLUMNS} FROM messages JOIN names ON number = messages.name "
            f"WHERE {' AND '.join(where) or 'TRUE'} ORDER BY position {order} LIMIT ?",
            (*values, limit),
        )
        return [_entry(row) for row in rows]

    def _where(self, wanted: Filter) -> tuple[list[str], list[Any]]:
        """The conditions. The first one is looked up in its index, the others are kept out of theirs by the `+`."""
        terms: list[str] = []
        values: list[Any] = []
        if wanted.correlation_id is not None:
            terms.append(
                f"position IN (SELECT position FROM messages WHERE id = {_ID} AND correlation IS NULL "
                f"UNION ALL SELECT position FROM messages WHERE correlation = {_ID})"
            )
            values += [wanted.correlation_id] * 4
        for column, value in (("subject", wanted.subject), ("name", wanted.name), ("feature", wanted.feature)):
            if value is not None:
                number = "?" if column == "subject" else "(SELECT number FROM names WHERE name = ?)"
                terms.append(f"{'+' if terms else ''}messages.{column} = {number}")
                values.append(value)
        if wanted.since_us is not None or wanted.until_us is not None:
            self._add_times(terms, values, wanted.since_us or 0, wanted.until_us or 2**62)
        return terms, values

    def _add_times(self, terms: list[str], values: list[Any], since_us: int, until_us: int) -> None:
        """Between the positions of the minutes that count; within them by each message's own time."""
        first, last = self._all(
            "SELECT min(first_position), max(last_position) FROM minutes WHERE minute BETWEEN ? AND ?",
            (since_us // MINUTE_US, until_us // MINUTE_US),
        )[0]
        terms.append("position BETWEEN ? AND ? AND recorded_at_us BETWEEN ? AND ?")
        values += [first or 0, last or 0, since_us, until_us]

    def position_of(self, id: str) -> int | None:
        """Where the message with this id is; None when it is not indexed, or not in the log."""
        rows = self._all(f"SELECT position FROM messages WHERE id = {_ID}", (id, id))
        return rows[0][0] if rows else None

    def effects(self, id: str, *, limit: int) -> list[Entry]:
        """The messages that follow from the message with this id, in order."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM messages JOIN names ON number = messages.name "
            f"WHERE causation = {_ID} ORDER BY position LIMIT ?",
            (id, id, limit),
        )
        return [_entry(row) for row in rows]

    def chain(self, correlation_id: str, *, limit: int) -> list[Link]:
        """The first messages of a chain of causes, in order, each with the position of its own cause."""
        where, values = self._where(Filter(correlation_id=correlation_id))
        rows = self._all(
            f"SELECT {_COLUMNS}, (SELECT position FROM messages AS cause WHERE cause.id = messages.causation) "
            f"FROM messages JOIN names ON number = messages.name WHERE {where[0]} ORDER BY position LIMIT ?",
            (*values, limit),
        )
        return [Link(_entry(row), row[-1]) for row in rows]

    def names(self) -> list[str]:
        """All names of messages that the log has, and of their features and workers."""
        return [row[0] for row in self._all("SELECT name FROM names ORDER BY name")]

    # Jobs.

    def history(self, worker: str, job: str, *, limit: int) -> list[JobEvent]:
        """The last events of a job, in order."""
        where = "worker = (SELECT number FROM names WHERE name = ?) AND job = ?"
        return self._events(where, (worker, job), limit)[::-1]

    def over(self, worker: str, *, before: int, limit: int) -> list[JobEvent]:
        """The jobs of a worker that ended last before a position, by the events that ended them, newest first."""
        listed = ", ".join(f"'{event}'" for event in OVER)
        where = f"worker = (SELECT number FROM names WHERE name = ?) AND event IN ({listed}) AND position < ?"
        return self._events(where, (worker, before), limit)

    def jobs_of(self, position: int, *, limit: int) -> list[JobEvent]:
        """What one message did to jobs."""
        return self._events("position = ?", (position,), limit)

    def _events(self, where: str, values: tuple[Any, ...], limit: int) -> list[JobEvent]:
        rows = self._all(
            "SELECT names.name, job, position, event, job_events.fence, "
            "(SELECT recorded_at_us FROM messages WHERE messages.position = job_events.position) "
            f"FROM job_events JOIN names ON number = worker WHERE {where} ORDER BY position DESC, event LIMIT ?",
            (*values, limit),
        )
        return [JobEvent(*row) for row in rows]

    # Over time.

    def buckets(self, *, until_us: int, minutes: int, count: int) -> list[Bucket]:
        """The last `count` spans of so many minutes each, oldest first; the last one holds `until_us`."""
        width_us = minutes * MINUTE_US
        last = until_us // width_us
        first = last - count + 1
        rows = self._all(
            "SELECT minute / ?1 AS span, sum(messages), sum(attempts), sum(answers), sum(failures) FROM minutes "
            "WHERE minute >= ?2 AND minute < ?3 GROUP BY span",
            (minutes, first * minutes, (last + 1) * minutes),
        )
        found = {span: counts for span, *counts in rows}
        return [Bucket(span * width_us, *found.get(span, ())) for span in range(first, last + 1)]

    def rate(self, *, now_us: int, over_s: float) -> float:
        """Messages a second, over the last seconds; of the newest RATE_MESSAGES_MAX only."""
        [[count]] = self._all(
            "SELECT count(*) FROM messages WHERE position > (SELECT position FROM progress) - ? AND recorded_at_us > ?",
            (RATE_MESSAGES_MAX, now_us - round(over_s * 1_000_000)),
        )
        return float(count / over_s)

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._in_time():
            return self._connection.execute(sql, tuple(values)).fetchall()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        self._deadline_s = time.monotonic() + ANSWER_S_MAX
        try:
            yield
        except apsw.InterruptError as error:
            raise TooSlow from error


def _entry(row: Sequence[Any]) -> Entry:
    position, name, subject, recorded_at_us, actor, fence, has_cause, *_ = row
    return Entry(position, name, subject, recorded_at_us, actor, fence, bool(has_cause))
