"""What the experiments share."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.crash.lab import Lab

#: How long a full form may take, in seconds.
FULL_S: Final = 1200

#: For what is too long for every run of the tests.
full = pytest.mark.crash


def sizes(short: Any, full: Any) -> pytest.MarkDecorator:
    """The sizes of an experiment: `short` as a part of every run of the tests, `full` with `make crash`."""
    marks = [pytest.mark.crash, pytest.mark.timeout(FULL_S)]
    return pytest.mark.parametrize(
        "size", [pytest.param(short, id="short"), pytest.param(full, id="full", marks=marks)]
    )


async def finish(lab: Lab, **options: Any) -> None:
    """Let one process do what is left, undisturbed."""
    process = await lab.start(**options)
    await lab.until_done()
    assert await lab.end(process) == 0
