"""The short form: a to-do worker made from one function that `Feature.job` declared."""

from __future__ import annotations

import inspect
import uuid
from typing import Any

from journeyman.errors import DefinitionError
from journeyman.feature import JobFunction
from journeyman.message import Message
from journeyman.retry import describe
from journeyman.threads import in_thread
from journeyman.todo.worker import Attempt, Job, TodoWorker, ends, opens, reacts


def worker_of(job: JobFunction[Any]) -> TodoWorker:
    """The worker that asks for the job on each message, calls the function, and records what it returned."""

    class FunctionWorker(TodoWorker):
        name = job.name
        concurrency = job.concurrency
        timeout_s = job.timeout_s
        retry = job.retry

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

        async def perform(self, attempt: Attempt[Any]) -> Any:
            request = attempt.message.body
            source = await self.messages.get(request.position)
            if source is None:
                raise DefinitionError(f"The message at position {request.position} is not there, or was set aside.")
            if inspect.iscoroutinefunction(job.function):
                result = await job.function(source)
            else:
                result = await in_thread(lambda: job.function(source), name=f"{job.name} {attempt.id}")
            return job.set(request_id=request.request_id, subject=request.subject, result=result)

        def give_up(self, attempt: Attempt[Any], error: BaseException) -> Any:
            request = attempt.message.body
            return job.fail(request_id=request.request_id, subject=request.subject, error_message=describe(error))

    return FunctionWorker()
