"""The store in a PostgreSQL database keeps the contract, refuses what it can't use, and says what failed."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
import pytest_asyncio

from journeyman.errors import Corrupt, NotAStore, NotReady
from journeyman.store import Store, open_store, postgres_schema
from journeyman.store.open import find_store
from journeyman.store.postgres import PostgresStore
from journeyman.store.postgres_address import parse_address
from journeyman.store.postgres_sql import migrations
from journeyman.testing.contract import everything, fill
from journeyman.testing.store_contract import StoreContract
from tests.proxy import proxy
from tests.servers_postgres import PostgresServer, postgres

PASSWORD = "s3cr=t/p@ss word"
QUOTED = "s3cr%3Dt%2Fp%40ss%20word"


class TestPostgresStore(StoreContract):
    shared_between_processes = has_turns = True

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: PostgresServer) -> None:
        self.url = postgres_server.url()

    async def open(self, place: Path) -> Store:
        return await open_store(self.url)


@pytest_asyncio.fixture
async def outside(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection that knows nothing of stores."""
    connection = await asyncpg.connect(postgres_server.dsn)
    yield connection
    await connection.close()


# Opening.


async def test_without_the_driver_the_error_says_what_to_install() -> None:
    program = """if True:
        import asyncio, sys
        sys.modules["asyncpg"] = None
        from journeyman.store import open_store
        try:
            asyncio.run(open_store("postgresql://user:secret@host/db"))
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "NotReady A PostgreSQL store needs its driver: pip install 'journeyman[postgres]'\n"


async def test_many_may_make_the_store_at_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    stores = await asyncio.gather(*(open_store(url) for _ in range(8)))
    for number, store in enumerate(stores):
        await fill(store, 1, after=number)
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_store_is_found_only_once_it_was_made(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    with pytest.raises(NotReady, match="journeyman store init"):
        await find_store(url)
    await (await open_store(url)).close()
    await (await find_store(url)).close()


async def test_a_schema_of_somebody_else_is_refused_untouched(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    await outside.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.messages (x int)")
    for find in (open_store, find_store):
        with pytest.raises(NotAStore, match="holds something else"):
            await find(postgres_server.url("theirs"))
    assert await outside.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'theirs'") == 1


async def test_an_empty_schema_becomes_a_store(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    await outside.execute("CREATE SCHEMA empty")
    await (await open_store(postgres_server.url("empty"))).close()


async def test_a_newer_layout_is_refused(postgres_server: PostgresServer, outside: asyncpg.Connection[Any]) -> None:
    await (await open_store(postgres_server.url("newer"))).close()
    await outside.execute("INSERT INTO newer.journeyman_layout VALUES (99)")
    for find in (open_store, find_store):
        with pytest.raises(NotAStore, match=r"has layout 99.*Upgrade"):
            await find(postgres_server.url("newer"))


async def test_an_older_layout_is_brought_up_to_date_while_a_process_that_knows_no_other_goes_on(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.url("older")
    await make_first_layout(url, monkeypatch)
    with pytest.raises(NotReady, match="journeyman store init"):
        await find_store(url)

    async def append_as_it_did(id: str, *, after: int) -> None:
        """By columns, as the release of the first layout."""
        statement = "SELECT older.append($1, NULL, $2, $3, $4, NULL, $5, $6, $2, NULL, NULL, NULL, NULL, NULL)"
        assert await outside.fetchval(statement, after, [id], ["testing/do-something"], [1], [b"{}"], [5]) == after

    await append_as_it_did("a", after=0)

    store = await open_store(url)
    assert (await store.examine()).facts["layout"] == len(migrations("older"))
    [first] = await store.log.read(0, 10)
    assert (first.id, first.recorded_at_us) == ("a", 5)
    await fill(store, 3, after=1)
    await append_as_it_did("b", after=4)
    assert (await store.log.read(4, 10))[0].id == "b"
    await store.close()


async def test_a_user_who_may_not_bring_a_newer_layout_is_told_who_may(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_first_layout(postgres_server.url("behind"), monkeypatch)
    await outside.execute(
        "CREATE ROLE worker LOGIN; GRANT USAGE ON SCHEMA behind TO worker;"
        "GRANT SELECT ON behind.journeyman_layout TO worker"
    )
    for schema, found in (("behind", "has layout 1"), ("nowhere", "holds no store yet")):
        url = postgres_server.url(schema).replace("postgres@", "worker@")
        with pytest.raises(NotReady, match=f"{schema} {found}.*Nothing was written.*store init URL"):
            await open_store(url)
    assert await outside.fetchval("SELECT max(number) FROM behind.journeyman_layout") == 1


async def make_first_layout(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a store as the release of the first layout did."""
    with monkeypatch.context() as context:
        context.setattr(postgres_schema, "migrations", lambda schema: migrations(schema)[:1])
        await (await open_store(url)).close()


async def test_two_schemas_of_one_database_are_two_stores(postgres_server: PostgresServer) -> None:
    one, two = [await open_store(postgres_server.url()) for _ in range(2)]
    async with one.log.turn():
        await fill(two, 3)
    assert await one.log.head() == 0
    assert await one.claim("workers")
    assert await two.claim("workers")
    await one.close()
    await two.close()


async def test_a_user_without_rights_is_told_what_to_grant(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    await outside.execute("CREATE ROLE somebody LOGIN")
    await (await open_store(postgres_server.url("rights"))).close()
    as_somebody = postgres_server.url("rights").replace("postgres@", "somebody@")
    with pytest.raises(NotReady, match="grant this user"):
        await open_store(as_somebody)
    await outside.execute(
        "GRANT USAGE ON SCHEMA rights TO somebody; GRANT SELECT ON ALL TABLES IN SCHEMA rights TO somebody"
    )
    store = await find_store(as_somebody)
    wrong = [check.fix for check in (await store.examine()).checks if not check.ok]
    assert 'GRANT SELECT, INSERT ON table "rights".messages TO somebody;' in wrong
    with pytest.raises(NotReady, match=r"permission denied.*grant this user"):
        await fill(store, 1)
    await store.close()


async def test_a_user_with_the_rights_that_the_docs_list_can_do_everything(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    await (await open_store(postgres_server.url("granted"))).close()
    docs = (Path(__file__).parents[2] / "docs/scaling.md").read_text(encoding="utf-8")
    [grants] = re.findall(r"```sql\n(GRANT.*?)```", docs, re.S)
    await outside.execute("CREATE ROLE blog LOGIN")
    await outside.execute(grants.replace("journeyman.", "granted.").replace("SCHEMA journeyman", "SCHEMA granted"))
    store = await open_store(postgres_server.url("granted").replace("postgres@", "blog@"))
    assert all(check.ok for check in (await store.examine()).checks)
    await fill(store, 1)
    for _ in range(2):
        await store.keys.put("a", b"1")
        await store.blobs.save("a", [b"1"])
    assert await store.keys.delete("a")
    await store.blobs.delete("a")
    assert await store.claim("workers")
    await store.release("workers")
    await store.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await outside.execute("SET ROLE blog; DELETE FROM granted.messages")


# What durability needs.


@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ("synchronous_commit", "ALTER SYSTEM SET synchronous_commit = on"),
        ("default_transaction_read_only", "use the URL of the primary"),
    ],
)
async def test_a_setting_of_the_user_that_breaks_a_promise_is_refused_with_its_fix(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any], setting: str, fix: str
) -> None:
    value = "on" if "only" in setting else "off"
    await outside.execute(f"CREATE ROLE careless LOGIN SUPERUSER; ALTER ROLE careless SET {setting} = {value}")
    try:
        with pytest.raises(NotReady, match=f"can't be used safely.*{fix}"):
            await open_store(postgres_server.url().replace("postgres@", "careless@"))
    finally:
        await outside.execute("DROP ROLE careless")


async def test_a_server_that_is_too_old_is_refused(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "SERVER_VERSION_MIN", 99)
    with pytest.raises(NotReady, match=r"version is \d+\.\d+: upgrade it to PostgreSQL 15 or newer"):
        await open_store(postgres_server.url())


@pytest.fixture
def careless_server() -> Iterator[PostgresServer]:
    with postgres(fsync="off", full_page_writes="off") as server:
        yield server


async def test_a_server_that_loses_what_it_was_told_is_refused_with_all_fixes(careless_server: PostgresServer) -> None:
    with pytest.raises(NotReady, match=r"ALTER SYSTEM SET fsync = on.*ALTER SYSTEM SET full_page_writes = on"):
        await open_store(careless_server.url())


async def test_the_examination_of_a_good_store_finds_nothing_wrong(postgres_server: PostgresServer) -> None:
    store = await open_store(postgres_server.url())
    found = await store.examine()
    assert all(check.ok and not check.fix for check in found.checks), found.checks
    assert {"fsync", "synchronous_commit", "rights on messages"} <= {check.name for check in found.checks}
    assert found.facts["layout"] == len(migrations("journeyman"))
    await store.close()


# What is damaged.


async def test_a_missing_position_is_damage(postgres_server: PostgresServer, outside: asyncpg.Connection[Any]) -> None:
    store = await open_store(postgres_server.url("gap"))
    await fill(store, 5)
    await outside.execute("DELETE FROM gap.messages WHERE position = 3")
    with pytest.raises(Corrupt, match="positions 1 to 5 some are missing"):
        await everything(store)
    await store.close()


async def test_missing_tables_are_damage(postgres_server: PostgresServer, outside: asyncpg.Connection[Any]) -> None:
    store = await open_store(postgres_server.url("dropped"))
    await outside.execute("DROP SCHEMA dropped CASCADE")
    for call in (store.log.head(), fill(store, 1)):
        with pytest.raises(Corrupt, match="Restore it"):
            await call
    await store.close()


# Secrets.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://me:{QUOTED}@host:5432/db", "postgresql://me@host:5432/db"),
        (f"postgresql://me@host/db?password={QUOTED}&sslmode=require", "postgresql://me@host/db?sslmode=require"),
        ("postgresql://a,b:5433/db?schema=x", "postgresql://a,b:5433/db?schema=x"),
        ("postgresql://[::1]:5432/db?pooler=transaction", "postgresql://[::1]:5432/db?pooler=transaction"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=/run/postgresql"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    address = parse_address(url)
    assert address.url == shown
    assert "s3cr" not in repr(address)
    assert "schema" not in address.dsn
    assert "pooler" not in address.dsn


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@host/db",
        "postgresql://me:s3cr/t@host/db",
        "postgresql://me:s3cr?t@host/db",
        "postgresql://me:s3cr#t@host/db",
        "postgresql://host:s3cr/db",
        "postgresql://me:s3cr@[host/db",
        "postgresql://me:s3cr@host/db?schema=Not-A-Name",
        "postgresql://me:s3cr@host/db?pooler=session",
        "postgresql://me:s3cr@host/db?port=abc",
        "postgresql://me:s3cr@host:99999/db",
        "postgresql://me:s3cr@127.0.0.1:1/db",
        "postgresql://me:s3cr@nowhere.invalid/db",
    ],
)
async def test_no_error_of_a_url_shows_its_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(NotReady) as raised:
        await open_store(url)
    error: BaseException | None = raised.value
    while error is not None:
        assert "s3cr" not in f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "s3cr" not in caplog.text


@pytest.fixture(scope="module")
def server_with_passwords() -> Iterator[PostgresServer]:
    with postgres() as server:
        server.ask_for_passwords(PASSWORD)
        yield server


async def test_a_password_opens_the_store_and_a_wrong_one_is_not_told(
    server_with_passwords: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = server_with_passwords.tcp_url().replace("postgres@", f"postgres:{QUOTED}@")
    store = await open_store(url)
    again = await store.open_again()
    await fill(again, 1)
    await again.close()
    await store.close()
    assert "s3cr" not in store.url
    with pytest.raises(NotReady, match="correct the user and the password") as wrong:
        await open_store(url.replace("s3cr", "s3crx"))
    assert "s3cr" not in str(wrong.value)
    assert "s3cr" not in caplog.text


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
async def test_a_server_is_trusted_by_its_certificate(server_with_passwords: PostgresServer, tmp_path: Path) -> None:
    ours, another = [await asyncio.to_thread(certificate, tmp_path / name) for name in ("ours", "another")]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours, ours.with_suffix(".key"))
    async with proxy(server_with_passwords.port, tls=context) as way:
        url = server_with_passwords.tcp_url(port=way.port, sslmode="verify-full", sslrootcert=str(ours))
        store = await open_store(url.replace("postgres@", f"postgres:{QUOTED}@"))
        await fill(store, 1)
        await store.close()
        with pytest.raises(NotReady, match="CERTIFICATE_VERIFY_FAILED"):
            await open_store(url.replace(str(ours), str(another)))


def certificate(path: Path) -> Path:
    """Make a certificate for 127.0.0.1 that vouches for itself; its key lies beside it."""
    path = path.with_suffix(".crt")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *names, "-keyout", path.with_suffix(".key"), "-out", path], check=True, capture_output=True)
    return path


# How it does it.


async def test_a_new_connection_is_checked_against_what_was_read_when_it_began(postgres_server: PostgresServer) -> None:
    """Others may read on meanwhile: a writer's first append must not take that for another log."""
    store, other = [await open_store(postgres_server.url("racing")) for _ in range(2)]
    await fill(other, 1)
    await store.log.read(0, 1)

    async def read_on() -> None:
        for position in range(1, 30):
            await fill(other, 1, after=position)
            await store.log.read(position, 1)

    log = cast(PostgresStore, store)._log
    reading = asyncio.create_task(read_on())
    while not reading.done():
        log._writer.drop()
        await log._writer.call(_nothing)
    await reading
    await store.close()
    await other.close()


async def _nothing(connection: object) -> None:
    return


async def test_the_log_of_set_asides_is_read_by_its_index(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    store = cast(PostgresStore, await open_store(postgres_server.url("plans")))
    await fill(store, 1000)
    statement = store._log._sql["read_set_aside"].replace("$1", "0").replace("$2", "10")
    plan = await outside.fetch(f"EXPLAIN {statement}")
    assert "messages_set_aside" in str(plan)
    await store.close()


async def test_a_closed_store_is_not_ready(postgres_server: PostgresServer) -> None:
    store = await open_store(postgres_server.url())
    await store.close()
    for call in (store.log.head(), store.log.read(0, 1), fill(store, 1), store.log.wait(0, 1), store.keys.get("a")):
        with pytest.raises(NotReady, match="closed"):
            await call
    with pytest.raises(NotReady):
        async with store.log.turn():
            pass


async def test_closing_wakes_who_waits_and_ends_what_is_under_way(postgres_server: PostgresServer) -> None:
    store, other = [await open_store(postgres_server.url("closing")) for _ in range(2)]
    waiting = asyncio.create_task(store.log.wait(0, timeout_s=60))
    async with other.log.turn():
        appending = [asyncio.create_task(fill(store, 1)) for _ in range(3)]
        await store.log.head()
        async with asyncio.timeout(30):
            await store.close()
            await asyncio.wait((waiting, *appending))
    assert isinstance(waiting.exception(), NotReady | None)
    assert all(isinstance(one.exception(), Exception) for one in appending)
    await other.close()
