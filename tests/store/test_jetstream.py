"""The store in JetStream keeps the contract, refuses what can't keep it with the fix, and tells no secret."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client

from journeyman.errors import Corrupt, NotAStore, NotReady, TooLarge, UnknownName
from journeyman.store import Store, open_store
from journeyman.store.copying import copy_log
from journeyman.store.jetstream_address import parse_address
from journeyman.store.jetstream_log import READ_S
from journeyman.store.jetstream_record import encode_record, name_subject, text_of, token
from journeyman.store.memory import MemoryStore
from journeyman.store.open import find_store
from journeyman.testing.contract import everything, fill
from journeyman.testing.records import make_records
from journeyman.testing.store_contract import StoreContract
from tests.nats_accounts import make_account
from tests.servers_nats import NatsCluster, NatsServer, shared_cluster, shared_server


@pytest.fixture(scope="module", autouse=True)
def server() -> NatsServer:
    """Started here, where no event loop waits."""
    return shared_server()


@pytest.fixture(scope="module")
def cluster() -> NatsCluster:
    return shared_cluster()


class TestJetStreamStore(StoreContract):
    shared_between_processes = True

    async def open(self, place: Path) -> Store:
        return await open_store(shared_server().url(log_of(place)))


def log_of(place: Path) -> str:
    """A log of the place's own."""
    return f"log_{sha256(str(place).encode()).hexdigest()[:16]}"


# What it takes to be a store.


async def test_many_may_create_the_store_at_once(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(open_store(shared_server().url(log_of(tmp_path))) for _ in range(8)))
    for number, store in enumerate(stores):
        await fill(store, 1, after=number)
    await asyncio.gather(*(store.close() for store in stores))


async def test_many_may_create_the_store_at_once_on_a_cluster(cluster: NatsCluster, tmp_path: Path) -> None:
    stores = await asyncio.gather(*(open_store(cluster.url(log_of(tmp_path))) for _ in range(4)))
    for number, store in enumerate(stores):
        await fill(store, 1, after=number)
        assert store.durability.startswith("JetStream R3, file storage")
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_store_that_is_not_there_is_not_made_by_looking_for_it(tmp_path: Path) -> None:
    url = shared_server().url(log_of(tmp_path))
    with pytest.raises(NotReady, match=r"There is no store nats://.* yet.*journeyman store init"):
        await find_store(url)
    with pytest.raises(NotReady, match="There is no store"):
        await find_store(url)
    await (await open_store(url)).close()
    await (await find_store(url)).close()


async def test_an_examination_tells_what_was_checked_and_what_could_not_be(tmp_path: Path) -> None:
    server, log = shared_server(), log_of(tmp_path)
    for options, synced in (("", "not told"), (f"?monitor={server.monitor}", "always")):
        store = await open_store(server.url(log, options))
        found = await store.examine()
        assert all(check.ok for check in found.checks)
        assert {check.name: check.found for check in found.checks}["sync_interval"].startswith(synced)
        assert found.facts["stream"] == log
        await store.close()


async def test_an_examination_sees_what_was_changed_since(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    store = await open_store(shared_server().url(log))
    async with driver() as client:
        config = (await api(client, f"STREAM.INFO.{log}"))["config"]
        await api(client, f"STREAM.UPDATE.{log}", config | {"max_msgs": 10**6})
    with pytest.raises(NotReady, match="max_msgs is 1000000"):
        await store.examine()
    await store.close()


async def test_a_log_moves_to_jetstream_and_back_unchanged(tmp_path: Path) -> None:
    source, there, back = MemoryStore(), await open_store(shared_server().url(log_of(tmp_path))), MemoryStore()
    for number in range(3):
        await fill(source, 900, after=900 * number, name=f"posts/{number}")
    copied = await copy_log(source, there)
    assert (copied.messages, copied.copied) == (2700, 2700)
    assert await copy_log(there, back) == copied
    assert await everything(back) == await everything(source)
    await there.close()


async def test_a_read_by_name_finds_what_a_replica_may_not_have_yet(cluster: NatsCluster, tmp_path: Path) -> None:
    store = await open_store(cluster.url(log_of(tmp_path)))
    for number in range(30):
        await fill(store, 1, after=number, name=f"posts/{number % 3}")
        assert len(await store.log.read(0, 100, name=f"posts/{number % 3}")) == number // 3 + 1
    await store.close()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"max_msgs": 100}, "max_msgs is 100 and must be -1.*nats stream edit LOG --max-msgs=-1"),
        ({"max_bytes": 10**6}, "max_bytes is 1000000 and must be -1"),
        ({"max_age": 10**12}, "max_age is 1000000000000 and must be 0"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject is 5"),
        ({"discard": "old"}, "discard is old and must be new"),
        ({"deny_delete": False}, "deny_delete is False and must be True.*--deny-delete"),
        ({"deny_purge": False}, "deny_purge is False and must be True"),
        ({"allow_atomic": False}, "allow_atomic is False and must be True"),
        ({"storage": "memory"}, "storage is memory and must be file"),
        ({"no_ack": True, "allow_atomic": False}, "no_ack is True and must be False"),
        ({"retention": "interest"}, "retention is interest and must be limits"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_stream_that_may_lose_messages_is_refused_with_the_fix(
    changed: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    log = log_of(tmp_path)
    async with driver() as client:
        await api(client, f"STREAM.CREATE.{log}", stream(log) | changed)
        with pytest.raises(NotReady, match=complaint.replace("LOG", log)):
            await open_store(shared_server().url(log))
        await api(client, f"STREAM.DELETE.{log}")


async def test_the_fix_that_is_told_mends_it(tmp_path: Path) -> None:
    """As far as a stream can be edited at all."""
    log = log_of(tmp_path)
    async with driver() as client:
        await api(client, f"STREAM.CREATE.{log}", stream(log) | {"max_msgs": 100, "deny_delete": False})
        with pytest.raises(NotReady, match="--deny-delete"):
            await open_store(shared_server().url(log))
        await api(client, f"STREAM.UPDATE.{log}", stream(log))
    store = await open_store(shared_server().url(log))
    await fill(store, 1)
    await store.close()


async def test_a_stream_of_another_application_is_refused_untouched(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    async with driver() as client:
        await api(client, f"STREAM.CREATE.{log}", {"name": log, "subjects": ["theirs.>"]})
        before = await api(client, f"STREAM.INFO.{log}")
        with pytest.raises(NotAStore, match="another application"):
            await open_store(shared_server().url(log))
        after = await api(client, f"STREAM.INFO.{log}")
        assert (before["config"], before["state"]) == (after["config"], after["state"])
        await api(client, f"STREAM.DELETE.{log}")


async def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    async with driver() as client:
        newer = stream(log) | {"metadata": {"journeyman": "log", "journeyman-layout": "2"}}
        await api(client, f"STREAM.CREATE.{log}", newer)
        with pytest.raises(NotAStore, match=r"has layout 2.*Upgrade"):
            await open_store(shared_server().url(log))


async def test_a_log_that_was_deleted_from_is_corrupt(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    async with driver() as client:
        await api(client, f"STREAM.CREATE.{log}", stream(log) | {"deny_delete": False})
        for number in range(3):
            await client.request(f"{log}.a", b"%d" % number)
        await api(client, f"STREAM.MSG.DELETE.{log}", {"seq": 2})
        await api(client, f"STREAM.UPDATE.{log}", stream(log))
        with pytest.raises(Corrupt, match="holds 2 messages from 1 to 3"):
            await open_store(shared_server().url(log))


async def test_a_batch_of_which_a_part_is_there_is_read_when_the_rest_is(tmp_path: Path) -> None:
    """As a server shows it that is writing it."""
    log = log_of(tmp_path)
    store = await open_store(shared_server().url(log))
    await fill(store, 2)
    records = make_records(3, after=2)
    contents = [encode_record(record, rest=rest) for record, rest in zip(records, (2, 1, 0), strict=True)]
    async with driver() as client:
        for content in contents[:2]:
            await client.request(name_subject(log, records[0].name), content, timeout=10)
        reading, heading = asyncio.create_task(store.log.read(0, 100)), asyncio.create_task(store.log.head())
        some = await store.log.read(0, 3)
        await asyncio.sleep(0.2)
        early = reading.done(), heading.done()
        await client.request(name_subject(log, records[0].name), contents[2], timeout=10)
        read, head = await reading, await heading
    assert early == (False, False)
    assert len(some) == 3, "who asks for a part gets it"
    assert (read[2:], head) == (records, 5)
    await store.close()


async def test_a_batch_whose_rest_does_not_come_holds_nobody_up_for_long(tmp_path: Path) -> None:
    """As in a backup that was taken while it was written."""
    log = log_of(tmp_path)
    store = await open_store(shared_server().url(log))
    [record] = make_records(1)
    async with driver() as client:
        await client.request(name_subject(log, record.name), encode_record(record, rest=4), timeout=10)
    async with asyncio.timeout(3 * READ_S):
        assert await store.log.read(0, 100) == [record]
    await fill(store, 1, after=1)
    async with asyncio.timeout(READ_S):
        assert [one.position for one in await store.log.read(0, 100)] == [1, 2]
        assert await store.log.head() == 2
    await store.close()


async def test_an_envelope_that_no_server_takes_is_too_large_and_not_written(tmp_path: Path) -> None:
    store = await open_store(shared_server().url(log_of(tmp_path)))
    small, large = make_records(2)
    large = msgspec.structs.replace(large, idempotency_key="k" * 2**20)
    with pytest.raises(TooLarge, match="limit is 1048576"):
        await store.log.append([small, large], after=0)
    with pytest.raises(TooLarge):
        await store.log.append([msgspec.structs.replace(large, position=1)], after=0)
    assert await store.log.head() == 0
    await fill(store, 2)
    await store.close()


async def test_what_is_no_record_is_corrupt(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    store = await open_store(shared_server().url(log))
    async with driver() as client:
        await client.request(f"{log}.a", b"something else")
    with pytest.raises(Corrupt, match="no record of Journeyman's"):
        await store.log.read(0, 10)
    await store.close()


async def test_one_replica_on_a_cluster_has_to_be_asked_for(cluster: NatsCluster, tmp_path: Path) -> None:
    log = log_of(tmp_path)
    store = await open_store(cluster.url(log, "?replicas=1"))
    assert store.durability.startswith("JetStream R1")
    await store.close()
    with pytest.raises(NotReady, match=r"num_replicas is 1 and must be 3.*--replicas=3 Or say \?replicas=1"):
        await open_store(cluster.url(log))


async def test_three_replicas_on_one_server_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"3 replicas, which takes 3 servers"):
        await open_store(shared_server().url(log_of(tmp_path), "?replicas=3"))


async def test_a_server_that_syncs_now_and_then_is_refused_where_it_can_be_asked(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, sync="2m")
    await asyncio.to_thread(server.start)
    try:
        with pytest.raises(NotReady, match=r"loses acknowledged messages.*sync_interval: always"):
            await open_store(server.url("blog", f"?monitor={server.monitor}"))
        store = await open_store(server.url("blog"))
        assert store.durability == "JetStream R1, file storage, sync_interval not told"
        await store.close()
    finally:
        server.kill()


async def test_a_server_that_syncs_always_is_told_so(tmp_path: Path) -> None:
    server = shared_server()
    store = await open_store(server.url(log_of(tmp_path), f"?monitor={server.monitor}"))
    assert store.durability == "JetStream R1, file storage, sync_interval: always"
    await store.close()
    with pytest.raises(NotReady, match=r"The monitoring port http://127\.0\.0\.1:1 does not say"):
        await open_store(server.url(log_of(tmp_path), "?monitor=http://127.0.0.1:1"))


async def test_an_old_server_is_refused_with_the_version_to_use() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "X", "version": "2.11.9", "headers": True, "max_payload": 2**20, "proto": 1}
        writer.write(b"INFO %b\r\n" % json.dumps(info).encode())
        await reader.readline()
        writer.write(b"PONG\r\n")
        await reader.read()
        writer.close()

    old = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = old.sockets[0].getsockname()[1]
    with pytest.raises(NotReady, match=r"nats-server is 2\.11, which lacks atomic batches: use 2\.12 or newer"):
        await open_store(f"nats://127.0.0.1:{port}/blog")
    old.close()
    await old.wait_closed()


async def test_no_server_at_all_is_said_with_its_address() -> None:
    with pytest.raises(NotReady, match=r"No NATS server can be used at 127\.0\.0\.1:1"):
        await open_store("nats://127.0.0.1:1/blog")


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, extra='accounts: { "A": { users: [ { user: a, password: b } ] } }')
    await asyncio.to_thread(server.start)
    try:
        with pytest.raises(NotReady, match="JetStream"):
            await open_store(f"nats://a:b@{server.host}/blog")
    finally:
        server.kill()


# Who one is.


@pytest.mark.parametrize(
    ("authorization", "userinfo", "shown"),
    [
        ('user: "ann", password: "se:cret/@"', "ann:se%3Acret%2F%40", "ann@"),
        ('token: "se:cret/@"', "se%3Acret%2F%40", ""),
    ],
    ids=["password", "token"],
)
async def test_a_login_is_used_and_never_told(
    authorization: str, userinfo: str, shown: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = NatsServer(tmp_path, extra=f"authorization {{ {authorization} }}")
    await asyncio.to_thread(server.start)
    try:
        store = await open_store(f"nats://{userinfo}@{server.host}/blog")
        assert store.url == f"nats://{shown}{server.host}/blog"
        again = await store.open_again()
        await fill(again, 1)
        assert len(await everything(store)) == 1
        server.kill()
        with pytest.raises(NotReady) as away:
            await store.log.head()
        await again.close()
        await store.close()
        await asyncio.to_thread(server.start)
        with pytest.raises(NotReady, match="Authorization") as wrong:
            await open_store(f"nats://ann:my-secret@{server.host}/blog")
        with pytest.raises(NotReady) as nobody:
            await open_store(f"nats://{server.host}/blog")
    finally:
        server.kill()
    told = " ".join([*map(str, (away.value, wrong.value, nobody.value)), caplog.text])
    assert "secret" not in told
    assert "se%3A" not in told
    assert "se:cret" not in told


async def test_the_permissions_that_are_documented_are_enough(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "scaling.md").read_text()
    authorization = next(block for block in text.split("```") if "authorization {" in block)
    server = NatsServer(tmp_path, extra=authorization.replace("…", "secret"))
    await asyncio.to_thread(server.start)
    try:
        store = await open_store(f"nats://ann:secret@{server.host}/blog")
        other = await store.open_again()
        waiting = asyncio.create_task(other.log.wait(0, 30.0))
        await fill(store, 5)
        await waiting
        assert len(await other.log.read(0, 10, name="testing/do-something")) == 5
        assert await store.keys.put("a", b"1")
        assert await store.keys.delete("a")
        await store.blobs.save("a", [b"1"])
        assert await store.blobs.load("a") == b"1"
        await store.blobs.delete("a")
        assert await store.claim("workers")
        assert await other.claim("workers") is False
        await store.close()
        assert await other.claim("workers")
        await other.close()
    finally:
        server.kill()


async def test_a_login_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NatsServer(tmp_path, extra='authorization { user: "ann", password: "secret" }')
    await asyncio.to_thread(server.start)
    try:
        monkeypatch.setenv("NATS_USER", "ann")
        monkeypatch.setenv("NATS_PASSWORD", "secret")
        store = await open_store(server.url("blog"))
        assert store.url == server.url("blog")
        await store.close()
    finally:
        server.kill()


async def test_a_credentials_file_needs_the_extra() -> None:
    if find_spec("nkeys") is not None:
        pytest.skip("nkeys is installed")
    with pytest.raises(NotReady, match=r"pip install 'journeyman\[jetstream\]'"):
        await open_store(shared_server().url("blog", "?creds=/etc/blog.creds"))


async def test_a_credentials_file_lets_in_and_another_one_does_not(tmp_path: Path) -> None:
    pytest.importorskip("nkeys", reason="nkeys is not installed: there is no wheel of it")
    credentials, configuration = make_account(tmp_path)
    (foreign := tmp_path / "foreign").mkdir()
    others, _ = make_account(foreign)
    server = NatsServer(tmp_path, extra=configuration)
    await asyncio.to_thread(server.start)
    try:
        store = await open_store(server.url("blog", f"?creds={credentials}"))
        await fill(store, 1)
        await store.close()
        for option, why in (
            (f"?creds={others}", "(?i)authorization violation"),
            ("?creds=/etc/blog.creds", r"No such file.*/etc/blog\.creds"),
            ("", "(?i)authorization violation"),
        ):
            with pytest.raises(NotReady, match=why):
                await open_store(server.url("blog", option))
    finally:
        server.kill()


@pytest.mark.parametrize("first", [False, True], ids=["upgraded", "first"])
async def test_tls_is_spoken_and_the_servers_certificate_checked(first: bool, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    handshake = "handshake_first: true" if first else ""
    server = NatsServer(tmp_path, extra=f'tls {{ cert_file: "{certificate}", key_file: "{key}", {handshake} }}')
    await asyncio.to_thread(server.start)
    options = "&tls=first" if first else ""
    try:
        store = await open_store(server.url("blog", f"?ca={certificate}{options}"))
        await fill(store, 1)
        await store.close()
        with pytest.raises(NotReady, match=r"(?i)certificate.verify.failed"):
            await open_store(server.url("blog", "?tls=first" if first else ""))
    finally:
        server.kill()


async def test_tls_first_speaks_to_nobody_who_does_not() -> None:
    with pytest.raises(NotReady):
        await open_store(shared_server().url("blog", "?tls=first"))


async def test_a_login_is_told_to_no_server_without_tls_where_tls_is_required(tmp_path: Path) -> None:
    """Such as one that stands in the place of the right one, and says that it wants none."""
    told = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = b'{"server_id":"x","version":"2.12.0","max_payload":1048576,"auth_required":true,"proto":1}'
        writer.write(b"INFO %b\r\n" % info)
        while data := await reader.read(1024):
            told.extend(data)
            writer.write(b"PONG\r\n")
        writer.close()

    certificate, _ = make_certificate(tmp_path)
    pretender = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with pretender:
        host = f"nats://ann:s3cret@127.0.0.1:{pretender.sockets[0].getsockname()[1]}/blog"
        for option in ("tls=required", f"ca={certificate}"):
            with pytest.raises(NotReady, match="does not speak TLS"):
                await open_store(f"{host}?{option}")
        assert not told
        with pytest.raises(NotReady):
            await open_store(host)
        assert b"s3cret" in told, "the pretender would not have noticed"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that signs itself, and its key."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", *kind, *name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


# URLs.


@pytest.mark.parametrize("url", ["nats://", "nats://h", "nats://h/", "nats://h/a.b", "nats://h/a-b", "nats:///blog"])
def test_a_url_without_hosts_or_a_name_is_refused_with_its_form(url: str) -> None:
    with pytest.raises(UnknownName, match="nats://host:4222/NAME"):
        parse_address(url, {})


@pytest.mark.parametrize("option", ["sync=off", "replicas=2", "tls=maybe"])
def test_an_unknown_option_is_refused_with_the_known_ones(option: str) -> None:
    with pytest.raises(UnknownName, match="Known: "):
        parse_address(f"nats://ann:secret@h/blog?{option}", {})


def test_a_url_may_name_several_hosts_and_options() -> None:
    address = parse_address(
        "nats://ann:se%40cret@a,b:4333,[::1]/blog?replicas=3&monitor=http://a:8222,http://b:8222", {}
    )
    assert address.hosts == ("a:4222", "b:4333", "[::1]:4222")
    assert (address.name, address.replicas) == ("blog", 3)
    assert (address.login.user, address.login.password) == ("ann", "se@cret")
    assert address.monitors == ("http://a:8222", "http://b:8222")
    assert "cret" not in repr(address)


def test_the_url_counts_and_then_the_environment() -> None:
    environment = {"NATS_USER": "bob", "NATS_PASSWORD": "p", "NATS_CREDS": "/c", "NATS_CA": "/ca", "OTHER": "x"}
    assert parse_address("nats://ann:q@h/blog", environment).login.user == "ann"
    assert parse_address("nats://h/blog", environment).login.user == "bob"
    assert parse_address("nats://h/blog", environment).tls.ca == "/ca"
    assert parse_address("nats://h/blog?ca=/mine", environment).tls.ca == "/mine"
    assert parse_address("nats://h/blog?creds=/mine", environment).login.creds == "/mine"
    assert parse_address("nats://h/blog", {"NATS_TOKEN": "t"}).login.token == "t"


def test_without_the_driver_the_extra_is_named() -> None:
    program = """if True:
        import asyncio, sys
        sys.modules["nats"] = None
        from journeyman.errors import NotReady
        from journeyman.store import open_store
        try:
            asyncio.run(open_store("nats://ann:secret@h/blog"))
        except NotReady as error:
            assert "pip install 'journeyman[jetstream]'" in str(error), error
            assert "secret" not in str(error), error
        else:
            sys.exit(1)
    """
    subprocess.run([sys.executable, "-c", program], check=True)


# Subjects.


@pytest.mark.parametrize("text", ["", "a", "posts/create", "a.b", "*", ">", "=", "=2E", "straße 🦉", "a b\r\n", "=="])
def test_any_text_is_one_token_of_its_own(text: str) -> None:
    assert text_of(token(text)) == text
    assert not set(token(text)) & set(".*> \r\n")
    assert token(text)


def test_names_have_subjects_that_people_can_filter_by() -> None:
    assert name_subject("blog", "posts/create") == "blog.posts.create"
    assert name_subject("blog", "journeyman/job-started") == "blog.journeyman.job-started"
    names = ["a/b", "a.b", "a//b", "a", "a/", "/a", "a/=", "ä/b"]
    assert len({name_subject("blog", name) for name in names}) == len(names)


# The driver itself, for what a person would do by hand.


@asynccontextmanager
async def driver() -> AsyncIterator[Client]:
    client = await nats.connect(f"nats://{shared_server().host}")
    try:
        yield client
    finally:
        await client.close()


async def api(client: Client, what: str, request: Any = None) -> Any:
    data = b"" if request is None else json.dumps(request).encode()
    answer = json.loads((await client.request(f"$JS.API.{what}", data, timeout=10)).data)
    assert "error" not in answer, answer
    return answer


def stream(log: str) -> dict[str, Any]:
    """The configuration that a log's stream has."""
    return {
        "name": log,
        "subjects": [f"{log}.>"],
        "storage": "file",
        "num_replicas": 1,
        "retention": "limits",
        "discard": "new",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_msgs_per_subject": -1,
        "deny_delete": True,
        "deny_purge": True,
        "allow_atomic": True,
        "allow_direct": True,
        "metadata": {"journeyman": "log", "journeyman-layout": "1"},
    }
