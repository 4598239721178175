"""The door keeps to its own description: what that allows, and what it forbids, is answered as it says."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from journeyman import App
from journeyman.doors.serving import serving
from journeyman.examples.blog.posts import posts
from tests.doors.http.shop import make_app

#: What is tried, the same each time; another seed by the environment.
SEED = int(os.environ.get("JOURNEYMAN_SCHEMA_SEED", "20261125"))

#: How many requests are made for each operation, of those that the description allows and of those that it forbids.
EXAMPLES = 5

CHECKS: list[Any] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@contextmanager
def served(app: App) -> Iterator[str]:
    """The application, served by a loop in a thread of its own: schemathesis waits for its answers."""
    told: list[str] = []
    begun, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with app.running("memory:"), serving(app, port=0) as url:
            told.append(url)
            begun.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server", daemon=True)
    thread.start()
    try:
        assert begun.wait(30)
        yield told[0]
    finally:
        over.set()
        thread.join(30)


@pytest.mark.parametrize("make", [make_app, lambda: App(features=[posts])], ids=["shop", "blog"])
def test_every_answer_is_as_the_description_says(make: Callable[[], App], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    # schemathesis 4.24 asks of jsonschema-rs what 0.61 has no more; None sends it on the way that it has beside that.
    monkeypatch.setattr("schemathesis.specs.openapi._hypothesis._canonical_strategy_or_none", lambda *_: None)
    statuses: Counter[int] = Counter()
    with served(make()) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        some = schema.exclude(path=["/log/stream", "/queries/shop/break"])  # One has no end, and one is made to break.
        operations = [result.ok() for result in some.get_all_operations() if isinstance(result, Ok)]
        for operation in operations:
            for mode, checks in (
                (GenerationMode.POSITIVE, CHECKS),
                (GenerationMode.NEGATIVE, [*CHECKS, negative_data_rejection]),
            ):
                try_out(operation, mode, checks, statuses)
    told = f"seed {SEED}: {statuses.total()} requests to {len(operations)} operations, {dict(sorted(statuses.items()))}"
    print(told)  # noqa: T201  # pytest shows it where something fails
    assert statuses.total() > 100
    assert statuses[201] > 0
    assert statuses[422] > 0


def try_out(operation: Any, mode: GenerationMode, checks: list[Any], statuses: Counter[int]) -> None:
    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        # A position that is far ahead is waited for, 5 s each: test_queries does it once.
        case.headers.pop("Journeyman-At-Least", None)
        response = case.call(timeout=30)
        statuses[response.status_code] += 1
        assert response.status_code < 500, f"{case.as_curl_command()}: {response.status_code} {response.text}"
        case.validate_response(response, checks=checks)

    with suppress(Unsatisfiable):  # Nothing is forbidden where nothing is asked.
        each()
