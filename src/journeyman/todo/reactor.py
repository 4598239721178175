"""Running reactions: message in, commands out, once each and in order."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Final

from journeyman.errors import AlreadyHandled, DefinitionError, Fenced, JourneymanError, Rejected
from journeyman.executor import Executor
from journeyman.feature import Catalog, Command
from journeyman.follower import MessageSource
from journeyman.message import Message, Meta, ReactionStep
from journeyman.pending import Envelope
from journeyman.receipts import Receipt
from journeyman.retry import describe
from journeyman.todo.jobs import ReactionAdded, ReactionRefused, ReactionRow
from journeyman.todo.ledger import jobs_state
from journeyman.todo.worker import Reaction, TodoWorker

#: How many messages one round looks at, and how many commands are on their way at once.
ROUND_MESSAGES: Final = 1000
WINDOW_COMMANDS: Final = 256


class _Step:
    """One command of a reaction, with its place."""

    __slots__ = ("command", "index", "message", "number")

    def __init__(self, command: Command, message: Message[Any], index: int, number: int) -> None:
        self.command = command
        self.message = message
        self.index = index
        self.number = number


class Reactor:
    """Runs one reaction of one worker.

    The state keeps how many steps were recorded, and takes only the next one: so a step that another process, or this
    one before a crash, has recorded is refused, and a step that was not is made again.
    """

    def __init__(
        self, worker: TodoWorker, reaction: Reaction, executor: Executor, catalog: Catalog, messages: MessageSource
    ) -> None:
        self._worker = worker
        self._reaction = reaction
        self._executor = executor
        self._messages = messages
        self._react = getattr(worker, reaction.method)
        on = catalog.commands[catalog.name_of(reaction.on)].message_type
        self._on_names = (on.name, *on.former_names)
        self._number = -1
        #: The last message looked at.
        self.position = 0

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
        await self._executor.execute(added, Envelope(actor=f"worker:{self._worker.name}"))

    async def run(self) -> bool:
        """One round. True when there may be more to look at.

        Raises:
            Exception: what the worker's method raised, or why a command could not be recorded. Asked again, it goes
                on at the step that failed.
        """
        row = await self._row()
        assert row is not None
        if row.number != self._number:
            # Another process moved it on, or this is the first round: go on behind the last recorded step.
            self._number = row.number
            self.position = max(row.since, row.position - 1)
        settled = self._executor.position
        if self.position >= settled:
            return False
        messages, read_to = await self._messages.read(self.position, min(ROUND_MESSAGES, settled - self.position))
        steps = await self._steps(row, messages)
        try:
            await self._dispatch(steps)
        except AlreadyHandled:
            # Recorded by another process, or by this one without its knowing: the state says where to go on.
            self._number = -1
            return True
        except BaseException:
            self._number = -1
            raise
        self.position = read_to
        return read_to < settled

    async def _steps(self, row: ReactionRow, messages: list[Message[Any]]) -> list[_Step]:
        steps: list[_Step] = []
        for message in messages:
            if type(message.body) is not self._reaction.on:
                continue
            for index, command in enumerate(await self._commands(message)):
                if (message.position, index) > (row.position, row.index):
                    steps.append(_Step(command, message, index, self._number + len(steps) + 1))
        return steps

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
        """Record the steps, in order. They travel together; each is taken only behind the one before."""
        while steps:
            window = steps[:WINDOW_COMMANDS]
            results = await asyncio.gather(*(self._submit(step) for step in window), return_exceptions=True)
            done = 0
            for step, result in zip(window, results, strict=True):
                if not isinstance(result, Receipt) and not await self._settle_refusal(step, result):
                    break
                done += 1
                self._number = step.number
                if not isinstance(result, Receipt):
                    break  # The steps behind a refused one were out of turn: they go again.
            steps = steps[done:]
            if done == 0:
                raise AlreadyHandled(f"Reaction {self._reaction.name} was moved on by another process.")

    async def _settle_refusal(self, step: _Step, error: BaseException) -> bool:
        """Record that the state refused a step. False when it was refused because it is recorded already."""
        if isinstance(error, AlreadyHandled | Fenced):
            return False
        if not isinstance(error, Rejected):
            raise error
        refused = ReactionRefused(
            worker=self._worker.name,
            reaction=self._reaction.name,
            position=step.message.position,
            reason=describe(error),
        )
        await self._executor.execute(refused, self._envelope(step))
        return True

    def _submit(self, step: _Step) -> asyncio.Future[Receipt]:
        try:
            return self._executor.submit(step.command, self._envelope(step))
        except JourneymanError as error:
            refused: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    def _envelope(self, step: _Step) -> Envelope:
        place = ReactionStep(
            worker=self._worker.name,
            reaction=self._reaction.name,
            number=step.number,
            position=step.message.position,
            index=step.index,
        )
        return Envelope(
            actor=f"worker:{self._worker.name}",
            correlation_id=step.message.correlation_id,
            causation_id=step.message.id,
            meta=Meta(reaction=place),
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
                f"The reaction {self._reaction.name!r} of {self._worker.name} is new, and the log has {old} old messages "
                f"of {self._on_names[0]} that it would handle. Say since=0 to handle them, or since='now' to leave them."
            )
        return 0
