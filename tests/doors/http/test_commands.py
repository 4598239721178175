"""A command that comes in is recorded durably, or refused with the whole reason; nothing else comes in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from journeyman.doors.web.bodies import DEPTH_MAX
from journeyman.message import BODY_BYTES_MAX
from tests.doors.http.shop import JSON, make_app, place, problem, raw, shop

GOOD: dict[str, Any] = {"order_id": "a", "number": 1}


async def test_a_command_is_recorded_under_the_actor_local() -> None:
    async with shop() as client:
        response = await place(client, GOOD)
        entry = (await client.get("/log")).json()[0]

    assert response.status_code == 201
    assert response.json() == {"position": 1, "message_id": entry["id"]}
    assert (entry["name"], entry["actor"]) == ("shop/place", "local")


async def test_the_same_key_and_command_are_recorded_once_and_answered_alike() -> None:
    async with shop() as client:
        first = await place(client, GOOD, idempotency_key="k")
        again = await place(client, GOOD, idempotency_key="k")
        other = await place(client, GOOD | {"number": 2}, idempotency_key="k")
        log = (await client.get("/log")).json()

    assert (first.status_code, again.status_code) == (201, 201)
    assert [response.headers.get("idempotent-replayed") for response in (first, again)] == [None, "true"]
    assert first.json() == again.json()
    problem(other, 409, "key-reused")
    assert len(log) == 1


async def test_64_at_once_are_all_recorded_each_at_a_position_of_its_own() -> None:
    async with shop() as client:
        responses = await asyncio.gather(*(place(client, {"order_id": str(n), "number": n}) for n in range(64)))

    assert {response.status_code for response in responses} == {201}
    assert sorted(response.json()["position"] for response in responses) == list(range(1, 65))


async def test_the_same_key_at_once_is_recorded_once() -> None:
    async with shop() as client:
        responses = await asyncio.gather(*(place(client, GOOD, idempotency_key="k") for _ in range(16)))

    assert {response.status_code for response in responses} == {201}
    assert sum("idempotent-replayed" in response.headers for response in responses) == 15
    assert len({response.text for response in responses}) == 1


async def test_a_refusal_tells_the_position_it_was_judged_at() -> None:
    async with shop() as client:
        await place(client, GOOD)
        document = problem(await place(client, GOOD), 409, "rejected")

    assert document["detail"] == "There is an order a already."
    assert document["position"] == 1


async def test_every_wrong_field_is_named_with_a_pointer_and_a_sentence() -> None:
    wrong = {
        "order_id": "",
        "note": "x" * 21,
        "kind": "loan",
        "due": 7,
        "lines": [{"article": "pen", "price": 0}, {"colour": "red"}, 3],
        "a/b~c": 1,
    }
    async with shop() as client:
        document = problem(await place(client, wrong), 422, "invalid")

    assert {error["pointer"]: error["detail"] for error in document["errors"]} == {
        "/order_id": "It must have at least 1 character.",
        "/number": "This field is missing.",
        "/note": "It may have at most 20 characters.",
        "/kind": 'It must be one of "gift", "own".',
        "/due": "It must be a text.",
        "/lines/0/price": "It must be more than 0.",
        "/lines/1/article": "This field is missing.",
        "/lines/1/colour": "There is no such field.",
        "/lines/2": "It must be an object.",
        "/a~1b~0c": "There is no such field.",
    }


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        (GOOD | {"number": "7"}, "/number", "whole number"),
        (GOOD | {"number": 1001}, "/number", "at most 1000"),
        (GOOD | {"number": True}, "/number", "whole number"),
        (GOOD | {"number": None}, "/number", "whole number"),
        (GOOD | {"due": "tomorrow"}, "/due", "RFC3339"),  # Only msgspec knows: no schema says it.
        (GOOD | {"extra": {"a": 1}, "lines": [{"article": "x", "price": "1"}]}, "/lines/0/price", "number"),
        ([], "", "an object"),
        (7, "", "an object"),
        (b"null", "", "an object"),
        (b'{"order_id": "a", "number": 1, "extra": {"x": 1e999}}', "/extra", "out of range"),
    ],
)
async def test_a_wrong_value_is_a_422(body: Any, pointer: str, words: str) -> None:
    async with shop() as client:
        document = problem(await place(client, body), 422, "invalid")

    [error] = document["errors"]
    assert error["pointer"] == pointer
    assert words in error["detail"]


async def test_a_body_with_a_thousand_wrong_fields_gets_a_bounded_answer() -> None:
    async with shop() as client:
        response = await place(client, {"x" * 300 + str(n): n for n in range(1000)})

    assert len(problem(response, 422, "invalid")["errors"]) == 100
    assert len(response.content) < 30_000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b"{'order_id': 1}", "double quotes"),
        (b'{"order_id": "a", "number": 1} x', "Extra data"),
        (b'{"order_id": "a", "order_id": "b", "number": 1}', '"order_id" comes twice'),
        (b'{"order_id": "a", "number": 1, "extra": {"x": [{"y": 1, "y": 1}]}}', '"y" comes twice'),
        (b'{"order_id": "a", "\\u006frder_id": "b", "number": 1}', '"order_id" comes twice'),
        (b'{"order_id": "a", "number": NaN}', "NaN"),
        (b'{"order_id": "a", "number": 1, "extra": {"x": -Infinity}}', "-Infinity"),
        (b'{"order_id": "a", "number": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"order_id": "\xff", "number": 1}', "Byte 14 is not UTF-8"),
        (b'{"order_id": "\xed\xa0\x80", "number": 1}', "is not UTF-8"),
        (b'{"order_id": "\\ud800", "number": 1}', "surrogate"),
        (b'\xef\xbb\xbf{"order_id": "a", "number": 1}', "line 1, column 1"),
        ('{"order_id": "a", "number": 1}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "nested more than"),
        (b'{"order_id": "a", "number": 1, "extra": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "nested more than"),
        (b'{"order_id": "' + b'\\"' * 100_000, "Unterminated string"),
    ],
)
async def test_what_is_not_json_that_all_read_alike_is_a_400(body: bytes, words: str) -> None:
    async with shop() as client:
        document = problem(await place(client, body), 400, "not-json")
        assert (await client.get("/log")).json() == []

    assert words in document["detail"]


async def test_brackets_in_strings_are_no_depth_and_the_deepest_nesting_can_be_recorded() -> None:
    text = '\\"[' * 500
    deep = "[" * (DEPTH_MAX - 2) + "]" * (DEPTH_MAX - 2)
    body = f'{{"order_id": "a", "number": 1, "extra": {{"text": "{text}", "deep": {deep}}}}}'
    async with shop() as client:
        response = await place(client, body.encode())

    assert response.status_code == 201, response.text


async def test_a_body_of_the_greatest_size_can_be_recorded_and_one_byte_more_is_a_413() -> None:
    def body(size: int) -> bytes:
        start, end = b'{"order_id":"a","number":1,"kind":"own","extra":{"text":"', b'"}}'
        return start + b"x" * (size - len(start) - len(end)) + end

    async with shop() as client:
        problem(await place(client, body(BODY_BYTES_MAX + 1)), 413, "too-large")
        # What is recorded has the defaults, too: it is over the limit though the body was not.
        problem(await place(client, body(BODY_BYTES_MAX)), 413, "too-large")
        response = await place(client, body(BODY_BYTES_MAX - 100))

    assert response.status_code == 201, response.text


async def test_a_body_without_a_length_is_refused_once_it_is_too_large() -> None:
    async with shop() as client:

        async def endless() -> Any:
            for _ in range(40):
                yield b"x" * 65536

        response = await client.post("/commands/shop/place", content=endless(), headers=JSON)
        problem(response, 413, "too-large")
        assert (await place(client, GOOD)).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/jsonx"},
        {"content-type": "text/plain; application/json"},
        JSON | {"content-encoding": "gzip"},
    ],
)
async def test_a_body_that_is_not_said_to_be_json_is_a_415(headers: dict[str, str]) -> None:
    async with shop() as client:
        response = await client.post("/commands/shop/place", content=b'{"order_id":"a","number":1}', headers=headers)

    problem(response, 415, "not-json-type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
async def test_json_may_name_its_character_set(content_type: str) -> None:
    async with shop() as client:
        response = await place(client, GOOD, content_type=content_type)

    assert response.status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 501])
async def test_a_key_of_no_use_is_a_400(key: str) -> None:
    async with shop() as client:
        problem(await place(client, GOOD, idempotency_key=key), 400, "bad-header")


async def test_a_header_that_comes_twice_is_a_400() -> None:
    async with shop() as client:
        headers = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")]
        response = await client.post("/commands/shop/place", json=GOOD, headers=headers)

    problem(response, 400, "bad-header")


async def test_code_that_breaks_is_a_500_that_tells_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async with shop() as client:
        problem(await place(client, GOOD | {"number": 666}), 500, "application-failed")
        assert (await client.get("/log")).json() == []

    assert "hunter2" in caplog.text


async def test_an_unknown_command_is_a_404_that_names_the_known_ones() -> None:
    async with shop() as client:
        document = problem(await client.post("/commands/shop/palce", json=GOOD), 404, "unknown-name")

    assert "shop/place" in document["detail"]
    assert "journeyman/retry-job" in document["detail"]
    assert "journeyman/job-started" not in document["detail"]


async def test_only_what_is_an_operators_to_say_comes_in_of_the_frameworks_own_messages() -> None:
    app = make_app()
    operators = {"retry-job", "discard-job", "pause-worker", "resume-worker"}
    internal = {name.removeprefix("journeyman/") for name in app.catalog.commands if name.startswith("journeyman/")}
    async with shop(app) as client:
        statuses = {name: (await client.post(f"/commands/journeyman/{name}", json={})).status_code for name in internal}
        retry = await client.post("/commands/journeyman/retry-job", json={"worker": "none", "job": "none"})

    assert {name for name, status in statuses.items() if status != 404} == operators
    problem(retry, 409, "rejected")
    assert len(internal) > len(operators)


async def test_a_command_without_fields_needs_an_empty_object() -> None:
    async with shop() as client:
        problem(await client.post("/commands/shop/touch", headers=JSON), 400, "not-json")
        assert (await client.post("/commands/shop/touch", json={})).status_code == 201


async def test_a_body_that_does_not_arrive_in_time_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.doors.web.bodies.BODY_S_MAX", 0.05)
    head = b"POST /commands/shop/touch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with shop() as client:
        answer = await raw(str(client.base_url), head + b"Connection: close\r\nContent-Length: 2\r\n\r\n{")
        assert (await client.get("/log")).json() == []

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body-timeout" in answer
