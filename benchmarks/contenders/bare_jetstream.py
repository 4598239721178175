"""The limit on JetStream: a plain loop of atomic batches with the driver, without a framework.

    BENCHMARK_STORE=nats://127.0.0.1:4222/bare python -m benchmarks.contenders.bare_jetstream batches '{"count": 20000}'

The stream is made by Journeyman, so that it has the same settings; what is written is what Journeyman would write.
"""

from __future__ import annotations

import asyncio
import os
import time

import msgspec
import nats
import uuid_utils
from nats.aio.client import Client

from benchmarks.load import Figures, main, writings
from benchmarks.posts import Write, write_of
from journeyman import open_store
from journeyman.store.jetstream_address import parse_address

STORE = os.environ["BENCHMARK_STORE"]

_encode = msgspec.json.Encoder().encode


def batches(*, count: int, size: int = 256) -> Figures:
    """Batches of commands, one after the other, each acknowledged before the next."""

    async def run() -> Figures:
        store = await open_store(STORE)
        await store.close()
        address = parse_address(STORE)
        client = await nats.connect([f"nats://{host}" for host in address.hosts], **address.connect_options())
        sources = [writings(caller) for caller in range(size)]
        position, begun_s = 0, time.perf_counter()
        while position < count:
            writes = [write_of(next(source)) for source in sources]
            await _append(client, f"{address.name}.posts.write", writes, position)
            position += size
        elapsed_s = time.perf_counter() - begun_s
        await client.close()
        return {"per_s": position / elapsed_s, "durability": store.durability}

    return asyncio.run(run())


async def _append(client: Client, subject: str, writes: list[Write], after: int) -> None:
    batch = uuid_utils.uuid4().hex
    for number, write in enumerate(writes, start=1):
        identity = str(uuid_utils.uuid7())
        envelope = (after + number, identity, "posts/write", 1, write.post_id, time.time_ns() // 1000, identity)
        content = b"%b\n%b" % (_encode(envelope), _encode(write))
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number == 1:
            headers["Nats-Expected-Last-Sequence"] = str(after)
        if number < len(writes):
            await client.publish(subject, content, headers=headers)
        else:
            reply = await client.request(subject, content, timeout=10, headers=headers | {"Nats-Batch-Commit": "1"})
            if msgspec.json.decode(reply.data).get("seq") != after + number:
                raise RuntimeError(f"the batch was not taken: {reply.data.decode()}")


if __name__ == "__main__":
    main({"batches": batches})
