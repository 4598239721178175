"""A query answers from what is settled, and says how new that is; its fields come from the query string by type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from journeyman.doors.serving import serving
from tests.doors.http.shop import client_of, make_app, place, problem, shop

DEFAULTS: dict[str, Any] = {
    "page": 1,
    "tags": [],
    "numbers": [],
    "open": None,
    "status": None,
    "state": "",
    "line": None,
}


@pytest.mark.parametrize(
    ("query_string", "answer"),
    [
        ("", {}),
        ("page=3", {"page": 3}),
        ("tags=a&tags=b%20c&tags=", {"tags": ["a", "b c", ""]}),
        ("tags=a", {"tags": ["a"]}),
        ("numbers=1&numbers=-2", {"numbers": [1, -2]}),
        ("open=true", {"open": True}),
        ("open=0", {"open": False}),
        ("status=new&state=%7E%26+%C3%BC", {"status": "new", "state": "~& ü"}),
        ("state=", {"state": ""}),
        ("state=7", {"state": "7"}),
        ("line=%7B%22article%22%3A%22pen%22%7D", {"line": {"article": "pen", "price": 1.0}}),
    ],
)
async def test_fields_are_converted_by_their_types(query_string: str, answer: dict[str, Any]) -> None:
    async with shop() as client:
        response = await client.get(f"/queries/shop/echo?{query_string}")

    assert response.status_code == 200, response.text
    assert response.json() == DEFAULTS | answer


async def test_every_wrong_field_is_named() -> None:
    async with shop() as client:
        response = await client.get(
            "/queries/shop/echo?page=0&open=perhaps&status=old&numbers=1&numbers=x&line={&state=a&state=b&colour=red"
        )
    document = problem(response, 422, "invalid")

    assert {error["pointer"]: error["detail"] for error in document["errors"]} == {
        "/page": "Expected int >= 1.",
        "/open": "Expected bool | null, got str.",
        "/status": "Invalid enum value 'old'.",
        "/numbers": "Expected int, got str.",
        "/line": "It must be JSON, percent-encoded. Expecting property name enclosed in double quotes at line 1, "
        "column 2. Correct this and send it again.",
        "/state": "This field is given more than once.",
        "/colour": "There is no such field.",
    }


async def test_a_missing_field_is_named() -> None:
    async with shop() as client:
        document = problem(await client.get("/queries/shop/get"), 422, "invalid")

    assert document["errors"] == [{"pointer": "/order_id", "detail": "This field is missing."}]


@pytest.mark.parametrize("query_string", ["state=%FF", "state=%ED%A0%80", "&".join(["tags=a"] * 1001)])
async def test_a_malformed_query_string_is_a_400(query_string: str) -> None:
    async with shop() as client:
        problem(await client.get(f"/queries/shop/echo?{query_string}"), 400, "bad-query-string")


async def test_what_is_not_there_is_a_404() -> None:
    async with shop() as client:
        missing = problem(await client.get("/queries/shop/get?order_id=x"), 404, "not-found")
        unknown = problem(await client.get("/queries/shop/gte"), 404, "unknown-name")

    assert missing["detail"] == "There is no order x."
    assert "shop/get" in unknown["detail"]


async def test_a_query_that_breaks_is_a_500_that_tells_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async with shop() as client:
        problem(await client.get("/queries/shop/break"), 500, "internal-error")

    assert "hunter2" in caplog.text


async def test_an_answer_says_the_position_up_to_which_it_holds_all() -> None:
    async with shop() as client:
        await place(client, {"order_id": "a", "number": 1})
        response = await client.get("/queries/shop/get?order_id=a")

    assert response.json() == {"order_id": "a", "number": 1}
    assert response.headers["journeyman-position"] == "1"
    assert "journeyman-age" not in response.headers


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "1e3", "9" * 20, str(2**63), "१"])
async def test_at_least_must_be_a_position(value: str) -> None:
    async with shop() as client:
        response = await client.get("/queries/shop/echo", headers=[(b"journeyman-at-least", value.encode())])

    problem(response, 400, "bad-header")


async def test_a_position_that_is_not_reached_in_time_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.doors.http.queries.AT_LEAST_S", 0.05)
    async with shop() as client:
        response = await client.get("/queries/shop/echo", headers={"journeyman-at-least": "7"})

    assert "position 0, not 7" in problem(response, 503, "busy")["detail"]
    assert response.headers["retry-after"] == "1"


async def test_one_process_sees_what_another_wrote_once_it_asks_for_its_position(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    reader = make_app()
    async with (
        shop(store=url) as writer,
        reader.running(url, workers=False),
        serving(reader, port=0) as reader_url,
        client_of(reader_url) as other,
    ):
        for number in range(10):
            position = (await place(writer, {"order_id": str(number), "number": number})).json()["position"]
            response = await other.get(
                f"/queries/shop/get?order_id={number}", headers={"journeyman-at-least": str(position)}
            )
            assert response.status_code == 200, response.text
            assert int(response.headers["journeyman-position"]) >= position
