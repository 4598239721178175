"""A URL chooses the store, and only the backend that it asks for is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from journeyman.errors import UnknownName
from journeyman.store import open_store


@pytest.mark.parametrize("url", ["mysql://user:secret@host/blog", "blog.db", "", "memory", "memory:x"])
async def test_an_unknown_url_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(UnknownName, match=r"Known: memory:.*sqlite:///relative\.db") as error:
        await open_store(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["sqlite", "sqlite:blog.db", "sqlite://blog.db", "sqlite:///"])
async def test_a_sqlite_url_without_a_path_is_refused_with_its_forms(url: str) -> None:
    with pytest.raises(UnknownName, match=r"Known: sqlite:////absolute\.db, sqlite:///relative\.db"):
        await open_store(url)


async def test_sqlite_in_memory_is_referred_to_the_store_in_memory() -> None:
    with pytest.raises(UnknownName, match=r"Known: memory:"):
        await open_store("sqlite:///:memory:")


def test_a_backend_is_imported_only_when_it_is_asked_for() -> None:
    program = """if True:
        import asyncio, sys
        from journeyman.store import open_store
        backends = {"apsw", "asyncpg", *(f"journeyman.store.{name}" for name in ("memory", "postgres", "sqlite"))}
        assert not backends & set(sys.modules), backends & set(sys.modules)
        asyncio.run(open_store("memory:"))
        assert backends & set(sys.modules) == {"journeyman.store.memory"}
    """
    subprocess.run([sys.executable, "-c", program], check=True)
