"""What hostile clients send, byte by byte, each with the one answer that it must have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from journeyman.doors.web.bodies import DEPTH_MAX
from journeyman.doors.web.protocol import HEAD_BYTES_MAX
from journeyman.message import BODY_BYTES_MAX

PLACE = "/commands/shop/place"
TOUCH = "/commands/shop/touch"


class Case(NamedTuple):
    """What is sent, and what must come back: a status, and the kind of the problem; empty for an answer without one.

    `status` 0: nothing, the connection is closed. `recorded` messages stand in the log then.
    """

    name: str
    data: bytes
    status: int
    kind: str = ""
    recorded: int = 0


def request(
    target: str | bytes = "/log",
    body: bytes = b"",
    *,
    method: str | bytes = "GET",
    headers: Mapping[str, str | bytes] | None = None,
    host: str | bytes | None = "localhost",
    raw: bytes = b"",
    length: bool = True,
) -> bytes:
    """A request as it goes over the wire. `raw` are further header lines, as they are."""
    lines = [b" ".join([_bytes(method), _bytes(target), b"HTTP/1.1"])]
    given: dict[str, str | bytes | None] = {"Host": host, "Connection": "close", **(headers or {})}
    if body and length:
        given["Content-Length"] = str(len(body))
    lines += [f"{name}: ".encode() + _bytes(value) for name, value in given.items() if value is not None]
    return b"\r\n".join(lines) + b"\r\n" + raw + b"\r\n" + body


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def post(
    body: bytes, target: str = PLACE, *, raw: bytes = b"", length: bool = True, **headers: str | bytes | None
) -> bytes:
    """A command. Its headers by keyword, with _ for -; None leaves one out."""
    given = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in given.items() if value is not None}
    return request(target, body, method="POST", headers=kept, raw=raw, length=length)


def order(**fields: object) -> bytes:
    return json.dumps({"order_id": "a", "number": 1, **fields}).encode()


def order_with(text: bytes) -> bytes:
    """A command with this where a text of the client's stands."""
    return b'{"order_id":"a","number":1,"note":' + text + b"}"


def bodies() -> Iterable[Case]:
    """JSON that is none, that means several things, or that is made to break its reader."""
    for name in ("NaN", "Infinity", "-Infinity", "nan", "1e999", "-1e999"):
        yield Case(f"number {name}", post(b'{"order_id":"a","number":%s}' % name.encode()), *_number(name))
        yield Case(
            f"{name} deep inside",
            post(b'{"order_id":"a","number":1,"extra":{"a":[%s]}}' % name.encode()),
            *_number(name),
        )
    yield Case("a key twice", post(b'{"order_id":"a","number":1,"number":2}'), 400, "not-json")
    yield Case("a key twice, once escaped", post(b'{"order_id":"a","number":1,"n\\u0075mber":2}'), 400, "not-json")
    yield Case(
        "a key twice, deep inside", post(b'{"order_id":"a","number":1,"extra":{"x":{"y":1,"y":2}}}'), 400, "not-json"
    )
    for count in (DEPTH_MAX + 1, 5_000, 200_000):
        yield Case(f"{count} arrays in each other", post(b"[" * count + b"]" * count), 400, "not-json")
        yield Case(f"{count} arrays without end", post(b'{"order_id":' + b"[" * count), 400, "not-json")
    yield Case("5000 objects in each other", post(b'{"a":' * 5_000 + b"1" + b"}" * 5_000), 400, "not-json")
    yield Case("a whole number of 5000 digits", post(b'{"order_id":"a","number":%s}' % (b"9" * 5_000)), 400, "not-json")
    yield Case("a whole number beyond 64 bits", post(b'{"order_id":"a","number":18446744073709551616}'), 422, "invalid")
    yield Case(
        "a number with 100,000 digits behind the point",
        post(b'{"order_id":"a","number":0.%s}' % (b"1" * 100_000)),
        422,
        "invalid",
    )
    yield Case("minus zero", post(b'{"order_id":"a","number":-0}'), 201, recorded=1)
    for name, text in {
        "half a surrogate pair": b'"\\ud800"',
        "the other half": b'"\\udc00"',
        "halves in the wrong order": b'"\\udc00\\ud800"',
        "half a pair in bytes": b'"\xed\xa0\x80"',
        "an overlong slash": b'"\xc0\xaf"',
        "a byte beyond UTF-8": b'"\xff"',
        "a character that breaks off": b'"\xe2\x82"',
        "beyond Unicode": b'"\xf4\x90\x80\x80"',
        "a raw NUL": b'"\x00"',
        "a raw line break": b'"\n"',
        "a wrong escape": b'"\\x41"',
        "an open string": b'"',
    }.items():
        yield Case(name, post(order_with(text)), 400, "not-json")
    yield Case("a NUL in a subject", post(order(order_id="a\0b")), 422, "invalid")
    yield Case("a NUL in a text", post(order(note="a\0b")), 201, recorded=1)
    yield Case("a byte order mark", post(b"\xef\xbb\xbf" + order()), 400, "not-json")
    yield Case("UTF-16", post(order().decode().encode("utf-16")), 400, "not-json")
    for name, body in {
        "nothing": b"",
        "white space": b"   ",
        "half of it": order()[:-3],
        "more behind it": order() + b"{}",
        "single quotes": b"{'order_id':'a'}",
        "a comment": b'{"order_id":"a",/* */"number":1}',
        "a last comma": b'{"order_id":"a","number":1,}',
        "XML": b"<order/>",
        "a form": b"order_id=a&number=1",
    }.items():
        yield Case(name, post(body, raw=b"" if body else b"Content-Length: 0\r\n"), 400, "not-json")
    for name, body in {"an array": b"[]", "null": b"null", "a text": b'"a"', "true": b"true"}.items():
        yield Case(name, post(body), 422, "invalid")
    wrong: dict[str, dict[str, object]] = {
        "a text for a number": {"number": "1"},
        "a fraction for a whole number": {"number": 1.5},
        "true for a number": {"number": True},
        "an unknown field": {"__proto__": {"a": 1}},
        "an envelope's field": {"actor": "operator:anna"},
        "a date of the year 0": {"due": "0000-00-00T00:00:00Z"},
        "an object for a text": {"note": {"$ne": None}},
        "a thousand lines that are wrong": {"lines": [{}] * 1000},
    }
    for name, fields in wrong.items():
        yield Case(name, post(order(**fields)), 422, "invalid")
    yield Case("a body at its limit", post(order(extra={"x": "a" * (BODY_BYTES_MAX - 200)})), 201, recorded=1)
    yield Case("a body beyond its limit", post(b" " * (BODY_BYTES_MAX + 1)), 413, "too-large")
    growing = order(extra={"x": "\x01" * (BODY_BYTES_MAX // 6 - 20)}).replace(b"\\u0001", b"\\b")
    yield Case("a body that would be recorded larger", post(growing), 201, recorded=1)


def _number(name: str) -> tuple[int, str]:
    """JSON knows it, and has no bound for it; or it doesn't."""
    return (422, "invalid") if "e" in name else (400, "not-json")


def types() -> Iterable[Case]:
    """Bodies that do not say that they are JSON, or that are packed."""
    for name in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/jsonx",
        "application/json;charset=utf-16",
        "application/json;charset=utf-8;charset=utf-7",
        "application/json, text/plain",
        "text/plain; application/json",
        "application/problem+json",
        "*/*",
        "",
    ):
        yield Case(f"type {name!r}", post(order(), content_type=name), 415, "not-json-type")
    yield Case("no type", post(order(), content_type=None), 415, "not-json-type")
    yield Case("two types", post(order(), raw=b"Content-Type: text/plain\r\n"), 400, "bad-header")
    for name in ("gzip", "deflate", "br", "zstd", "identity, gzip", "x"):
        yield Case(f"packed by {name}", post(order(), content_encoding=name), 415, "not-json-type")
    yield Case("a bomb", post(b"\x1f\x8b" + b"\0" * 1000, content_encoding="gzip"), 415, "not-json-type")
    yield Case(
        "a type with spaces and capitals",
        post(order(), content_type="Application/JSON ; charset=UTF-8"),
        201,
        recorded=1,
    )


def framing() -> Iterable[Case]:
    """Requests whose end is told in two ways, or in none: what a proxy and a server could read differently."""
    chunked = b"Transfer-Encoding: chunked\r\n"
    whole = b"2\r\n{}\r\n0\r\n\r\n"

    def touch(raw: bytes, body: bytes) -> bytes:
        return post(body, TOUCH, raw=raw, length=False)

    for name, raw, body in (
        ("a length and chunks", b"Content-Length: 2\r\n" + chunked, whole),
        ("chunks and a length", chunked + b"Content-Length: 2\r\n", whole),
        ("two lengths", b"Content-Length: 2\r\nContent-Length: 12\r\n", b"{}"),
        ("one length twice", b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"),
        ("two lengths in one", b"Content-Length: 2, 12\r\n", b"{}"),
        ("a length below zero", b"Content-Length: -1\r\n", b"{}"),
        ("a length with a sign", b"Content-Length: +2\r\n", b"{}"),
        ("a length in hex", b"Content-Length: 0x2\r\n", b"{}"),
        ("a length with a space inside", b"Content-Length: 1 0\r\n", b"{}"),
        ("a length of 40 digits", b"Content-Length: " + b"9" * 40 + b"\r\n", b"{}"),
        ("an empty length", b"Content-Length:\r\n", b"{}"),
        ("a space before the colon", b"Transfer-Encoding : chunked\r\n", whole),
        ("a tab before the colon", b"Content-Length\t: 2\r\n", b"{}"),
        ("unknown transfer coding", b"Transfer-Encoding: xchunked\r\n", whole),
        ("chunked, and not last", b"Transfer-Encoding: chunked, identity\r\n", whole),
        ("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", whole),
        ("a chunk size that is no number", chunked, b"zz\r\n{}\r\n0\r\n\r\n"),
        ("a chunk size below zero", chunked, b"-2\r\n{}\r\n0\r\n\r\n"),
        ("a chunk size of 20 digits", chunked, b"F" * 20 + b"\r\n{}\r\n0\r\n\r\n"),
        ("a chunk size with 0x", chunked, b"0x2\r\n{}\r\n0\r\n\r\n"),
        ("a chunk longer than said", chunked, b"1\r\n{}\r\n0\r\n\r\n"),
        ("a chunk size of nothing", chunked, b"\r\n{}\r\n0\r\n\r\n"),
        ("a line that goes on in the next", b"X-Folded: a\r\n b\r\n", b""),
        ("a header without a colon", b"nonsense\r\n", b""),
        ("a header without a name", b": a\r\n", b""),
        ("a space in a name", b"X Y: a\r\n", b""),
        ("a NUL in a name", b"X\0Y: a\r\n", b""),
        ("a NUL in a value", b"X: a\0b\r\n", b""),
        ("a bare CR in a value", b"X: a\rHost: evil.example\r\n", b""),
        ("a bare LF in a value", b"X: a\nbad\r\n", b""),
    ):
        yield Case(name, touch(raw, body), 400)
    yield Case("a chunk and a request behind it", touch(chunked, whole + request("/health/live")), 201, recorded=1)
    yield Case("chunks in order", touch(chunked, b"1\r\n{\r\n1;a=b\r\n}\r\n0\r\n\r\n"), 201, recorded=1)
    yield Case(
        "chunks beyond the limit", touch(chunked, b"100000\r\n" + b" " * 0x100000 + b"\r\n0\r\n\r\n"), 413, "too-large"
    )


def heads() -> Iterable[Case]:
    """Requests that are none, or too large before they begin."""
    for name, data in {
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/9.9": b"GET /log HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "no version": b"GET /log HTTP\r\nHost: localhost\r\n\r\n",
        "a tab for a space": b"GET\t/log\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a path with a space": b"GET /lo g HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a byte beyond ASCII in the path": b"GET /l\xffog HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "noise": bytes(range(256)),
        "NULs": b"\0" * 1000,
    }.items():
        yield Case(name, data, 400)
    yield Case("a path without end", b"GET /" + b"a" * HEAD_BYTES_MAX, 400)
    yield Case("a header without end", b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES_MAX, 400)
    yield Case("a method without end", b"A" * 100, 400)
    many = b"".join(b"X-%d: a\r\n" % number for number in range(8_000))[:HEAD_BYTES_MAX]
    yield Case("thousands of headers, without end", b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many, 400)
    few = b"".join(b"X-%d: a\r\n" % number for number in range(2_000))
    yield Case("thousands of headers", request(raw=few), 200)
    yield Case("no host", request(host=None), 400, "bad-header")
    yield Case("HTTP/0.9", b"GET /log\r\n\r\n", 400, "bad-header")
    yield Case("two spaces", request(b" /log "), 200)


def origins() -> Iterable[Case]:
    """Other sites, through somebody's browser."""
    for host in (
        "evil.example",
        "localhost.evil.example",
        "evil.example:80",
        "localhost.",
        "127.0.0.1.evil.example",
        "[::2]",
        "0.0.0.0",  # noqa: S104  # refused
        "2130706433",
        "0x7f.1",
        "localhost@evil.example",
        "evil.example#localhost",
        "",
    ):  # one list of names
        yield Case(f"host {host!r}", request(host=host), 421, "wrong-host")
        yield Case(f"command for host {host!r}", post(b"{}", TOUCH, Host=host), 421, "wrong-host")
    for name in ("localhost", "evil.example"):
        yield Case(f"two hosts, {name} last", request(raw=b"Host: " + name.encode() + b"\r\n"), 400, "bad-header")
    for origin in (
        "https://evil.example",
        "http://evil.example",
        "null",
        "",
        "http://localhost:1",
        "http://localhost.evil.example",
        "file://",
        "localhost",
        "http://localhost, http://evil.example",
        "chrome-extension://a",
    ):  # one list of origins
        yield Case(f"origin {origin!r}", post(b"{}", TOUCH, origin=origin), 403, "foreign-origin")
    yield Case(
        "two origins", post(b"{}", TOUCH, raw=b"Origin: http://localhost\r\nOrigin: http://a\r\n"), 400, "bad-header"
    )
    for site in ("cross-site", "same-site", "CROSS-SITE", "", "x"):
        yield Case(f"Sec-Fetch-Site {site!r}", post(b"{}", TOUCH, sec_fetch_site=site), 403, "foreign-origin")
    preflight = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    yield Case(
        "a browser's question before JSON",
        request(TOUCH, method="OPTIONS", headers=preflight),
        204,
    )
    yield Case("a proxy's request", request(headers={"X-Forwarded-For": "192.0.2.1"}), 403, "behind-proxy")
    yield Case(
        "our own page", post(b"{}", TOUCH, origin="http://localhost", sec_fetch_site="same-origin"), 201, recorded=1
    )


def paths() -> Iterable[Case]:
    """Paths that lead somewhere else once somebody has tidied them up."""
    for path in (
        "/..",
        "/../log",
        "/./log",
        "/%2e%2e/log",
        "/%2e%2e%2flog",
        "/log%00",
        "/%00",
        "/\\log",
        "/%5clog",
        "/log/..%2f..%2fetc/passwd",
        "/assets/../app.py",
        "/assets/%2e%2e%2fsite.py",
        "/assets/..%5csite.py",
        "/assets/site.css",
        "/log;a=b",
        "/LOG",
        "/log%0d%0aSet-Cookie:%20a=b",
        "/%ff",
        "/%c0%ae%c0%ae/log",
        "/%u002e",
        "/log%",
        "/log%zz",
        "/favicon.ico",
        "/.git/config",
        "/sign-in",
    ):
        yield Case(path, request(path), 404, "unknown-path")
    for path in (
        "/commands/shop/..%2f",
        "/commands/journeyman/job-started",
        "/commands/shop/nothing",
        "/commands/shop/place%00",
        "/commands/%2e%2e/log",
    ):
        yield Case(path, post(b"{}", path), 404, "unknown-name")
    yield Case("another server's URL", request("http://evil.example/log"), 200)
    yield Case("a path in place of a URL", request("evil.example/log"), 400)
    yield Case("a fragment", request("/log#x"), 200)
    for path in ("/log/", "//log", "///log", "/log//", "/log%2f", "/%6cog"):
        yield Case(f"{path}, which is /log", request(path), 200)
    for query in (
        "after=-1",
        "after=9223372036854775808",
        "after=1.5",
        "after=%00",
        "limit=0",
        "limit=100000",
        "after=1&after=2",
        "x=1",
        "after=",
        "after=%d9%a1",
    ):
        yield Case(f"/log?{query}", request(f"/log?{query}"), 422, "invalid")
    yield Case("a query string that is not UTF-8", request("/log?after=%ff"), 400, "bad-query-string")
    yield Case("5000 values", request("/queries/shop/echo?" + "&".join(["tags=a"] * 5_000)), 400, "bad-query-string")
    yield Case("a query string of brackets", request("/queries/shop/echo?line=" + "%5b" * 2_000), 422, "invalid")


def methods() -> Iterable[Case]:
    """Methods that nobody here takes."""
    for method in ("PUT", "DELETE", "PATCH"):
        yield Case(method, request(PLACE, method=method), 405, "method-not-allowed")
        yield Case(f"{method} /log", request(method=method), 403, "no-proof")
    for method in ("TRACE", "PROPFIND", "MOVE", "SEARCH", "PURGE", "LINK"):
        yield Case(method, request(PLACE, method=method), 405, "method-not-allowed")
    for method in ("get", "GETT", "", "G\xc4T", "A" * 50, "GET\0"):
        yield Case(f"method {method!r}", request(method=method), 400)
    yield Case("CONNECT", request("evil.example:443", method="CONNECT", host="evil.example:443"), 400)
    yield Case(
        "a method in a header", request(TOUCH, headers={"X-HTTP-Method-Override": "POST"}), 405, "method-not-allowed"
    )
    websocket = {
        "Connection": "Upgrade, close",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    yield Case("a websocket", request(headers=websocket), 200)


def headers() -> Iterable[Case]:
    """Headers that somebody put something into."""
    for position in ("-1", "1.0", "0x1", "٣".encode(), "1" * 30, "9223372036854775808", "a", "1, 2", "1\t2"):
        yield Case(
            f"at least {position!r}",
            request("/queries/shop/echo", headers={"Journeyman-At-Least": position}),
            400,
            "bad-header",
        )
        yield Case(
            f"last event {position!r}", request("/log/stream", headers={"Last-Event-ID": position}), 400, "bad-header"
        )
    yield Case("an empty key", post(b"{}", TOUCH, idempotency_key=""), 400, "bad-header")
    yield Case("a key of 501 characters", post(b"{}", TOUCH, idempotency_key="k" * 501), 400, "bad-header")
    yield Case("two keys", post(b"{}", TOUCH, raw=b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n"), 400, "bad-header")
    yield Case("a key of bytes beyond ASCII", post(b"{}", TOUCH, idempotency_key=b"\xe4\xff"), 201, recorded=1)
    yield Case("a cookie of 60,000 bytes", request(headers={"Cookie": "a" * 60_000}), 200)
    yield Case("10,000 cookies", request(headers={"Cookie": "a=b;" * 10_000}), 200)
    yield Case(
        "a cookie of bytes beyond ASCII", request(headers={"Cookie": b"\xff=\xfe; journeyman_session=\xfd"}), 200
    )
    yield Case("a token where none is asked for", request(headers={"Authorization": "Bearer x"}), 200)
    yield Case(
        "a hostile trace", post(b"{}", TOUCH, traceparent="00-" + "0" * 32 + "-" + "0" * 16 + "-01"), 201, recorded=1
    )
    yield Case("what should continue", post(b"{}", TOUCH, expect="100-continue"), 100, recorded=1)
    yield Case("a type that nobody has", request(headers={"Accept": "a/b;q=9," * 5_000}), 200)
    yield Case("a range", request(headers={"Range": "bytes=" + ",".join(["0-"] * 5_000)}), 200)


def forms() -> Iterable[Case]:
    """Forms, as another site would send them."""
    form = "application/x-www-form-urlencoded"
    for name, body in {
        "an empty form": b"",
        "a form without proof": b"a=b",
        "a form with a proof of its own": b"_csrf=" + b"0" * 64,
        "a form with two proofs": b"_csrf=&_csrf=" + b"0" * 64,
        "a form of 50,000 fields": b"&".join(b"f%d=1" % number for number in range(50_000)),
        "a form of ampersands": b"&" * 500_000,
        "a form of percent signs": b"%" * 500_000,
        "a form that is no text": bytes(range(256)) * 100,
    }.items():
        yield Case(name, post(body, "/no/form", content_type=form), 403, "no-proof")
    for media_type in ("multipart/form-data; boundary=a", "text/plain", ""):
        yield Case(
            f"a form of type {media_type!r}", post(b"--a\r\n", "/no/form", content_type=media_type), 403, "no-proof"
        )
    yield Case("a form beyond its limit", post(b"a" * 2_000_000, "/no/form", content_type=form), 413, "too-large")
    yield Case("a proof in the URL", post(b"a=b", "/no/form?_csrf=" + "0" * 64, content_type=form), 403, "no-proof")


GROUPS = {
    "JSON": bodies,
    "types and packing": types,
    "framing": framing,
    "heads": heads,
    "hosts and origins": origins,
    "paths and query strings": paths,
    "methods": methods,
    "headers": headers,
    "forms": forms,
}
