"""What the log says happened, counted without any code of the product: records in, findings out.

The checks are proved in test_checker.py by logs with one thing wrong each, and in test_planted.py by bugs that are
planted in running processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from journeyman import Record


class Acknowledged(msgspec.Struct, frozen=True):
    """What a client was told: that its command is recorded, where and under which id."""

    key: str
    position: int
    message_id: str


class Findings(msgspec.Struct, kw_only=True):
    """Counts. Those of the first part are broken promises, and must be 0; the others tell how much was tried."""

    #: Acknowledged commands that are not where their client was told, and positions that are missing.
    lost: int = 0
    #: Commands recorded more than once.
    doubled: int = 0
    #: Questions without an answer, but for those that may be parked.
    forgotten: int = 0
    #: Answers beyond the first.
    answered_twice: int = 0
    #: Reactions beyond the first to one message.
    reacted_twice: int = 0
    #: Starts of a job while an attempt of it, or of another one of its subject, was open.
    overlaps: int = 0
    #: Answers before the answer of an older job of the same subject.
    out_of_order: int = 0
    #: Outcomes of attempts that were not, or no longer, the job's own.
    unfenced: int = 0
    #: Starts by a process that had been declared gone.
    started_by_lost: int = 0
    #: Starts of a suspect in a process that was running another one.
    suspects_together: int = 0
    #: Jobs tried more often than they may be, or given up or parked before.
    charged_wrongly: int = 0
    #: Calls of the service beyond the recorded starts, and answers without a call.
    calls_unrecorded: int = 0

    acknowledged: int = 0
    jobs: int = 0
    attempts: int = 0
    #: The most attempts that one job was charged.
    charged_max: int = 0
    instances_lost: int = 0
    released: int = 0
    failed_attempts: int = 0
    given_up: int = 0
    parked: int = 0
    calls: int = 0
    #: Calls beyond the first for a job: after crashes, and after failures.
    calls_repeated: int = 0

    def __add__(self, other: Findings) -> Findings:
        """Of both together."""
        added = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return Findings(**added | {"charged_max": max(self.charged_max, other.charged_max)})

    @property
    def broken(self) -> dict[str, int]:
        """What must not be, by name: empty when all is well."""
        names = self.__struct_fields__[: self.__struct_fields__.index("acknowledged")]
        return {name: count for name in names if (count := getattr(self, name))}


def check(
    records: Sequence[Record],
    acknowledged: Iterable[Acknowledged] = (),
    calls: Mapping[str, int] | None = None,
    *,
    attempts_max: int = 3,
    parked_allowed: Iterable[str] = (),
) -> Findings:
    """Count everything that the promises are about.

    Args:
        records: the whole log.
        calls: how often the service was called for each job; None when that was not counted.
        attempts_max: how often a job may be tried.
        parked_allowed: jobs that may be without an answer at the end, parked for a person.
    """
    found = Findings()
    _check_commands(found, records, list(acknowledged))
    jobs = _Jobs(found, attempts_max)
    jobs.follow(records)
    jobs.check_end(records, set(parked_allowed))
    if calls is not None:
        jobs.check_calls(calls)
    return found


def _check_commands(found: Findings, records: Sequence[Record], acknowledged: list[Acknowledged]) -> None:
    by_position = {record.position: record for record in records}
    found.acknowledged = len(acknowledged)
    for told in acknowledged:
        record = by_position.get(told.position)
        found.lost += record is None or (record.id, record.subject) != (told.message_id, told.key)
    found.lost += sum(record.position != number for number, record in enumerate(records, start=1))
    puts = Counter(record.subject for record in records if record.name == "questions/put")
    found.doubled = sum(count - 1 for count in puts.values())


class _Jobs:
    """Follows the protocol of the jobs, message by message, in a model of its own."""

    def __init__(self, found: Findings, attempts_max: int) -> None:
        self._found = found
        self._attempts_max = attempts_max
        self._subject: dict[str, str] = {}
        #: The jobs of a subject that have no answer yet, oldest first.
        self._open: dict[str, list[str]] = defaultdict(list)
        #: The open attempt of a job.
        self._fence: dict[str, int] = {}
        self._instance: dict[str, str] = {}
        self._job_of: dict[int, str] = {}
        self._starts: Counter[str] = Counter()
        self._charged: Counter[str] = Counter()
        self._suspects: set[str] = set()
        self._answers: Counter[str] = Counter()
        self._parked: set[str] = set()
        self._lost: set[str] = set()
        self._steps: dict[str, Callable[[Record, Any], None]] = {
            "questions/ask": self._asked,
            "questions/answer": self._answered,
            "questions/fail": self._given_up,
            "journeyman/job-started": self._started,
            "journeyman/job-failed": self._failed,
            "journeyman/job-released": self._released,
            "journeyman/job-ended": self._outcome,
            "journeyman/job-parked": self._park,
            "journeyman/instance-lost": self._instance_lost,
        }

    def follow(self, records: Sequence[Record]) -> None:
        for record in records:
            if (step := self._steps.get(record.name)) is not None:
                step(record, msgspec.json.decode(record.body))

    def check_end(self, records: Sequence[Record], parked_allowed: set[str]) -> None:
        found = self._found
        puts = {record.subject for record in records if record.name == "questions/put"}
        found.forgotten = len(puts - self._answers.keys() - (self._parked & parked_allowed))
        found.answered_twice = sum(count - 1 for count in self._answers.values())
        found.jobs = len(self._subject)
        found.parked = len(self._parked)
        found.charged_max = max(self._charged.values(), default=0)

    def check_calls(self, calls: Mapping[str, int]) -> None:
        found = self._found
        found.calls = sum(calls.values())
        found.calls_repeated = sum(count - 1 for count in calls.values() if count)
        beyond = sum(max(0, count - self._starts[job]) for job, count in calls.items())
        found.calls_unrecorded = beyond + sum(not calls.get(job) for job in self._answers)

    def _asked(self, record: Record, body: Any) -> None:
        job = body["key"]
        self._found.reacted_twice += job in self._subject
        self._subject[job] = body["about"]
        self._open[body["about"]].append(job)

    def _started(self, record: Record, body: Any) -> None:
        found, job, instance = self._found, body["job"], body["instance"]
        found.attempts += 1
        found.overlaps += any(self._subject[other] == self._subject[job] for other in self._fence)
        found.started_by_lost += instance in self._lost
        found.suspects_together += job in self._suspects and any(
            self._instance[other] == instance for other in self._fence if other in self._suspects
        )
        self._starts[job] += 1
        self._charged[job] += 1
        found.charged_wrongly += self._charged[job] > self._attempts_max
        self._fence[job], self._instance[job] = record.position, instance
        self._job_of[record.position] = job

    def _answered(self, record: Record, body: Any) -> None:
        job = body["key"]
        self._found.unfenced += record.fence is None or self._fence.get(job) != record.fence
        order = self._open[self._subject[job]]
        self._found.out_of_order += bool(order) and order[0] != job
        if job in order:
            order.remove(job)
        self._answers[job] += 1
        self._over(job)

    def _given_up(self, record: Record, body: Any) -> None:
        self._found.given_up += 1
        self._found.charged_wrongly += self._charged[body["key"]] < self._attempts_max
        self._answered(record, body)

    def _outcome(self, record: Record, body: Any) -> None:
        """An attempt is over that the message names by its fence."""
        job = self._job_of[body["fence"]]
        self._found.unfenced += self._fence.get(job) != body["fence"]
        self._over(job)

    def _failed(self, record: Record, body: Any) -> None:
        self._found.failed_attempts += 1
        self._suspects.discard(self._job_of[body["fence"]])
        self._outcome(record, body)

    def _released(self, record: Record, body: Any) -> None:
        self._found.released += 1
        self._charged[self._job_of[body["fence"]]] -= 1
        self._outcome(record, body)

    def _instance_lost(self, record: Record, body: Any) -> None:
        """Its jobs are uncharged; but a suspect's second death is its own, unless the process left by itself."""
        self._found.instances_lost += 1
        self._lost.add(body["instance"])
        left = body.get("left", False)
        for job in [job for job in self._fence if self._instance[job] == body["instance"]]:
            self._charged[job] -= left or job not in self._suspects
            if not left:
                self._suspects.add(job)
            self._over(job)

    def _park(self, record: Record, body: Any) -> None:
        job = body["job"]
        self._found.charged_wrongly += self._charged[job] < self._attempts_max
        self._parked.add(job)
        order = self._open[self._subject[job]]
        if job in order:
            order.remove(job)

    def _over(self, job: str) -> None:
        self._fence.pop(job, None)
