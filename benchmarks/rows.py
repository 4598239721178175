"""What is measured: rows, their contenders, and the goals that Journeyman has set itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

#: The units of figures: how they are written, and whether more is better.
UNITS: Final[Mapping[str, tuple[str, bool]]] = {
    "per_s": ("/s", True),
    "p50_ms": ("ms", False),
    "p99_ms": ("ms", False),
    "start_s": ("s", False),
    "process_s": ("s", False),
    "cpu_percent": ("% of a core", False),
    "bytes_per_row": ("B a row", False),
    "bytes_per_message": ("B a message", False),
}


@dataclass(frozen=True)
class LogShape:
    """A log that is there before: so many messages, to so many posts in turn; then jobs of three messages each."""

    messages: int
    rows: int
    jobs: int = 0
    snapshot: bool = False


@dataclass(frozen=True)
class Contender:
    """One who does the work: a function of a module under `contenders`, in a process of its own.

    `logs` are laid into its folder before, by file name. With a `server`, its store is a fresh place on one of that
    kind. Peers run in their own environment.
    """

    name: str
    module: str
    work: str
    options: Mapping[str, Any] = field(default_factory=dict)
    logs: Mapping[str, LogShape] = field(default_factory=dict)
    spawned: bool = False
    server: str = ""

    @property
    def is_peer(self) -> bool:
        return self.module in PEERS


@dataclass(frozen=True)
class Goal:
    """What a figure of a contender has to be: compared with another contender's of the same round, if one is named."""

    figure: str
    bound: float
    at_least: bool = True
    than: str | None = None
    of: str = "journeyman"

    @property
    def text(self) -> str:
        sign = "≥" if self.at_least else "≤"
        unit, _ = UNITS[self.figure]
        who = "" if self.of == "journeyman" else f"{self.of.removeprefix('journeyman: ')} "
        if self.than is None:
            return f"{who}{_name(self.figure)}{sign} {self.bound:,g} {unit}"
        return f"{who}{_name(self.figure)}{sign} {self.bound:g} × {self.than.removeprefix('journeyman: ')}"


@dataclass(frozen=True)
class Row:
    """One line of the table: contenders that do the same work."""

    name: str
    title: str
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How much work each row is. Enough for a figure to be steady; `QUICK` only shows that everything runs."""

    one_caller: int = 4_000
    few_callers: int = 20_000
    many_callers: int = 100_000
    peer_commands: int = 4_000
    peer_batch: int = 20_000
    peer_workflows: int = 200
    peer_tasks: int = 2_000
    replayed: int = 300_000
    peer_replayed: int = 100_000
    started: int = 1_000_000
    started_rows: int = 100_000
    queries: int = 500_000
    reactions: int = 300
    jobs: int = 10_000
    http: int = 20_000
    idle_s: float = 20.0
    memory_rows: int = 100_000
    memory_messages: int = 200_000
    memory_long: int = 1_000_000
    grown: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    grown_commands: int = 50_000
    grown_one_caller: int = 2_000
    grown_jobs: int = 5_000
    grown_replayed: int = 1_000_000
    grown_rows: int = 1_000
    server_commands: int = 50_000
    server_jobs: int = 5_000
    server_peer_jobs: int = 1_000
    cluster_commands: int = 20_000


FULL = Scale()

QUICK = replace(
    FULL,
    one_caller=300,
    few_callers=1_500,
    many_callers=8_000,
    peer_commands=200,
    peer_batch=2_000,
    peer_workflows=10,
    peer_tasks=100,
    replayed=30_000,
    peer_replayed=5_000,
    started=30_000,
    started_rows=10_000,
    queries=50_000,
    reactions=15,
    jobs=500,
    http=1_000,
    idle_s=1.0,
    memory_rows=10_000,
    memory_messages=20_000,
    memory_long=120_000,
    grown=(10_000, 30_000),
    grown_commands=4_000,
    grown_one_caller=200,
    grown_jobs=300,
    grown_replayed=30_000,
    server_commands=4_000,
    server_jobs=300,
    server_peer_jobs=50,
    cluster_commands=2_000,
)

#: The modules that need the peers' environment.
PEERS: Final = frozenset({"eventsourcing", "dbos", "huey", "procrastinate"})

#: What a message may take of the memory to call it flat, in bytes: the noise of the measurement, and below any message.
FLAT_BYTES: Final = 2.0

#: How far apart the rates at the smallest and at the largest log may be.
GROWTH: Final = 0.85


def rows(scale: Scale) -> list[Row]:
    """All rows, in the order of the table."""
    on_one_file = [*_commands(scale), *_reading(scale), *_jobs(scale), _http(scale), *_footprint(scale)]
    return [*on_one_file, *_growth(scale), *_postgres(scale), *_jetstream(scale)]


def _commands(scale: Scale) -> list[Row]:
    saving = _peer("eventsourcing", "load, command, save", "load-command-save", count=scale.peer_commands)
    saving_one = _peer("eventsourcing", "save one", "save-one", count=scale.peer_commands)
    saving_batch = _peer("eventsourcing", "save batch", "save-batch", count=scale.peer_batch)
    return [
        Row(
            "commands-1",
            "Commands, one caller",
            (
                _own("commands", callers=1, count=scale.one_caller),
                _bare("insert and commit, in place", "insert-and-commit", count=scale.one_caller),
                _bare("group commit", "group-commit", callers=1, count=scale.one_caller),
                saving,
                saving_one,
            ),
            (
                Goal("per_s", 0.5, than="bare: insert and commit, in place"),
                Goal("per_s", 1.2, than="eventsourcing: load, command, save"),
                Goal("per_s", 1.2, than="eventsourcing: save one"),
            ),
        ),
        Row(
            "commands-16",
            "Commands, 16 callers",
            (
                _own("commands", callers=16, count=scale.few_callers),
                _bare("group commit", "group-commit", callers=16, count=scale.few_callers),
            ),
        ),
        Row(
            "commands-256",
            "Commands, 256 callers",
            (
                _own("commands", callers=256, count=scale.many_callers),
                _bare("group commit", "group-commit", callers=256, count=scale.many_callers),
                saving,
                saving_batch,
            ),
            (
                Goal("per_s", 0.6, than="bare: group commit"),
                Goal("per_s", 15, than="eventsourcing: load, command, save"),
            ),
        ),
    ]


def _reading(scale: Scale) -> list[Row]:
    replayed = {"log.db": LogShape(scale.replayed, scale.started_rows // 10)}
    plain = {"log.db": LogShape(scale.started, scale.started_rows)}
    kept = {"log.db": LogShape(scale.started, scale.started_rows, snapshot=True)}
    rows = scale.started_rows // 10
    return [
        Row(
            "replay",
            "Replay: read, decode, apply",
            (
                _own("replay", logs=replayed),
                _bare("whole messages", "replay", logs=replayed),
                _bare("bodies only", "replay", bodies_only=True, logs=replayed),
                _peer(
                    "eventsourcing", "projection", "replay", count=scale.peer_replayed, rows=scale.peer_replayed // 30
                ),
            ),
            (
                Goal("per_s", 0.6, than="bare: whole messages"),
                Goal("per_s", 3, than="eventsourcing: projection"),
            ),
        ),
        Row(
            "start",
            f"Start: {scale.started:,} messages, {scale.started_rows:,} rows",
            (
                _own("start", "with a snapshot", snapshot=True, logs=kept, spawned=True),
                _own("start", "without a snapshot", snapshot=False, logs=plain, spawned=True),
            ),
            (Goal("start_s", 1.0, at_least=False, of="journeyman: with a snapshot"),),
        ),
        Row(
            "queries",
            "Queries: get one post",
            (
                _own("queries", count=scale.queries, rows=rows, logs=replayed),
                _bare("awaited dict", "queries", count=scale.queries, rows=rows, logs=replayed),
            ),
            (Goal("per_s", 300_000),),
        ),
    ]


def _jobs(scale: Scale) -> list[Row]:
    direct = _peer("dbos", "direct", "direct", count=scale.peer_workflows)
    queued = _peer("dbos", "queued", "queued", count=scale.peer_workflows)
    huey = _peer("huey", "enqueue and consume", "enqueue-and-consume", count=scale.peer_tasks, workers=2)
    bare = _bare("two messages a job", "jobs", count=scale.jobs, concurrency=256)
    return [
        Row(
            "reaction",
            "Idle reaction: from the receipt to the job's beginning",
            (
                _own("reaction", samples=scale.reactions),
                _bare("the second of two commits", "reaction", samples=scale.reactions),
                _own("reaction-by-function", "by a reaction", samples=scale.reactions),
            ),
            (Goal("p50_ms", 1.0, at_least=False), Goal("p99_ms", 10.0, at_least=False)),
        ),
        Row(
            "reaction-elsewhere",
            "Idle reaction, in another process",
            (_own("reaction-elsewhere", samples=scale.reactions),),
            (Goal("p50_ms", 3.0, at_least=False), Goal("p99_ms", 10.0, at_least=False)),
        ),
        Row(
            "jobs",
            "Jobs that wait: attempt and answer recorded",
            (_own("jobs", count=scale.jobs), bare, direct, queued),
            (
                Goal("per_s", 5_000),
                Goal("per_s", 20, than="dbos: direct"),
                Goal("per_s", 20, than="dbos: queued"),
            ),
        ),
        Row(
            "jobs-whole",
            "Jobs from the opening command to the recorded answer",
            (_own("jobs-whole", count=scale.jobs, callers=256), direct, queued, huey),
            (Goal("per_s", 20, than="dbos: direct"), Goal("per_s", 20, than="dbos: queued")),
        ),
    ]


def _http(scale: Scale) -> Row:
    return Row(
        "http",
        "Commands over HTTP, 64 connections",
        (
            _own("http", connections=64, count=scale.http),
            Contender("bare: litestar and group commit", "bare_http", "http", {"connections": 64, "count": scale.http}),
        ),
        (Goal("per_s", 0.6, than="bare: litestar and group commit"),),
    )


def _footprint(scale: Scale) -> list[Row]:
    few = scale.memory_rows // 10
    logs = {
        "many.db": LogShape(scale.memory_messages, scale.memory_rows),
        "few.db": LogShape(scale.memory_messages, few),
        "long.db": LogShape(scale.memory_long, scale.memory_rows),
    }
    of_rows: dict[str, Any] = {"many_rows": scale.memory_rows, "few_rows": few}
    of_messages: dict[str, Any] = {"messages": scale.memory_messages, "long_messages": scale.memory_long}
    return [
        Row(
            "memory",
            "Memory",
            (
                _own("memory", logs=logs, **of_rows, **of_messages),
                _bare("dict", "memory", **of_rows, logs={name: logs[name] for name in ("many.db", "few.db")}),
            ),
            (
                Goal("bytes_per_row", 1.5, at_least=False, than="bare: dict"),
                Goal("bytes_per_message", FLAT_BYTES, at_least=False),
            ),
        ),
        Row(
            "idle",
            "Idle, with a worker",
            (
                _own("idle", seconds=scale.idle_s),
                _peer("dbos", "a queue", "idle", seconds=scale.idle_s),
            ),
            (Goal("cpu_percent", 0.5, at_least=False),),
        ),
    ]


def _growth(scale: Scale) -> list[Row]:
    """The same rates on logs of different lengths, and equally many rows."""

    def over_logs(name: str, title: str, work: str, *, jobs: bool = False, **options: Any) -> Row:
        shapes = {size: {"log.db": _grown(size, scale, jobs=jobs)} for size in scale.grown}
        contenders = tuple(
            Contender(f"journeyman: {size:,} messages", "journeyman", work, _scaled(options, size), logs)
            for size, logs in shapes.items()
        )
        goals = tuple(Goal("per_s", GROWTH, than=contenders[0].name, of=one.name) for one in contenders[1:])
        return Row(f"growth-{name}", f"Growth: {title}", contenders, goals)

    return [
        over_logs("commands-1", "commands, one caller", "commands", callers=1, count=scale.grown_one_caller),
        over_logs("commands-256", "commands, 256 callers", "commands", callers=256, count=scale.grown_commands),
        over_logs("replay", "replay", "replay", times=lambda size: max(1, scale.grown_replayed // size)),
        over_logs("queries", "queries", "queries", count=scale.queries, rows=scale.grown_rows),
        over_logs("jobs", "jobs that wait", "jobs", jobs=True, count=scale.grown_jobs),
    ]


def _postgres(scale: Scale) -> list[Row]:
    def on(name: str, module: str, work: str, **options: Any) -> Contender:
        return Contender(name, module, work, options, server="postgresql")

    together, jobs = {"callers": 256, "count": scale.server_commands}, scale.server_peer_jobs
    alone = on("journeyman", "journeyman", "commands", **together)
    return [
        Row(
            "postgres-commands",
            "PostgreSQL: commands, 256 callers",
            (
                alone,
                on("journeyman: four processes", "journeyman", "commands-together", processes=4, **together),
                on(
                    "journeyman: four processes, 256 callers each",
                    "journeyman",
                    "commands-together",
                    processes=4,
                    callers=4 * 256,
                    count=scale.server_commands,
                ),
                on("bare: group commit by unnest", "bare_postgres", "group-commit", **together),
            ),
            (
                Goal("per_s", 0.5, than="bare: group commit by unnest"),
                Goal("per_s", 0.8, than="journeyman", of="journeyman: four processes"),
                Goal("per_s", 0.8, than="journeyman", of="journeyman: four processes, 256 callers each"),
            ),
        ),
        Row(
            "postgres-reaction",
            "PostgreSQL: idle reaction",
            (
                on("journeyman: in another process", "journeyman", "reaction-elsewhere", samples=scale.reactions),
                on("journeyman: in the same process", "journeyman", "reaction", samples=scale.reactions),
            ),
            (Goal("p50_ms", 5.0, at_least=False, of="journeyman: in another process"),),
        ),
        Row(
            "postgres-jobs",
            "PostgreSQL: jobs that wait",
            (
                on("journeyman", "journeyman", "jobs", count=scale.server_jobs),
                on("procrastinate: 20 at a time", "procrastinate", "jobs", count=jobs, concurrency=20),
                on("dbos: direct", "dbos", "direct", count=scale.peer_workflows),
                on("dbos: queued", "dbos", "queued", count=scale.peer_workflows),
            ),
            (
                Goal("per_s", 10, than="procrastinate: 20 at a time"),
                Goal("per_s", 10, than="dbos: direct"),
                Goal("per_s", 10, than="dbos: queued"),
            ),
        ),
    ]


def _jetstream(scale: Scale) -> list[Row]:
    def on(name: str, module: str, work: str, **options: Any) -> Contender:
        return Contender(name, module, work, options, server="nats")

    return [
        Row(
            "jetstream-commands",
            "JetStream, three replicas on one machine: commands, 256 callers",
            (
                on("journeyman", "journeyman", "commands", callers=256, count=scale.cluster_commands),
                on("bare: atomic batches of 256", "bare_jetstream", "batches", count=scale.cluster_commands, size=256),
            ),
            (Goal("per_s", 0.5, than="bare: atomic batches of 256"),),
        ),
        Row(
            "jetstream-reaction",
            "JetStream, three replicas: idle reaction",
            (
                on("journeyman: in another process", "journeyman", "reaction-elsewhere", samples=scale.reactions),
                on("journeyman: in the same process", "journeyman", "reaction", samples=scale.reactions),
            ),
            (Goal("p50_ms", 10.0, at_least=False, of="journeyman: in another process"),),
        ),
        Row(
            "jetstream-jobs",
            "JetStream, three replicas: jobs that wait",
            (on("journeyman", "journeyman", "jobs", count=scale.server_jobs),),
        ),
    ]


def _grown(size: int, scale: Scale, *, jobs: bool) -> LogShape:
    """Of a log for jobs, half of the messages are of earlier ones."""
    return LogShape(size - 3 * (size // 6), scale.grown_rows, size // 6) if jobs else LogShape(size, scale.grown_rows)


def _scaled(options: Mapping[str, Any], size: int) -> dict[str, Any]:
    return {name: option(size) if callable(option) else option for name, option in options.items()}


def _own(
    work: str,
    words: str = "",
    *,
    logs: Mapping[str, LogShape] | None = None,
    spawned: bool = False,
    **options: Any,
) -> Contender:
    name = f"journeyman: {words}" if words else "journeyman"
    return Contender(name, "journeyman", work, options, logs or {}, spawned)


def _bare(words: str, work: str, *, logs: Mapping[str, LogShape] | None = None, **options: Any) -> Contender:
    return Contender(f"bare: {words}", "bare", work, options, logs or {})


def _peer(module: str, words: str, work: str, **options: Any) -> Contender:
    return Contender(f"{module}: {words}", module, work, options)


def _name(figure: str) -> str:
    return {"p50_ms": "p50 ", "p99_ms": "p99 "}.get(figure, "")
