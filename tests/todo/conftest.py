from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.store.base import Store
from journeyman.store.memory import MemoryStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str | Store:
    """A store that keeps its content when an application on it is stopped and another one started."""
    return MemoryStore() if request.param == "memory" else f"sqlite:///{tmp_path / 'desk.db'}"
