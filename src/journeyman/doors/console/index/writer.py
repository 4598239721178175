"""Writing the index: batch after batch, each in one transaction. It lives in one thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Final, cast

import apsw
import msgspec

from journeyman.doors.console.index.job_effects import Event, JobEffects
from journeyman.doors.console.index.open_jobs import Happening, OpenJobs
from journeyman.message import Record

MINUTE_US: Final = 60_000_000

#: The layout of `create.sql`. An index of another one is made anew.
LAYOUT: Final = 1

#: What marks a SQLite file as an index ("Jnyi"), so that nothing else is ever overwritten.
APPLICATION_ID: Final = 0x4A6E7969


def sql(name: str) -> str:
    """A statement from its file."""
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


_CREATE, _ADD_MESSAGE, _ADD_MINUTE = sql("create"), sql("add_message"), sql("add_minute")


class BuiltFor(msgspec.Struct, frozen=True):
    """What an index depends on besides the log: the code that says what opens and ends jobs, and what is set aside."""

    code: str | None
    set_asides: tuple[int, ...]


class Mark(msgspec.Struct, frozen=True):
    """How far an index reaches, and by which messages of the log one can tell that it is of that log."""

    position: int = 0
    first_id: str | None = None
    last_id: str | None = None


class _Minute(msgspec.Struct):
    first: int
    last: int = 0
    messages: int = 0
    attempts: int = 0
    answers: int = 0
    failures: int = 0


#: What each event counts as in its minute.
_COUNTED: Final[dict[Event, str]] = {
    "started": "attempts",
    "answered": "answers",
    "ended": "answers",
    "failed": "failures",
    "lost": "failures",
}


class IndexWriter:
    """Adds records to the index."""

    def __init__(self, connection: apsw.Connection, effects: JobEffects) -> None:
        self._connection = connection
        self._effects = effects
        self._set_asides: frozenset[int] = frozenset()
        self._names: dict[str, int] = {}
        self._jobs = OpenJobs()

    @property
    def mark(self) -> Mark:
        """How far it reaches."""
        row = self._connection.execute("SELECT position, first_id, last_id FROM progress").fetchone()
        return Mark(*row) if row is not None else Mark()

    def is_built_for(self, wanted: BuiltFor) -> bool:
        """Whether it can be gone on with: it has this layout, and was built under the same code and decisions."""
        if self._connection.pragma("user_version") != LAYOUT:
            return False
        try:
            found = self._connection.execute("SELECT built_for FROM progress").get
        except apsw.SQLError:
            return False  # The table is not there.
        if found != msgspec.json.encode(wanted).decode():
            return False
        self._set_asides = frozenset(wanted.set_asides)
        self._read_again()
        return True

    def begin_anew(self, wanted: BuiltFor) -> None:
        """Empty the index. Readers see the old one until this is committed."""
        with self._connection:
            tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            for (table,) in self._connection.execute(tables).fetchall():
                self._connection.execute(f'DROP TABLE "{table}"')
            self._connection.execute(_CREATE)
            self._connection.pragma("application_id", APPLICATION_ID)
            self._connection.pragma("user_version", LAYOUT)
            built_for = msgspec.json.encode(wanted).decode()
            self._connection.execute("INSERT INTO progress VALUES (1, ?, 0, NULL, NULL)", (built_for,))
        self._set_asides = frozenset(wanted.set_asides)
        self._read_again()

    def add(self, records: Sequence[Record]) -> None:
        """Add the records, which follow the last one that was added. What is read meanwhile is as of before."""
        try:
            with self._connection:
                self._add(records)
        except BaseException:
            self._read_again()  # What was taken in since the last commit is not in the file.
            raise

    def _read_again(self) -> None:
        names = self._connection.execute("SELECT name, number FROM names").fetchall()
        self._names = dict(cast(list[tuple[str, int]], names))
        jobs = self._connection.execute(
            "SELECT name, job, fence, instance FROM open_jobs JOIN names ON number = worker"
        )
        self._jobs = OpenJobs(cast(Iterable[tuple[str, str, int | None, str | None]], jobs))
        self._jobs.take()

    def _add(self, records: Sequence[Record]) -> None:
        self._connection.executemany(_ADD_MESSAGE, map(self._row, records))
        for record in records:
            if record.position not in self._set_asides:
                self._jobs.position = record.position
                self._effects.follow(record, self._jobs)
        happened = self._keep_jobs()
        self._connection.executemany(_ADD_MINUTE, _minutes(records, happened))
        self._connection.execute(
            "UPDATE progress SET position = ?1, last_id = ?2, first_id = coalesce(first_id, ?3)",
            (records[-1].position, records[-1].id, records[0].id),
        )

    def _keep_jobs(self) -> list[Happening]:
        happened, is_open, closed = self._jobs.take()
        number = self._number
        self._connection.executemany(
            "INSERT INTO job_events VALUES (?, ?, ?, ?, ?)",
            [(number(one.worker), one.job, one.position, one.event, one.fence) for one in happened],
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO open_jobs VALUES (?, ?, ?, ?)",
            [
                (number(worker), job, *((attempt.fence, attempt.instance) if attempt is not None else (None, None)))
                for (worker, job), attempt in is_open.items()
            ],
        )
        self._connection.executemany(
            "DELETE FROM open_jobs WHERE worker = ? AND job = ?", [(number(worker), job) for worker, job in closed]
        )
        return happened

    def _row(self, record: Record) -> tuple[int | str | None, ...]:
        return (
            record.position,
            record.id,
            self._number(record.name),
            self._number(record.name.partition("/")[0]),
            record.subject,
            record.recorded_at_us,
            record.correlation_id,
            record.causation_id,
            record.actor,
            record.fence,
        )

    def _number(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            self._connection.execute("INSERT INTO names (name) VALUES (?)", (name,))
            number = self._names[name] = self._connection.last_insert_rowid()
        return number


def _minutes(records: Sequence[Record], happened: Iterable[Happening]) -> list[tuple[int, ...]]:
    """What the records add to their minutes."""
    minutes: dict[int, _Minute] = {}
    for record in records:
        minute = minutes.get(record.recorded_at_us // MINUTE_US)
        if minute is None:
            minute = minutes[record.recorded_at_us // MINUTE_US] = _Minute(record.position)
        minute.last = record.position
        minute.messages += 1
    for one in happened:
        if (counted := _COUNTED.get(one.event)) is not None:
            minute = minutes[records[one.position - records[0].position].recorded_at_us // MINUTE_US]
            setattr(minute, counted, getattr(minute, counted) + 1)
    return [(number, *msgspec.structs.astuple(minute)) for number, minute in minutes.items()]
