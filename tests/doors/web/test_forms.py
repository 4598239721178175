"""A form becomes the command that it means, or is told every field that is wrong, and nothing typed is lost."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import pytest
from litestar import Request
from msgspec import Meta, Struct, field

from journeyman import Command
from journeyman.doors.web.forms import FORM_BYTES_MAX, VALUES_MAX, Form, WrongForm, read_form
from journeyman.doors.web.problems import Refused


class Line(Struct, frozen=True):
    article: str
    price: Annotated[float, Meta(gt=0)] = 1.0


class Order(Command):
    order_id: Annotated[str, Meta(min_length=1, max_length=10)]
    number: Annotated[int, Meta(ge=0, le=1000)]
    note: Annotated[str, Meta(max_length=20)] | None = None
    kind: Literal["gift", "own"] = "own"
    size: Literal[1, 2] = 1
    price: float = 1.0
    gift: bool = False
    by_post: bool = True
    due: datetime | None = None
    tags: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    line: Line | None = None
    lines: tuple[Line, ...] = ()
    remark: str = "none"
    extra: dict[str, Any] = field(default_factory=dict)


def request(body: bytes, content_type: str = "application/x-www-form-urlencoded", **headers: str) -> Any:
    named = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: Any = {
        "type": "http",
        "method": "POST",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(scope, receive)


def sent(*pairs: tuple[str, str]) -> Form:
    return asyncio.run(read_form(request(urlencode(pairs).encode())))


def wrong(form: Form) -> Form:
    with pytest.raises(WrongForm) as told:
        form.read(Order)
    assert told.value.status == 422
    return told.value.form


def test_texts_become_the_values_of_the_fields() -> None:
    form = sent(
        ("order_id", "007"),
        ("number", "12"),
        ("note", "2 × é"),
        ("kind", "gift"),
        ("size", "2"),
        ("price", "2.5"),
        ("gift", "true"),
        ("due", "2026-01-02T03:04:05Z"),
        ("tags", "1"),
        ("tags", "true"),
        ("numbers", "1"),
        ("numbers", "2"),
        ("line", '{"article": "a", "price": 2}'),
        ("lines", '[{"article": "b"}]'),
        ("remark", ""),
        ("extra", '{"a": [1]}'),
    )
    order = form.read(Order)

    assert order == Order(
        order_id="007",
        number=12,
        note="2 × é",
        kind="gift",
        size=2,
        price=2.5,
        gift=True,
        by_post=False,
        due=datetime.fromisoformat("2026-01-02T03:04:05+00:00"),
        tags=("1", "true"),
        numbers=(1, 2),
        line=Line("a", 2.0),
        lines=(Line("b"),),
        remark="",
        extra={"a": [1]},
    )


def test_fields_left_empty_are_not_given_and_a_box_without_a_tick_is_false() -> None:
    empty = [(name, "") for name in ("note", "size", "price", "due", "line", "lines", "extra")]
    order = sent(("order_id", "1"), ("number", "0"), *empty).read(Order)

    assert order == Order(order_id="1", number=0, gift=False, by_post=False)


def test_every_wrong_field_has_a_sentence_and_the_first_of_the_form_comes_first() -> None:
    form = wrong(
        sent(
            ("note", "n" * 21),
            ("number", "1001"),
            ("order_id", ""),
            ("kind", "third"),
            ("price", "dear"),
            ("gift", "maybe"),
            ("numbers", "1"),
            ("numbers", "two"),
            ("line", '{"price": 0}'),
            ("lines", "[{]"),
            ("unknown", "x"),
        )
    )

    assert form.errors == {
        "note": "It may have at most 20 characters.",
        "number": "It must be at most 1000.",
        "order_id": "It must have at least 1 character.",
        "kind": 'It must be one of "gift", "own".',
        "price": "It must be a number.",
        "gift": "It must be true or false.",
        "numbers": "It must be a whole number.",
        "line": form.errors["line"],
        "lines": "It must be an array.",
        "unknown": "There is no such field.",
    }
    assert form.first_wrong == "note"
    assert form.problem == "10 fields are wrong."
    assert form.text("note") == "n" * 21


def test_a_wrong_date_is_told_too() -> None:
    form = wrong(sent(("order_id", "1"), ("number", "x"), ("due", "tomorrow")))
    assert "It must be a whole number." in form.errors["number"]
    assert "Invalid RFC3339" in wrong(sent(("order_id", "1"), ("number", "1"), ("due", "tomorrow"))).errors["due"]


def test_missing_fields_are_told_behind_those_that_are_there() -> None:
    form = wrong(sent(("number", "-1")))
    assert list(form.errors.items()) == [("number", "It must be at least 0."), ("order_id", "This field is missing.")]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "0x10", "1_000", "١", "true", "[1]", "null", "1.5"])
def test_a_number_is_what_json_calls_one(text: str) -> None:
    assert set(wrong(sent(("order_id", "1"), ("number", text))).errors) == {"number"}


def test_the_key_stays_with_the_form_and_its_own_fields_are_not_the_commands() -> None:
    form = sent(("order_id", ""), ("number", "1"), ("_key", "k1"), ("_csrf", "c"))
    assert form.key == "k1"
    assert wrong(form).key == "k1"
    assert set(wrong(form).errors) == {"order_id"}
    assert sent(("a", "b")).key != sent(("a", "b")).key
    assert len(sent(("_key", "k" * 501)).key) == 36
    assert len(sent(("_key", "")).key) == 36


def test_lines_end_as_they_do_everywhere_else() -> None:
    assert sent(("remark", "a\r\nb\rc\n")).text("remark") == "a\nb\rc\n"


def test_what_is_given_stands_above_what_is_sent() -> None:
    order = sent(("order_id", "theirs"), ("number", "1")).read(Order, order_id="ours")
    assert order.order_id == "ours"


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (request(b"a=b", "text/plain"), 415),
        (request(b"{}", "application/json"), 415),
        (request(b"a=b", "multipart/form-data; boundary=x"), 415),
        (request(b"a=b", "application/x-www-form-urlencoded; charset=latin-1"), 415),
        (request(b"a=b", content_encoding="gzip"), 415),
        (request(b"a=%ff"), 400),
        (request("a=ä".encode()), 400),
        (request(b"&".join([b"a=b"] * (VALUES_MAX + 1))), 400),
        (request(b"a=b", content_length=str(FORM_BYTES_MAX + 1)), 413),
        (request(b"a=" + b"b" * FORM_BYTES_MAX), 413),
    ],
    ids=["text", "json", "multipart", "charset", "gzip", "bytes", "raw", "many", "said to be large", "large"],
)
def test_what_is_no_form_within_the_bounds_is_refused(problem: Any, status: int) -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(read_form(problem))
    assert refused.value.problem.status == status


def test_a_large_form_is_read_like_a_small_one() -> None:
    text = "Длинный текст. " * 10_000
    assert sent(("remark", text), ("order_id", "é")).text("remark") == text
    with pytest.raises(Refused):
        asyncio.run(read_form(request(b"a=%ff" + b"b" * 100_000)))


def test_a_form_in_utf8_is_taken_however_that_is_written() -> None:
    for charset in ("", "; charset=utf-8", ';charset="UTF-8"'):
        body = request(b"a=%C3%A4&a=+&b", f"Application/X-WWW-Form-Urlencoded{charset}")
        form = asyncio.run(read_form(body))
        assert form.values == {"a": ("ä", " "), "b": ("",)}
