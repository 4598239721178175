"""One connection to a PostgreSQL server: with the settings that a store rests on, and opened again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import uniform
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import asyncpg

from journeyman.errors import Corrupt, NotReady, StoreError
from journeyman.store.postgres_address import Address

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

T = TypeVar("T")

#: How long a lock is waited for, one statement may take, and a transaction may do nothing, in seconds.
LOCK_S: Final = 4.0
STATEMENT_S: Final = 30.0
IDLE_S: Final = 5.0

#: How long a call may take until its connection counts as lost, in seconds: small ones, and those that carry much.
CALL_S: Final = 5.0
LONG_CALL_S: Final = STATEMENT_S + 5.0

#: How long connecting may take, and the first and the longest pause after it failed, in seconds.
CONNECT_S: Final = 5.0
PAUSE_FIRST_S: Final = 0.05
PAUSE_S_MAX: Final = 1.0

#: How long the goodbye may take, in seconds.
CLOSE_S: Final = 1.0

#: What the server is told about each session, in its own units: milliseconds, but seconds for keepalives, which free
#: the locks of a client whose machine is gone.
_SETTINGS: Final = {
    "application_name": "journeyman",
    "default_transaction_isolation": "read committed",
    "statement_timeout": f"{STATEMENT_S * 1000:.0f}",
    "lock_timeout": f"{LOCK_S * 1000:.0f}",
    "idle_in_transaction_session_timeout": f"{IDLE_S * 1000:.0f}",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

#: The same for one transaction, where sessions are not ours: behind a pooler.
BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED;"
    f"SET LOCAL statement_timeout = {STATEMENT_S * 1000:.0f};"
    f"SET LOCAL lock_timeout = {LOCK_S * 1000:.0f};"
    f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_S * 1000:.0f}"
)

#: Errors of the server (docs.postgresql.org, Appendix A) by the next step that they ask for.
_NEXT_STEPS: Final = (
    (asyncpg.LockNotAvailableError, "somebody holds a lock on the log: look for an open transaction"),
    (asyncpg.ProtocolViolationError, "if it is a pooler, add ?pooler=transaction to the store's URL"),
    (asyncpg.DiskFullError, "make room on its disk, then try again"),
    (asyncpg.TooManyConnectionsError, "raise max_connections, or use a pooler"),
    (asyncpg.ReadOnlySQLTransactionError, "it is a standby, or read-only: use the URL of the primary"),
    (asyncpg.InsufficientPrivilegeError, "grant this user what docs/scaling.md lists"),
    (asyncpg.InvalidAuthorizationSpecificationError, "correct the user and the password in the store's URL"),
    (asyncpg.InvalidCatalogNameError, "make the database, or correct the store's URL"),
)

#: What says that the tables are not what they were.
_DAMAGE: Final = (
    asyncpg.DataCorruptedError,
    asyncpg.IndexCorruptedError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)

#: What the driver and the network raise.
DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


async def connect(address: Address) -> Connection:
    """A session with the settings that the store rests on; behind a pooler, with none.

    Raises:
        NotReady: the URL says what the driver does not understand.
        OSError, PostgresError, InterfaceError: as the driver raises them.
    """
    try:
        return await asyncpg.connect(
            address.dsn,
            timeout=CONNECT_S,
            server_settings={} if address.pooled else _SETTINGS,
            statement_cache_size=0 if address.pooled else 100,
            max_cached_statement_lifetime=0,
        )
    except OSError:
        raise  # A certificate that is not trusted is a ValueError, too.
    except (ValueError, asyncpg.ClientConfigurationError):
        # Its text may quote the URL, and with it the password.
        raise NotReady(f"The driver does not understand the store's URL {address.url}: correct its options.") from None


class Link:
    """One connection, used by one call at a time.

    It is opened when it is first used, and again when it was lost; while that fails, calls fail at once, and the server
    is asked again after a pause. A caller who is cancelled abandons only its wait: the call goes on, for nobody else's
    may come in between.

    Args:
        opened: makes the connection.
        begin: with what each call begins a transaction of its own; None where a statement is one by itself.
    """

    def __init__(
        self,
        address: Address,
        opened: Callable[[], Awaitable[Connection]],
        *,
        begin: str | None,
        pause_s_max: float = PAUSE_S_MAX,
    ) -> None:
        self._address = address
        self._opened = opened
        self._begin = begin
        self._pause_s_max = pause_s_max
        self._connection: Connection | None = None
        self._one_at_a_time = asyncio.Lock()
        self._calls: set[asyncio.Task[object]] = set()
        self._failures = 0
        self._next_try_at = 0.0
        self._why: StoreError | None = None
        self._closed = False

    async def call(
        self,
        use: Callable[[Connection], Awaitable[T]],
        *,
        lost: type[StoreError] = NotReady,
        within_s: float | None = None,
    ) -> T:
        """What `use` returns. It must leave no transaction open, unless this link is for that alone.

        After `within_s`, or CALL_S, the connection counts as lost.

        Raises:
            NotReady: surely not done.
            Corrupt: the tables are not as they should be.
            lost: perhaps done, perhaps later. The connection is dropped. For what only reads, that is NotReady, too.
        """
        return await asyncio.shield(self._begin_call(use, lost, within_s or CALL_S))

    def post(self, use: Callable[[Connection], Awaitable[object]]) -> None:
        """Like `call`, behind all calls so far, without waiting; whether it fails is nobody's concern."""
        self._begin_call(use, NotReady, CALL_S)

    def _begin_call(
        self, use: Callable[[Connection], Awaitable[T]], lost: type[StoreError], within_s: float
    ) -> asyncio.Task[T]:
        call = asyncio.ensure_future(self._call(use, lost, within_s))
        self._calls.add(call)
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: asyncio.Task[object]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # Seen, even if nobody waits any more.

    async def _call(self, use: Callable[[Connection], Awaitable[T]], lost: type[StoreError], within_s: float) -> T:
        try:
            async with self._one_at_a_time:
                return await self._use(await self._connected(), use, lost, within_s)
        except asyncio.CancelledError:
            if self._closed:  # Nobody else cancels a call.
                raise lost(f"{self._address.url} was closed meanwhile.") from None
            raise

    async def _use(
        self, connection: Connection, use: Callable[[Connection], Awaitable[T]], lost: type[StoreError], within_s: float
    ) -> T:
        try:
            async with asyncio.timeout(within_s):
                return await (use(connection) if self._begin is None else _in_transaction(connection, self._begin, use))
        except DRIVER_ERRORS as error:
            if not self._still_good(error):
                self.drop()
            raise self._translated(error, lost) from error
        except BaseException:
            self.drop()
            raise

    async def _connected(self) -> Connection:
        if self._closed:
            raise NotReady(f"{self._address.url} is closed.")
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        loop = asyncio.get_running_loop()
        if self._why is not None and loop.time() < self._next_try_at:
            raise self._why.with_traceback(None)
        try:
            async with asyncio.timeout(CONNECT_S):
                self._connection = await self._opened()
        except DRIVER_ERRORS as error:
            raise self._put_off(not_ready(self._address, error)) from error
        except StoreError as error:
            raise self._put_off(error) from None
        self._failures, self._why = 0, None
        return self._connection

    def _put_off(self, error: StoreError) -> StoreError:
        """Let no call try again before a pause, which grows; calls until then get the same error."""
        pause_s = min(self._pause_s_max, PAUSE_FIRST_S * 2 ** min(self._failures, 10))
        self._why, self._failures = error, self._failures + 1
        self._next_try_at = asyncio.get_running_loop().time() + pause_s * uniform(0.5, 1)
        return error

    def _still_good(self, error: Exception) -> bool:
        """Whether the session is as it was before the call. Else, what it still does must not meet the next call."""
        return self._begin is None and _is_refusal(error)

    def _translated(self, error: Exception, lost: type[StoreError]) -> StoreError:
        """What an error of a call means to a caller."""
        if self._closed:
            return lost(f"{self._address.url} was closed meanwhile.")
        if _is_refusal(error):
            return not_ready(self._address, error)
        return lost(
            f"{self._address.url} did not answer: {_text(self._address, error)}. Make the identical call again, or "
            "repeat with the same idempotency key."
        )

    def drop(self) -> None:
        """Lose the connection at once: what the server still does with it, it does for nobody."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Say goodbye to the server. Calls under way fail. Closing twice is harmless."""
        self._closed = True
        if self._calls:
            self.drop()
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*DRIVER_ERRORS):
                await connection.close(timeout=CLOSE_S)


async def _in_transaction(connection: Connection, begin: str, use: Callable[[Connection], Awaitable[T]]) -> T:
    await connection.execute(begin)
    result = await use(connection)
    await connection.execute("COMMIT")
    return result


def not_ready(address: Address, error: Exception) -> StoreError:
    """What it means that the server refused something, or a session."""
    if isinstance(error, _DAMAGE):
        return Corrupt(
            f"{address.url}, schema {address.schema}: {_text(address, error)}. Restore it from a backup that is whole."
        )
    step = next((step for kind, step in _NEXT_STEPS if isinstance(error, kind)), "look at the server and its log")
    return NotReady(f"{address.url} can't be used now: {_text(address, error)}. Nothing was written; {step}.")


def _text(address: Address, error: Exception) -> str:
    return address.without_secrets(str(error)).rstrip(".") or type(error).__name__


def _is_refusal(error: Exception) -> bool:
    """Whether the server says that a statement failed, and so was undone.

    Of a session that it ends it says FATAL, also when the last commit was done.
    """
    return isinstance(error, asyncpg.PostgresError) and getattr(error, "severity_en", None) == "ERROR"
