"""Features: vertical slices of an application, with their commands, queries and state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import new_class
from typing import Any, Generic, Literal, Protocol, TypeVar, dataclass_transform, get_type_hints, overload

import msgspec

from journeyman.codec import Codec, MessageType, Upcaster, check_name
from journeyman.errors import DefinitionError, UnknownName
from journeyman.message import INTERNAL_PREFIX, Message
from journeyman.retry import Retry
from journeyman.tables import AppState, State

S = TypeVar("S", bound=State)
T = TypeVar("T")
C = TypeVar("C", bound="Command")
CommandClass = TypeVar("CommandClass", bound="type[Command]")
QueryClass = TypeVar("QueryClass", bound="type[Query[Any]]")
UpcasterFunction = TypeVar("UpcasterFunction", bound=Upcaster)


class _FrozenMeta(msgspec.StructMeta):
    """Makes plain `class CreatePost(Command)` a frozen Struct, built by keywords, that refuses unknown fields."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> _FrozenMeta:
        strict = {"frozen": True, "kw_only": True, "forbid_unknown_fields": True}
        return super().__new__(mcls, name, bases, namespace, **{**strict, **config})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, metaclass=_FrozenMeta, frozen=True):
    """A request to change state. Its fields are what is recorded.

    `validate` and `apply` see the proposed message: its position, `recorded_at`, actor and ids. They must be
    deterministic: no clock, no randomness, no I/O; every process, now and in years, runs them on the same message.
    """

    def validate(self, state: Any, message: Message[Any]) -> None:
        """Raise Rejected when the state does not allow this command. Changes nothing."""

    def apply(self, state: Any, message: Message[Any]) -> None:
        """Change the feature's tables. Reads other features' by `feature.of(state)`."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Query(msgspec.Struct, Generic[T], metaclass=_FrozenMeta, frozen=True):
    """A question answered from state. Its fields are what it asks about."""

    def run(self, state: Any) -> T:
        """The answer. Changes nothing; raise NotFound for what is not there."""
        raise NotImplementedError


class CommandType(msgspec.Struct, frozen=True, kw_only=True):
    """A command class, registered: its full name, its feature, and the field that says what it is about."""

    message_type: MessageType[Any]
    feature: str
    subject_field: str | None

    @property
    def name(self) -> str:
        return self.message_type.name

    def subject_of(self, body: Any) -> str | None:
        if self.subject_field is None:
            return None
        value = getattr(body, self.subject_field)
        return None if value is None else str(value)


class QueryType(msgspec.Struct, frozen=True, kw_only=True):
    """A query class, registered."""

    name: str
    feature: str
    query: type[Query[Any]]


class RequestResult(Command):
    """A job declared by a function is asked for; its input is the message at `position`."""

    request_id: str
    subject: str | None
    position: int


class SetResult(Command, Generic[T]):
    """The function's result. `subject` is that of the message it was called with."""

    request_id: str
    subject: str | None
    result: T


class FailResult(Command):
    """The function failed for the last time."""

    request_id: str
    subject: str | None
    error_message: str


class JobFunction(Generic[T]):
    """A function that `Feature.job` made a job of: three commands, and a to-do worker that is made from it.

    The commands are `feature/request-NAME`, `set-NAME` and `fail-NAME`; the worker is named `feature/NAME`.
    """

    def __init__(
        self, feature: Feature[Any], name: str, function: Callable[[Message[Any]], Any], on: type[Command]
    ) -> None:
        self.name = f"{feature.name}/{name}"
        self.function = function
        self.on = on
        self.since: int | Literal["now"] | None = None
        self.retry = Retry()
        self.concurrency = 8
        self.timeout_s = 60.0
        result = get_type_hints(function).get("return")
        if result is None:
            raise DefinitionError(f"{function.__qualname__} needs a return type: it is what is recorded.")
        self._apply: Callable[[Any, Message[Any]], None] | None = None
        self._apply_failure: Callable[[Any, Message[Any]], None] | None = None
        self.request = self._command(feature, "request", name, RequestResult, {})
        self.set = self._command(feature, "set", name, SetResult[result], {"apply": self._applied("_apply")})  # type: ignore[valid-type]
        self.fail = self._command(feature, "fail", name, FailResult, {"apply": self._applied("_apply_failure")})

    def _command(self, feature: Feature[Any], verb: str, name: str, base: Any, methods: dict[str, Any]) -> type[Any]:
        title = "".join(part.title() for part in f"{verb}-{name}".split("-"))
        cls = new_class(title, (base,), {}, lambda namespace: namespace.update(methods))
        return feature.command(f"{verb}-{name}", subject="subject")(cls)

    def _applied(self, hook: str) -> Callable[[Any, Any, Message[Any]], None]:
        def apply(command: Any, state: Any, message: Message[Any]) -> None:
            function = getattr(self, hook)
            if function is not None:
                function(state, message)

        return apply

    def applies(
        self, function: Callable[[Any, Message[SetResult[T]]], None]
    ) -> Callable[[Any, Message[SetResult[T]]], None]:
        """Decorates what the result changes: a function of the feature's state and the recorded SetResult."""
        self._apply = function
        return function

    def applies_failure(
        self, function: Callable[[Any, Message[FailResult]], None]
    ) -> Callable[[Any, Message[FailResult]], None]:
        """Decorates what the last failure changes: a function of the feature's state and the recorded FailResult."""
        self._apply_failure = function
        return function


class JobDecorator(Protocol):
    """What `Feature.job` returns: it makes a job of a function, with the type of what the function returns."""

    @overload
    def __call__(self, function: Callable[[Message[Any]], Awaitable[T]], /) -> JobFunction[T]: ...
    @overload
    def __call__(self, function: Callable[[Message[Any]], T], /) -> JobFunction[T]: ...


class Feature(Generic[S]):
    """A vertical slice of an application.

    Args:
        name: lower-case words joined by hyphens; the first part of its commands' and queries' names.
        state: the class whose tables it keeps.

    Raises:
        DefinitionError: the name has another form.
    """

    def __init__(self, name: str, *, state: type[S]) -> None:
        check_name("feature", name)
        self.name = name
        self.state = state
        self.queries: dict[str, QueryType] = {}
        self.jobs: list[JobFunction[Any]] = []
        self._declared: dict[str, tuple[type[Command], str | None, int, tuple[str, ...]]] = {}
        self._upcasters: dict[str, dict[int, Upcaster]] = {}

    def command(
        self, name: str, *, subject: str | None = None, version: int = 1, former_names: Sequence[str] = ()
    ) -> Callable[[CommandClass], CommandClass]:
        """Register a command class under `feature/name`.

        Args:
            subject: the field that says what the command is about.
            version: 2 or more when the schema changed; each needs an upcaster.
            former_names: names under which old messages stand in the log; `other-feature/name` when the command has
                moved from another feature.

        Raises:
            DefinitionError: the name is taken or malformed, or the subject is not a field.
        """
        for part in (name, *(part for former in former_names for part in former.split("/", 1))):
            check_name("command", part)

        def register(cls: CommandClass) -> CommandClass:
            if name in self._declared:
                raise DefinitionError(f"{self.name}/{name} is declared twice.")
            if subject is not None and subject not in cls.__struct_fields__:
                raise DefinitionError(f"{cls.__name__} has no field {subject!r} to be its subject.")
            self._declared[name] = (cls, subject, version, tuple(former_names))
            return cls

        return register

    def query(self, name: str) -> Callable[[QueryClass], QueryClass]:
        """Register a query class under `feature/name`.

        Raises:
            DefinitionError: the name is taken or malformed.
        """
        check_name("query", name)

        def register(cls: QueryClass) -> QueryClass:
            if name in self.queries:
                raise DefinitionError(f"The query {self.name}/{name} is declared twice.")
            self.queries[name] = QueryType(name=self._full(name), feature=self.name, query=cls)
            return cls

        return register

    def upcast(self, name: str, *, to: int) -> Callable[[UpcasterFunction], UpcasterFunction]:
        """Register what makes version `to` of a command's body from the version before; both are plain JSON values.

        Raises:
            DefinitionError: there is one already.
        """

        def register(upcaster: UpcasterFunction) -> UpcasterFunction:
            if self._upcasters.setdefault(name, {}).setdefault(to, upcaster) is not upcaster:
                raise DefinitionError(f"{self.name}/{name} has two upcasters to version {to}.")
            return upcaster

        return register

    def job(
        self,
        name: str,
        *,
        on: type[Command],
        since: int | Literal["now"] | None = None,
        retry: Retry = Retry(),
        concurrency: int = 8,
        timeout_s: float = 60.0,
    ) -> JobDecorator:
        """Make a job of one function: called with each message of `on`, its result or last failure is recorded once.

        The function takes the message and returns the result: `async def`, or `def` for a thread. Its return type must
        be annotated. It grows into a TodoWorker of the same name and commands without changing the log.

        Raises:
            DefinitionError: the name is taken or malformed, or the return type is missing.
        """
        check_name("job", name)

        def register(function: Callable[[Message[Any]], Any]) -> JobFunction[Any]:
            job: JobFunction[Any] = JobFunction(self, name, function, on)
            job.since, job.retry, job.concurrency, job.timeout_s = since, retry, concurrency, timeout_s
            self.jobs.append(job)
            return job

        return register

    @property
    def commands(self) -> list[CommandType]:
        """The registered commands.

        Raises:
            DefinitionError: an upcaster is for a command that is not there.
        """
        for name in self._upcasters:
            if name not in self._declared:
                raise DefinitionError(f"There is an upcaster for {self.name}/{name}, but no such command.")
        return [self._command_type(name) for name in self._declared]

    def of(self, state: State) -> S:
        """This feature's state, from any feature's: how one reads another."""
        found = state._app.features[self.name]
        if not isinstance(found, self.state):
            raise DefinitionError(f"The state of {self.name} is {type(found).__name__}, not {self.state.__name__}.")
        return found

    def _command_type(self, name: str) -> CommandType:
        cls, subject, version, former_names = self._declared[name]
        message_type = MessageType(
            name=self._full(name),
            body=cls,
            version=version,
            former_names=tuple(former if "/" in former else self._full(former) for former in former_names),
            upcasters=self._upcasters.get(name, {}),
        )
        return CommandType(message_type=message_type, feature=self.name, subject_field=subject)

    def _full(self, name: str) -> str:
        return f"{self.name}/{name}"


class InternalFeature(Feature[S]):
    """A part of the framework that keeps state like a feature does; its messages are named `journeyman/…`."""

    def __init__(self, name: str, *, state: type[S]) -> None:
        super().__init__(name, state=state)
        self.name = INTERNAL_PREFIX + name

    def _full(self, name: str) -> str:
        return INTERNAL_PREFIX + name


class Catalog:
    """All features of an application, checked against each other: what can be asked of it, by class and by name.

    Raises:
        DefinitionError: two features or commands share a name, or one class is registered twice.
    """

    def __init__(self, features: Iterable[Feature[Any]]) -> None:
        self.features: dict[str, Feature[Any]] = {}
        self.commands: dict[str, CommandType] = {}
        self.queries: dict[str, QueryType] = {}
        self._command_of: dict[type[Any], CommandType] = {}
        self._query_of: dict[type[Any], QueryType] = {}
        for feature in features:
            self._add(feature)
        self.codec = Codec(command.message_type for command in self.commands.values())

    def _add(self, feature: Feature[Any]) -> None:
        if feature.name in self.features:
            raise DefinitionError(f"Two features are named {feature.name!r}: give one another name.")
        if feature.name == INTERNAL_PREFIX.rstrip("/"):
            raise DefinitionError(f"The feature name {feature.name!r} is the framework's own: give it another.")
        self.features[feature.name] = feature
        for command in feature.commands:
            if self.commands.setdefault(command.name, command) is not command:
                raise DefinitionError(f"Two commands are named {command.name}: give one another name.")
            if self._command_of.setdefault(command.message_type.body, command) is not command:
                raise DefinitionError(f"{command.message_type.body.__name__} is registered twice; make two classes.")
        for query in feature.queries.values():
            if self.queries.setdefault(query.name, query) is not query:
                raise DefinitionError(f"Two queries are named {query.name}: give one another name.")
            if self._query_of.setdefault(query.query, query) is not query:
                raise DefinitionError(f"{query.query.__name__} is registered twice; make two classes.")

    def new_state(self) -> AppState:
        """Empty tables for all features."""
        return AppState({name: feature.state for name, feature in self.features.items()})

    def command_of(self, command: Command) -> CommandType:
        """The registration of a command's class.

        Raises:
            UnknownName: it belongs to no feature of this application.
        """
        found = self._command_of.get(type(command))
        if found is None:
            raise UnknownName("command", type(command).__name__, list(self.commands))
        return found

    def query_of(self, query: Query[Any]) -> QueryType:
        """The registration of a query's class.

        Raises:
            UnknownName: it belongs to no feature of this application.
        """
        found = self._query_of.get(type(query))
        if found is None:
            raise UnknownName("query", type(query).__name__, list(self.queries))
        return found

    def known_name_of(self, command: type[Command]) -> str:
        """The message name of a command class; "unknown" for one that belongs to no feature of this application."""
        found = self._command_of.get(command)
        return "unknown" if found is None else found.name

    def name_of(self, command: type[Command]) -> str:
        """The message name of a command class.

        Raises:
            DefinitionError: it belongs to no feature of this application.
        """
        found = self._command_of.get(command)
        if found is None:
            raise DefinitionError(f"{command.__name__} belongs to no feature of this application: add its feature.")
        return found.name
