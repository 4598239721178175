"""The command line in the test's own process and folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doors.cli.terminal import Journeyman, forget_modules, in_process


@pytest.fixture
def journeyman(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Journeyman]:
    yield in_process(monkeypatch, capsys, tmp_path)
    forget_modules(tmp_path)
