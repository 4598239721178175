"""Running reactions: message in, commands out, once each and in order."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

from journeyman.errors import AlreadyHandled, DefinitionError, NotRunning, Rejected
from journeyman.executor import Executor
from journeyman.feature import Catalog, Command
from journeyman.follower import MessageSource
from journeyman.message import Message, Meta, ReactionStep
from journeyman.receipts import Receipt
from journeyman.retry import describe
from journeyman.telemetry import told
from journeyman.todo.backoff import Backoff
from journeyman.todo.jobs import ReactionAdded, ReactionRefused, ReactionRow
from journeyman.todo.ledger import jobs_state
from journeyman.todo.recorder import Recorder, is_trouble
from journeyman.todo.worker import Reaction, TodoWorker
from journeyman.worker import is_cancelled_or_exiting

logger = logging.getLogger(__name__)

#: How many messages one round looks at, and how many commands are on their way at once.
ROUND_MESSAGES: Final = 1000
WINDOW_COMMANDS: Final = 256

#: The pauses before a reaction that failed is tried again, in seconds.
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 30.0


class _Step:
    """One command of a reaction, with its place."""

    __slots__ = ("command", "index", "message", "number", "traceparent")

    def __init__(
        self, command: Command, message: Message[Any], index: int, number: int, traceparent: str | None
    ) -> None:
        self.command = command
        self.message = message
        self.index = index
        self.number = number
        self.traceparent = traceparent


class Reactor:
    """Runs one reaction of one worker.

    The state keeps how many steps were recorded, and takes only the next one: so a step that another process, or this
    one before a crash, has recorded is refused, and a step that was not is made again.
    """

    def __init__(
        self,
        worker: TodoWorker,
        reaction: Reaction,
        executor: Executor,
        catalog: Catalog,
        messages: MessageSource,
        recorder: Recorder,
        *,
        now_s: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self._worker = worker
        self._reaction = reaction
        self._executor = executor
        self._messages = messages
        self._recorder = recorder
        self._react = getattr(worker, reaction.method)
        on = catalog.commands[catalog.name_of(reaction.on)].message_type
        self._on_names = (on.name, *on.former_names)
        self._number = -1
        #: The last message looked at.
        self.position = 0
        #: When it is tried again after it failed, and what it is held up by.
        self.backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, now_s=now_s, uniform=uniform)
        self.fault: str | None = None

    async def start(self) -> None:
        """Record a new reaction, and from where on it handles messages.

        Raises:
            DefinitionError: it is new, there are old messages it would handle, and it does not say `since`.
        """
        if await self._row() is not None:
            return
        since = self._reaction.since
        if since is None:
            since = await self._refuse_old_messages()
        elif since == "now":
            since = self._executor.position
        added = ReactionAdded(worker=self._worker.name, reaction=self._reaction.name, since=since)
        # Refused when a process that started together with this one was first: what it recorded holds for all.
        await self._recorder.finish(added)

    async def work(self) -> bool:
        """One round, unless it failed a moment ago. True when there is more to look at.

        What fails holds this reaction up, and nothing else: it is shown, and tried again where it failed.
        """
        if self.backoff.waits_s > 0:
            return False
        try:
            more = await self._run()
        except BaseException as error:
            if is_cancelled_or_exiting(error) or isinstance(error, NotRunning):
                raise
            self._number = -1
            self.backoff.failed()
            self.fault = f"reaction {self._reaction.name}: {describe(error)}"
            # A store in trouble is not the reaction's defect: where it stood in the code says nothing.
            traceback = None if is_trouble(error) else error
            logger.exception("%s: %s; it is tried again", self._worker.name, self.fault, exc_info=traceback)
            return False
        self.backoff.succeeded()
        self.fault = None
        return more

    async def _run(self) -> bool:
        settled = self._executor.position
        if self.position >= settled and self._number >= 0:
            return False
        row = await self._row()
        assert row is not None
        if row.number != self._number:
            # Another process moved it on, it failed, or this is the first round: on behind the last recorded step.
            self._number = row.number
            self.position = max(row.since, row.position - 1)
        limit = min(ROUND_MESSAGES, settled - self.position)
        if limit <= 0:
            return False
        messages, read_to = await self._messages.read(self.position, limit)
        steps, broken = await self._steps(row, messages)
        try:
            await self._dispatch(steps)
        except AlreadyHandled:
            # Recorded by another process, or by this one without its knowing: the state says where to go on.
            self._number = -1
            return True
        if broken is not None:
            raise broken
        self.position = read_to
        return read_to < settled

    async def _steps(self, row: ReactionRow, messages: list[Message[Any]]) -> tuple[list[_Step], BaseException | None]:
        """The commands that the messages lead to, up to the first at which the worker's method fails, and its error."""
        steps: list[_Step] = []
        for message in messages:
            if type(message.body) is not self._reaction.on:
                continue
            try:
                commands, traceparent = await self._traced(message)
            except BaseException as error:
                if is_cancelled_or_exiting(error):
                    raise
                return steps, error
            for index, command in enumerate(commands):
                if (message.position, index) > (row.position, row.index):
                    steps.append(_Step(command, message, index, row.number + len(steps) + 1, traceparent))
        return steps, None

    async def _traced(self, message: Message[Any]) -> tuple[list[Command], str | None]:
        """The commands that a message leads to, and the trace parent that they have."""
        tracing, parent = self._executor.tracing, message.meta.traceparent
        if parent is None:
            return await self._commands(message), None
        with tracing.span(f"react {self._worker.name} {self._reaction.name}", parent=parent) as span:
            told(span, position=message.position)
            return await self._commands(message), tracing.here()

    async def _commands(self, message: Message[Any]) -> list[Command]:
        result = self._react(message)
        if inspect.isawaitable(result):
            result = await result
        if result is None:
            return []
        commands = result if isinstance(result, list | tuple) else [result]
        for command in commands:
            if not isinstance(command, Command):
                where = f"{type(self._worker).__name__}.{self._reaction.method}"
                raise DefinitionError(f"{where} returned {command!r}; a reaction returns commands or None.")
        return list(commands)

    async def _dispatch(self, steps: list[_Step]) -> None:
        """Record the steps, in order. They travel together; each is taken only behind the one before.

        Raises:
            AlreadyHandled: others were recorded meanwhile.
            Exception: why a step could not be recorded.
        """
        while steps:
            window = steps[:WINDOW_COMMANDS]
            results = await asyncio.gather(*map(self._submit, window), return_exceptions=True)
            done = 0
            for step, result in zip(window, results, strict=True):
                if isinstance(result, BaseException):
                    # The steps behind a refused one were out of turn: they go again.
                    await self._record_refusal(step, result)
                done += 1
                self._number = step.number
                if isinstance(result, BaseException):
                    break
            steps = steps[done:]

    async def _record_refusal(self, step: _Step, error: BaseException) -> None:
        """Record that the state refused a step, which moves the reaction on."""
        if not isinstance(error, Rejected) or isinstance(error, AlreadyHandled):
            raise error
        refused = ReactionRefused(
            worker=self._worker.name,
            reaction=self._reaction.name,
            position=step.message.position,
            reason=describe(error),
        )
        await self._recorder.submit(refused, step.message, meta=self._meta(step))

    def _submit(self, step: _Step) -> asyncio.Future[Receipt]:
        try:
            return self._recorder.submit(step.command, step.message, meta=self._meta(step))
        except Exception as error:  # noqa: BLE001  # it is this step's outcome, like one that comes later
            refused: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    def _meta(self, step: _Step) -> Meta:
        return Meta(
            reaction=ReactionStep(
                worker=self._worker.name,
                reaction=self._reaction.name,
                number=step.number,
                position=step.message.position,
                index=step.index,
            ),
            traceparent=step.traceparent,
        )

    async def _row(self) -> ReactionRow | None:
        key = (self._worker.name, self._reaction.name)
        return await self._executor.query(lambda state: jobs_state(state).reactions.get(key))

    async def _refuse_old_messages(self) -> int:
        old = 0
        for name in self._on_names:
            after = 0
            while records := await self._messages.log.read(after, ROUND_MESSAGES, name=name):
                old += len(records)
                after = records[-1].position
        if old:
            raise DefinitionError(
                f"The reaction {self._reaction.name!r} of {self._worker.name} is new, and the log has {old} old "
                f"messages of {self._on_names[0]} that it would handle. Say since=0 to handle them, or since='now' to "
                "leave them."
            )
        return 0
