"""The command line in the test's own process and folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doors.cli.terminal import Journeyman, in_process


@pytest.fixture
def journeyman(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Journeyman]:
    before = set(sys.modules)
    yield in_process(monkeypatch, capsys, tmp_path)
    # The next test may have another application of the same name.
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
