"""The limit over HTTP: a litestar endpoint of the same shape, over the plain group commit."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import msgspec
import uvicorn
from litestar import Litestar, post

from benchmarks.contenders.bare import GroupCommit, Log, Write
from benchmarks.http_client import PATH, measured
from benchmarks.load import Figures, main


class Recorded(msgspec.Struct, frozen=True):
    position: int


class Server(uvicorn.Server):
    """Leaves the signals alone."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  # as its base class
        yield


def http(*, connections: int, count: int) -> Figures:
    log = Log()

    async def run() -> Figures:
        commits = GroupCommit(log)

        @post(PATH)
        async def write(data: Write) -> Recorded:
            return Recorded(await commits.execute(data))

        config = uvicorn.Config(
            Litestar([write], openapi_config=None, logging_config=None),
            http="httptools",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
        )
        server = Server(config)
        # The protocol is named, or asyncio would not set TCP_NODELAY.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110  # uvicorn sets no event
            await asyncio.sleep(0.01)
        try:
            return await measured(listening.getsockname()[1], connections=connections, count=count)
        finally:
            server.should_exit = True
            await serving
            commits.close()

    return asyncio.run(run()) | {"durability": log.durability}


if __name__ == "__main__":
    main({"http": http})
