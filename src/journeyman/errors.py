"""Every exception that Journeyman raises on purpose.

A class exists only where a caller does something different on it::

    JourneymanError
    ├── DefinitionError        the application is declared wrongly; raised at import or at start
    ├── Invalid                a command or query has wrong fields; ask again, corrected
    ├── UnknownName            no command, query or worker of that name
    ├── NotFound               a query asked for something that is not there
    ├── Rejected               the state does not allow the command; tell the user why
    │   ├── Fenced             an answer from an attempt that is no longer the current one; drop it
    │   ├── AlreadyHandled     a reaction's command that is recorded already, or not its next; drop it
    │   └── KeyReused          the idempotency key belongs to another command
    ├── ApplyFailed            the application's own code broke while judging a command
    ├── Busy                   at a bound; try again after `retry_after_s`
    ├── NotRunning             the application is not started, or is stopping
    ├── StoreError
    │   ├── Conflict           another writer was first; judged again by the executor
    │   ├── TooLarge           surely not written: a body or batch is over its limit
    │   ├── NotReady           surely not written: the store can't be used now
    │   ├── OutcomeUnknown     perhaps written: repeat with the same idempotency key
    │   ├── NotAStore          the file or server holds something else, or a newer layout
    │   ├── WrongLog           the log is not the one this process has read
    │   └── Corrupt            the store's content is damaged
    ├── Undecodable            one message's bytes can't be read; becomes one of the next two
    ├── Poisoned               a message can't be decoded or applied; stops the process
    ├── Outdated               a message is from newer code; restart with that code
    ├── WorkerFailed           a worker could not start
    └── ServiceError           raised by `perform`: what an external service did
        ├── Unavailable        nothing reached it (refused, unreachable); never the job's fault
        ├── RateLimited        it asks for a pause of `retry_after_s`
        ├── Unauthorized       the key is wrong; the worker stops until it is mended
        └── GiveUp             trying again can't help; the job ends now
"""

from __future__ import annotations

from collections.abc import Sequence


class JourneymanError(Exception):
    """The root of every error that Journeyman raises on purpose."""


class DefinitionError(JourneymanError):
    """The application is declared wrongly: a duplicate name, a mutable row type, a missing method."""


class Invalid(JourneymanError):
    """A command or query does not have the form it must have.

    `problems` lists what is wrong, one sentence each.
    """

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.name = name
        self.problems = tuple(problems)
        super().__init__(f"{name}: {'; '.join(self.problems)}. Correct this and send it again.")


class UnknownName(JourneymanError):
    """Nothing of that kind has that name."""

    def __init__(self, kind: str, name: str, known: Sequence[str] = ()) -> None:
        self.kind = kind
        self.name = name
        offer = f" Known: {', '.join(sorted(known))}." if known else ""
        super().__init__(f"There is no {kind} named {name!r}.{offer}")


class NotFound(JourneymanError):
    """A query asked for something that is not in the state."""


class Rejected(JourneymanError):
    """The state does not allow the command. The text is for the user.

    `position` is the position the command was judged at; None until the executor tells it.
    """

    def __init__(self, reason: str, *, position: int | None = None) -> None:
        self.reason = reason
        self.position = position
        super().__init__(reason)


class Fenced(Rejected):
    """An answer came from an attempt that is not, or no longer, the current one of its job."""


class AlreadyHandled(Rejected):
    """A reaction's command is not the next one of that reaction: it was recorded before."""


class KeyReused(Rejected):
    """The idempotency key was used before, for a command with another name or other content."""


class ApplyFailed(JourneymanError):
    """The application's own `validate` or `apply` broke. The command was not recorded.

    The cause is the exception that it raised.
    """


class Busy(JourneymanError):
    """A bound was reached: nothing was recorded. Try again after `retry_after_s`."""

    def __init__(self, what: str, *, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{what} Nothing was recorded; try again in {retry_after_s:g} s.")


class NotRunning(JourneymanError):
    """The application is not started, or is stopping. Nothing was recorded."""


class StoreError(JourneymanError):
    """The store can't do what was asked."""


class Conflict(StoreError):
    """A different message stands where this batch was to go.

    `expected` is the position the batch was to follow, `head` the log's last position when read.
    """

    def __init__(self, *, expected: int, head: int) -> None:
        self.expected = expected
        self.head = head
        super().__init__(
            f"Another writer was first: the batch was to follow position {expected}, the head is {head}. "
            "Catch up and judge again."
        )


class TooLarge(StoreError):
    """A body or a batch is over its limit. Nothing was written."""

    def __init__(self, what: str, *, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"{what} has {size_bytes} bytes, the limit is {limit_bytes}. Nothing was written. "
            "Keep large files elsewhere, and their URL and hash in the command."
        )


class NotReady(StoreError):
    """The store can't be used now. Nothing was written."""


class OutcomeUnknown(StoreError):
    """The store did not say whether the command was recorded.

    Execute it again with the same idempotency key: it is recorded once, whatever happened.
    """


class NotAStore(StoreError):
    """What the URL names is not a Journeyman store that this version can open."""


class WrongLog(StoreError):
    """The log does not continue what this process has read: it was replaced, or restored from a backup."""


class Corrupt(StoreError):
    """The store's content is damaged, or has a gap."""


class Undecodable(JourneymanError):
    """A message's bytes can't be read. `newer` when its name or version is not known to this code at all."""

    def __init__(self, why: str, *, newer: bool) -> None:
        self.newer = newer
        super().__init__(why)


class Poisoned(JourneymanError):
    """A message can't be decoded or applied, so nothing after it can be."""

    def __init__(self, *, position: int, name: str, why: str) -> None:
        self.position = position
        self.name = name
        self.why = why
        super().__init__(
            f"The message at position {position} ({name}) can't be applied: {why}. Start code that can apply it, "
            f"or set it aside for good: journeyman --store URL log set-aside {position} --reason TEXT"
        )


class Outdated(JourneymanError):
    """A running process read a message of newer code: one whose name or version it does not know."""

    def __init__(self, *, position: int, name: str, why: str) -> None:
        self.position = position
        self.name = name
        super().__init__(
            f"The message at position {position} ({name}) is from newer code: {why}. Restart with that code."
        )


class WorkerFailed(JourneymanError):
    """A worker could not start, so the application did not start."""


class ServiceError(JourneymanError):
    """An external service failed: an answer of 5xx, a broken or malformed reply.

    Raise it, or a subclass, from `perform`, in place of your client library's own errors: httpx's, aiohttp's and the
    like can't be told from a mistake in your code, and so are charged to the job. Python's own errors of the network
    count as one too: TimeoutError, ConnectionError, socket.gaierror, and an OSError for an unreachable host or network;
    other OSErrors, such as FileNotFoundError, do not.
    """


class Unavailable(ServiceError):
    """The service could not be reached at all, so the job can't be what is wrong."""


class RateLimited(ServiceError):
    """The service asks for a pause. `retry_after_s` is how long; None when it does not say."""

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(text)


class Unauthorized(ServiceError):
    """The service refuses the key. No job can succeed until somebody mends it."""


class GiveUp(ServiceError):
    """Trying this job again can't help: it ends now, by `give_up`, whatever attempts are left."""
