from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from journeyman.store.base import Store
from journeyman.store.memory import MemoryStore
from tests.todo.troubled import Troubled


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str | Store:
    """A store that keeps its content when an application on it is stopped and another one started."""
    return MemoryStore() if request.param == "memory" else f"sqlite:///{tmp_path / 'desk.db'}"


@pytest.fixture
def troubled() -> tuple[MemoryStore, Troubled]:
    store = MemoryStore()
    log = Troubled(store.log)
    anything: Any = log
    store.log = anything
    return store, log
