"""TodoWorker: a worker whose list of jobs is part of the application's state."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

import msgspec

from journeyman.errors import DefinitionError
from journeyman.feature import Command
from journeyman.follower import MessageSource
from journeyman.message import Message
from journeyman.retry import Retry
from journeyman.worker import Application, Context

C = TypeVar("C", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

#: The longest time after which a job may be due, in seconds: a hundred years.
DUE_IN_S_MAX: Final = 100 * 365 * 86400.0


class Job(msgspec.Struct, frozen=True):
    """A job to be opened.

    Args:
        key: names the job within its worker. While a job with the key is open, opening it again does nothing.
        subject: what it is about. Jobs of one subject run one at a time, in order; None orders nothing.
        due_in_s: seconds after its message was recorded, before which it is not tried. It keeps no other job of its
            subject back until then.

    Raises:
        TypeError, ValueError: a value is not what it must be: a Struct made in Python is not checked by itself.
    """

    key: str
    subject: str | None = None
    due_in_s: float = 0.0

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.key, self.subject or "")):
            raise TypeError(f"{self}: key is a string, subject a string or None.")
        if not 0 <= self.due_in_s <= DUE_IN_S_MAX:
            raise ValueError(f"{self}: due_in_s is from 0 to {DUE_IN_S_MAX:g}.")


class Attempt(msgspec.Struct, Generic[C], frozen=True, kw_only=True):
    """One try at a job.

    `number` counts 1, 2, 3 … . `message` is what opened the job: its input. `key` is the same over all attempts: for
    services that deduplicate. `fence` is the attempt's own number, which its answer must carry to be taken.
    """

    id: str
    subject: str | None
    number: int
    message: Message[C]
    fence: int
    key: str


class Reaction(msgspec.Struct, frozen=True):
    """A declared reaction: the method, the command it reacts to, and from where on."""

    method: str
    on: type[Command]
    name: str
    since: int | Literal["now"] | None
    former_names: tuple[str, ...]


def reacts(
    on: type[Command], *, name: str, since: int | Literal["now"] | None = None, former_names: Sequence[str] = ()
) -> Callable[[F], F]:
    """Message in, commands out, once each and in order. For a method that takes a Message of `on`.

    The method returns a command, a list of commands, or None. It makes no external call; ids it makes derive from the
    message's id, so that it returns the same when it is asked again. Returning None is not recorded.

    Args:
        name: the reaction's name, fixed for ever; in `former_names` when it changes.
        since: from which position on old messages are handled when the reaction is first used on a log that has some:
            0 for all of them, "now" for none. Without it such a start is refused.
    """
    return _marker("reacts", lambda method: Reaction(method, on, name, since, tuple(former_names)))


def opens(*on: type[Command]) -> Callable[[F], F]:
    """For a pure method that takes a Message of one of these commands and returns the Job it opens, several, or
    None.
    """
    return _marker("opens", lambda method: (method, on))


def ends(*on: type[Command]) -> Callable[[F], F]:
    """For a pure method that takes a Message of one of these commands and returns the key of the job it ends, several,
    or None.
    """
    return _marker("ends", lambda method: (method, on))


def _marker(kind: str, make: Callable[[str], Any]) -> Callable[[F], F]:
    def mark(function: F) -> F:
        marks = getattr(function, "__journeyman__", ())
        function.__journeyman__ = (*marks, (kind, make))  # type: ignore[attr-defined]
        return function

    return mark


class TodoWorker:
    """A worker with a to-do list. Subclass it, and register an instance with the application.

    Every process builds every worker, to keep its list: so `__init__` takes no secrets and does no I/O. Clients are
    opened in `start`, which runs only where workers do.

    Attributes:
        name: `feature/words`, fixed for ever; in `former_names` when it changes.
        concurrency: how many attempts run at once in one process.
        concurrency_total: how many run at once in all processes together; None for no such limit.
        requests_per_minute: how many attempts begin in any 60 seconds in all processes together, for services that
            count; a tenth of them may begin at once. None for no such limit.
        timeout_s: how long an attempt may take.
        retry: how often and after which pauses a job is tried.
        after_crash: "retry", or "park" for effects that must not be repeated: a job whose attempt was cut off, by the
            death of its process, by its stop or by `timeout_s`, then waits for a person, its outcome unknown.
    """

    name: ClassVar[str]
    former_names: ClassVar[Sequence[str]] = ()
    concurrency: ClassVar[int] = 8
    concurrency_total: ClassVar[int | None] = None
    requests_per_minute: ClassVar[int | None] = None
    timeout_s: ClassVar[float] = 60.0
    retry: ClassVar[Retry] = Retry()
    after_crash: ClassVar[Literal["retry", "park"]] = "retry"

    #: The application: for queries and commands, from `start` on.
    app: Application
    #: The log's messages by position, from `start` on.
    messages: MessageSource
    #: What every worker is given: when the application stops, and the way from a thread to the loop; from `start` on.
    context: Context

    async def start(self) -> None:
        """Open clients. Raising fails the application's start."""

    async def stop(self) -> None:
        """Close clients. No attempt runs any more."""

    def perform(self, attempt: Attempt[Any]) -> Awaitable[Command | None] | Command | None:
        """The slow call, outside every lock. Returns the command that answers; None when the job needs no answer.

        `async def`, or a `def` that runs in a thread. A thread can't be cut off after `timeout_s`: it holds its slot
        until it returns, and what it returns is taken however late. It may be called again for the same job after a
        crash: its outcome is what is recorded once. Raise ServiceError and its kin for what the service did, also in
        place of a client library's errors, which nobody else can tell from the job's own; GiveUp when trying again
        can't help; anything else for what this job did, which is charged to it.
        """
        raise NotImplementedError

    def give_up(self, attempt: Attempt[Any], error: BaseException) -> Command | None:
        """The command that answers after the last attempt; None parks the job for a person. Makes no external call."""
        return None

    # What the subclass declared, gathered once.

    reactions: ClassVar[tuple[Reaction, ...]] = ()
    openers: ClassVar[tuple[tuple[str, tuple[type[Command], ...]], ...]] = ()
    enders: ClassVar[tuple[tuple[str, tuple[type[Command], ...]], ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found: dict[str, list[Any]] = {"reacts": [], "opens": [], "ends": []}
        for name in dir(cls):
            for kind, make in getattr(getattr(cls, name, None), "__journeyman__", ()):
                found[kind].append(make(name))
        cls.reactions = tuple(found["reacts"])
        cls.openers = tuple(found["opens"])
        cls.enders = tuple(found["ends"])


def check_worker(worker: TodoWorker) -> None:
    """Refuse a to-do worker that can't work.

    Raises:
        DefinitionError: it has no name, opens no jobs, has no `perform`, or a value makes no sense.
    """
    cls = type(worker)
    where = cls.__name__
    if not getattr(cls, "name", ""):
        raise DefinitionError(f"{where} needs a name, like name = 'posts/summaries'.")
    if cls.openers and cls.perform is TodoWorker.perform:
        raise DefinitionError(f"{where} opens jobs, but has no perform to do them.")
    if not cls.openers and not cls.reactions:
        raise DefinitionError(f"{where} does nothing: give it a method with @opens, or one with @reacts.")
    if cls.concurrency < 1 or cls.timeout_s <= 0:
        raise DefinitionError(f"{where}: concurrency must be at least 1, and timeout_s above 0.")
    for limit in ("concurrency_total", "requests_per_minute"):
        if (value := getattr(cls, limit)) is not None and value < 1:
            raise DefinitionError(f"{where}: {limit} is {value}; it must be at least 1, or None for no limit.")
    for method in (*(name for name, _ in (*cls.openers, *cls.enders)), "give_up"):
        if inspect.iscoroutinefunction(getattr(cls, method)):
            raise DefinitionError(f"{where}.{method} is `async def`; what it returns is needed at once: make it `def`.")
    names = [name for reaction in cls.reactions for name in (reaction.name, *reaction.former_names)]
    if len(names) != len(set(names)):
        raise DefinitionError(f"{where} has two reactions of one name: {', '.join(sorted(names))}.")
