"""The three streams that a store has, and what is asked of them at each open: nothing may be able to drop a message.

`NAME` is the log, `KV_NAME` the key-value table, `NAME-blobs` the large values.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from journeyman.errors import Corrupt, NotAStore, NotReady
from journeyman.store.base import Check, Examination
from journeyman.store.jetstream_address import Address
from journeyman.store.jetstream_connection import Connection
from journeyman.store.jetstream_reply import Nobody, Refused, Unread, reading

#: The layout that this version writes, and the newest that it reads.
LAYOUT_VERSION: Final = 1

#: How many replicas a new stream gets on a cluster, if the URL does not say.
CLUSTER_REPLICAS: Final = 3

#: How long creating a stream may take, in seconds: a cluster chooses its leader first.
CREATE_S: Final = 10.0

#: How long opening waits for a leader of each stream, in seconds, and how often it asks.
OPEN_S: Final = 10.0
PAUSE_S: Final = 0.1

#: How long a server's monitoring port may take, in seconds.
MONITOR_S: Final = 3.0

#: JetStream's own numbers of errors: server/errors.json in nats-server.
_NOT_FOUND: Final = 10059
_NAME_IN_USE: Final = 10058
_NO_CLUSTER: Final = 10074

#: What every stream of a store must be like, so that it drops nothing.
_KEEPS_ALL: Final = {
    "retention": "limits",
    "storage": "file",
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msg_size": -1,
    "max_consumers": -1,
    "discard": "new",
    "no_ack": False,
    "sealed": False,
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "deny_delete": True,
}

#: How each of a configuration's fields is mended, where `nats stream edit NAME` can.
_MENDED_BY: Final = {
    "max_msgs": "--max-msgs=-1",
    "max_bytes": "--max-bytes=-1",
    "max_age": "--max-age=0",
    "max_msg_size": "--max-msg-size=-1",
    "max_msgs_per_subject": "--max-msgs-per-subject=-1",
    "max_consumers": "--max-consumers=-1",
    "discard": "--discard=new",
    "deny_delete": "--deny-delete",
    "deny_purge": "--deny-purge",
    "allow_rollup_hdrs": "--no-allow-rollup",
    "allow_atomic": "--allow-batch",
    "allow_direct": "--allow-direct",
    "num_replicas": "--replicas=3",
}


class StreamSpec(msgspec.Struct, frozen=True):
    """One of the store's streams, and what it must be like beside keeping everything."""

    name: str
    kind: str
    subjects: tuple[str, ...]
    more: dict[str, Any]


class Streams(msgspec.Struct, frozen=True):
    """The streams of a store, which are as they must be.

    `synced` is whether each write is synced; None when no monitoring port says so: a client is not told.
    """

    replicas: int
    synced: bool | None
    facts: dict[str, str | int]

    @property
    def durability(self) -> str:
        """For people."""
        return f"JetStream R{self.replicas}, file storage, sync_interval{': always' if self.synced else ' not told'}"

    def examination(self) -> Examination:
        """Looking at the streams has refused everything else that could be wrong."""
        untold = "not told: name the servers' monitoring ports, as in ?monitor=http://n1:8222,http://n2:8222"
        return Examination(
            checks=(
                Check("streams", True, "file storage, atomic batches, nothing is dropped, deleted or purged"),
                Check("replicas", True, str(self.replicas)),
                Check("sync_interval", True, "always" if self.synced else untold),
            ),
            facts=self.facts,
        )


class Missing(NotReady):
    """There is no such stream."""


Finder = Callable[[Connection, StreamSpec, Address], Awaitable[Any]]


async def open_streams(connection: Connection, address: Address) -> Streams:
    """Create what is missing of a store, and check what is there.

    Raises:
        NotReady: JetStream is off, or can't keep the promises as it is set up; says how to mend it.
        NotAStore: a stream of that name belongs to something else, or has a layout newer than known.
        Corrupt: the log has lost messages.
    """
    return await _checked(connection, address, _find_or_create)


async def find_streams(connection: Connection, address: Address) -> Streams:
    """Check what is there of a store, and create nothing.

    Raises:
        NotReady: as `open_streams`; also when there is none.
        NotAStore, Corrupt: as `open_streams`.
    """
    return await _checked(connection, address, _find)


async def _checked(connection: Connection, address: Address, find: Finder) -> Streams:
    """The streams, each found by `find`, when all is as it must be.

    Raises:
        NotReady: JetStream is off, or can't keep the promises as it is set up; says how to mend it.
        NotAStore: a stream of that name belongs to something else, or has a layout newer than known.
        Corrupt: the log has lost messages.
    """
    name = address.name
    log = StreamSpec(name, "log", (f"{name}.>",), {"allow_atomic": True, "allow_direct": True, "deny_purge": True})
    keys = StreamSpec(f"KV_{name}", "keys", (f"$KV.{name}.>",), {"max_msgs_per_subject": 1, "allow_direct": False})
    blobs = StreamSpec(f"{name}-blobs", "blobs", (f"{name}-blobs.>",), {"allow_direct": True})
    synced = await _synced(address)
    infos = [await _find_patiently(connection, spec, address, find) for spec in (log, keys, blobs)]
    _check_whole(infos[0], name)
    return Streams(min(info["config"]["num_replicas"] for info in infos), synced, _facts(infos))


def _facts(infos: list[Any]) -> dict[str, str | int]:
    log, *_ = infos
    return {
        "stream": log["config"]["name"],
        "layout": LAYOUT_VERSION,
        "leader": log.get("cluster", {}).get("leader", ""),
        "created": log["created"],
        "size_bytes": log["state"]["bytes"],
        "all_streams_bytes": sum(info["state"]["bytes"] for info in infos),
    }


async def _find_patiently(connection: Connection, spec: StreamSpec, address: Address, find: Finder) -> Any:
    """What the stream is like, as its leader tells; a cluster that is choosing one is waited for."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + OPEN_S
    while True:
        try:
            with reading():
                info = await find(connection, spec, address)
        except (Nobody, Unread):
            if loop.time() > give_up_at:
                raise
            await asyncio.sleep(PAUSE_S)
        else:
            _check(info, spec, address)
            return info


async def _find(connection: Connection, spec: StreamSpec, address: Address) -> Any:
    try:
        return await connection.ask(f"STREAM.INFO.{spec.name}")
    except Refused as refused:
        if refused.code != _NOT_FOUND:
            raise
    raise Missing(f"There is no store {address.url} yet: check the URL, or make it: journeyman store init URL")


async def _find_or_create(connection: Connection, spec: StreamSpec, address: Address) -> Any:
    try:
        return await _find(connection, spec, address)
    except Missing:
        return await _create(connection, spec, address.replicas)


async def _create(connection: Connection, spec: StreamSpec, replicas: int | None) -> Any:
    """Create the stream; whoever is first, all get the same one."""
    wanted = _KEEPS_ALL | {"max_msgs_per_subject": -1} | spec.more
    wanted |= {"name": spec.name, "subjects": spec.subjects, "num_replicas": replicas or CLUSTER_REPLICAS}
    wanted |= {"metadata": {"journeyman": spec.kind, "journeyman-layout": str(LAYOUT_VERSION)}}
    try:
        return await connection.ask(f"STREAM.CREATE.{spec.name}", wanted, timeout_s=CREATE_S)
    except Refused as refused:
        if refused.code == _NAME_IN_USE:
            return await connection.ask(f"STREAM.INFO.{spec.name}")
        if refused.code != _NO_CLUSTER or replicas is not None:
            raise NotReady(
                f"JetStream does not create the stream {spec.name}: {refused}.{_advice(replicas)}"
            ) from refused
    return await connection.ask(f"STREAM.CREATE.{spec.name}", wanted | {"num_replicas": 1}, timeout_s=CREATE_S)


def _advice(replicas: int | None) -> str:
    wanted = replicas or CLUSTER_REPLICAS
    return f" It was to have {wanted} replicas, which takes {wanted} servers with JetStream; or say ?replicas=1."


def _check(info: Any, spec: StreamSpec, address: Address) -> None:
    config = info["config"]
    _check_ownership(config, spec)
    wanted = _KEEPS_ALL | {"max_msgs_per_subject": -1} | spec.more
    wrong = {field: value for field, value in wanted.items() if config.get(field, _absent(value)) != value}
    replicas = address.replicas or (CLUSTER_REPLICAS if info.get("cluster", {}).get("name") else 1)
    if config["num_replicas"] < replicas:
        wrong["num_replicas"] = replicas
    if config.get("persist_mode") == "async" or config.get("sources") or config.get("mirror"):
        raise NotAStore(f"The stream {spec.name} copies from elsewhere, or tells before it writes: use another name.")
    if wrong:
        raise NotReady(_complaint(spec.name, wrong, config))


def _absent(wanted: Any) -> Any:
    """What a field means that the server leaves out: false, or nothing."""
    return False if isinstance(wanted, bool) else None


def _check_ownership(config: Any, spec: StreamSpec) -> None:
    told = config.get("metadata") or {}
    if told.get("journeyman") != spec.kind or tuple(config.get("subjects") or ()) != spec.subjects:
        raise NotAStore(f"The stream {spec.name} belongs to another application. Use another name in the URL.")
    layout = told.get("journeyman-layout", "")
    if not layout.isdigit() or int(layout) > LAYOUT_VERSION:
        raise NotAStore(
            f"The stream {spec.name} has layout {layout}, this version of Journeyman knows {LAYOUT_VERSION}. Upgrade."
        )


def _complaint(stream: str, wrong: dict[str, Any], config: Any) -> str:
    told = ", ".join(
        f"{field} is {config.get(field, _absent(value))} and must be {value}" for field, value in wrong.items()
    )
    options = [_MENDED_BY[field] for field in wrong if field in _MENDED_BY]
    fix = f"Mend it: nats stream edit {stream} {' '.join(options)}" if options else "Use another name in the URL."
    lenient = " Or say ?replicas=1 for development." if "num_replicas" in wrong else ""
    return f"The stream {stream} may lose messages: {told}. {fix}{lenient}"


def _check_whole(info: Any, name: str) -> None:
    """A log that begins later than at 1, or has holes, was deleted from."""
    state = info["state"]
    if state["last_seq"] and (state["first_seq"] != 1 or state["messages"] != state["last_seq"]):
        raise Corrupt(
            f"The stream {name} holds {state['messages']} messages from {state['first_seq']} to {state['last_seq']}: "
            "some were deleted. Restore a backup: nats stream restore"
        )


async def _synced(address: Address) -> bool | None:
    """Whether each server syncs each write; see Streams.

    Raises:
        NotReady: a server doesn't, or does not answer.
    """
    for monitor in address.monitors:
        try:
            told = await asyncio.to_thread(_varz, monitor)
        except (OSError, ValueError) as error:
            raise NotReady(f"The monitoring port {monitor} does not say how the server syncs: {error}.") from error
        if not told.get("jetstream", {}).get("config", {}).get("sync_always"):
            raise NotReady(
                f"The server at {monitor} does not sync each write, so a power failure loses acknowledged messages. "
                "Write into its configuration: jetstream { sync_interval: always }"
            )
    return True if address.monitors else None


def _varz(monitor: str) -> Any:
    if not monitor.startswith(("http://", "https://")):
        raise ValueError("its URL begins with neither http:// nor https://")
    with urllib.request.urlopen(f"{monitor.rstrip('/')}/varz", timeout=MONITOR_S) as response:  # noqa: S310  # as checked
        return msgspec.json.decode(response.read())
