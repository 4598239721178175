"""docs/http.md is complete: every path, problem, header and bound of the door is in it, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path

from journeyman.doors import serving
from journeyman.doors.http import log
from journeyman.doors.http.openapi import describe
from journeyman.doors.web import bodies, problems, protocol, query_strings, streams, wrong_fields
from journeyman.message import BODY_BYTES_MAX
from tests.doors.http.shop import make_app

DOCS = (Path(__file__).parents[3] / "docs" / "http.md").read_text()


def test_every_path_is_in_it() -> None:
    paths = {
        method.upper() + " " + re.sub(r"^/(commands|queries)/.+", r"/\1/{feature}/{name}", path)
        for path, operations in describe(make_app().catalog)["paths"].items()
        for method in operations
    }
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)` \|", DOCS, re.MULTILINE)) == paths


def test_every_problem_is_in_it() -> None:
    told = {(int(status), name) for status, name in re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", DOCS, re.MULTILINE)}
    assert told == {(kind.status, kind.name) for kind in problems.KINDS}


def test_every_header_is_in_it() -> None:
    source = "\n".join(path.read_text() for path in Path(log.__file__).parent.parent.rglob("*.py"))
    own = set(re.findall(r"journeyman-(?:at-least|position|age|[a-z-]+)(?=\")", source.lower()))
    for header in {*own, "idempotency-key", "last-event-id", "retry-after"}:
        assert f"`{header}" in DOCS.lower(), header


def test_every_bound_is_in_it() -> None:
    bounds = [
        BODY_BYTES_MAX,
        bodies.DEPTH_MAX,
        int(bodies.BODY_S_MAX),
        protocol.HEAD_BYTES_MAX,
        int(protocol.HEAD_S_MAX),
        query_strings.VALUES_MAX,
        wrong_fields.ERRORS_MAX,
        log.ANSWER_BYTES_MAX,
        streams.STREAMS_MAX,
        serving.CONNECTIONS_MAX,
        serving.UNREAD_S_MAX,
        serving.GRACE_S,
    ]
    table = DOCS.partition("## Bounds")[2].partition("## Browsers")[0]
    assert [
        int(number.replace(",", "")) for number in re.findall(r"\| ([\d,]+)(?: bytes| s)? \|$", table, re.M)
    ] == bounds


def test_its_example_is_a_program() -> None:
    [example] = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    compile(example, "docs/http.md", "exec")
