"""The short form: a to-do worker made from one function that `Feature.job` declared."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from typing import Any

from journeyman.errors import GiveUp
from journeyman.feature import JobFunction
from journeyman.message import Message
from journeyman.retry import describe
from journeyman.todo.worker import Attempt, Job, TodoWorker, ends, opens, reacts


def worker_of(job: JobFunction[Any]) -> TodoWorker:
    """The worker that asks for the job on each message, calls the function, and records what it returned."""

    class FunctionWorker(TodoWorker):
        name = job.name
        concurrency = job.concurrency
        timeout_s = job.timeout_s
        retry = job.retry
        perform = _perform_of(job)  # type: ignore[assignment]  # it fills in the method

        @reacts(job.on, name="request", since=job.since)
        def request(self, message: Message[Any]) -> Any:
            request_id = str(uuid.uuid5(uuid.UUID(message.id), job.name))
            return job.request(request_id=request_id, subject=message.subject, position=message.position)

        @opens(job.request)
        def requested(self, message: Message[Any]) -> Job:
            return Job(message.body.request_id, subject=message.body.subject)

        @ends(job.set, job.fail)
        def answered(self, message: Message[Any]) -> str:
            return str(message.body.request_id)

        def give_up(self, attempt: Attempt[Any], error: BaseException) -> Any:
            request = attempt.message.body
            return job.fail(request_id=request.request_id, subject=request.subject, error_message=describe(error))

    return FunctionWorker()


def _perform_of(job: JobFunction[Any]) -> Callable[[Any, Attempt[Any]], Any]:
    """Calls the function, on the loop when it is `async def`, else in the attempt's thread."""

    async def perform(worker: TodoWorker, attempt: Attempt[Any]) -> Any:
        return _answer(job, attempt, await job.function(await _source(worker, attempt)))

    def perform_in_thread(worker: TodoWorker, attempt: Attempt[Any]) -> Any:
        source = worker.context.wait_for(_source(worker, attempt))
        return _answer(job, attempt, job.function(source))

    return perform if inspect.iscoroutinefunction(job.function) else perform_in_thread


async def _source(worker: TodoWorker, attempt: Attempt[Any]) -> Message[Any]:
    """The message that the function is called with."""
    source = await worker.messages.get(attempt.message.body.position)
    if source is None:
        raise GiveUp(f"the message at position {attempt.message.body.position} was set aside")
    return source


def _answer(job: JobFunction[Any], attempt: Attempt[Any], result: Any) -> Any:
    request = attempt.message.body
    return job.set(request_id=request.request_id, subject=request.subject, result=result)
