"""A retry policy is finite, and its pauses grow up to their bound."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import DefinitionError
from journeyman.retry import ATTEMPTS_MAX, Retry, describe


@given(st.integers(1, ATTEMPTS_MAX), st.floats(0, 10), st.floats(1, 100), st.floats(10, 1000))
def test_a_pause_is_in_the_upper_half_of_its_bound(failures: int, first_s: float, factor: float, max_s: float) -> None:
    retry = Retry(first_s=first_s, factor=factor, max_s=max_s)
    low, high = (retry.pause_s(failures, pick) for pick in (min, max))
    assert 0 <= low == high / 2 <= high <= max_s


def test_pauses_double_until_the_longest() -> None:
    retry = Retry(first_s=1, factor=2, max_s=5)
    assert [retry.pause_s(failures, max) for failures in (1, 2, 3, 4, 1000)] == [1, 2, 4, 5, 5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": ATTEMPTS_MAX + 1},
        {"first_s": -1},
        {"first_s": 2, "max_s": 1},
        {"factor": 0.5},
        {"first_s": math.nan},
        {"factor": math.nan},
        {"max_s": math.nan},
        {"max_s": math.inf},
        {"factor": math.inf},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="Retry"):
        Retry(**wrong)


def test_an_error_is_described_in_one_bounded_line() -> None:
    assert describe(ValueError("a\n  b")) == "ValueError: a b"
    assert describe(KeyError()) == "KeyError"
    assert len(describe(ValueError("x" * 1000), characters_max=50)) == 50
