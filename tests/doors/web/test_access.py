"""Who shows no token gets nothing but the health checks; a reader looks; an operator acts, and the log says who."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from journeyman import App, DefinitionError
from journeyman.doors.serving import serving
from journeyman.doors.web.admission import COOKIE
from journeyman.doors.web.failures import FAILURES_MAX
from journeyman.doors.web.forms import CSRF as FIELD
from journeyman.doors.web.proof import HEADER
from journeyman.doors.web.sessions import SESSION_S
from journeyman.doors.web.tokens import OPERATOR_VARIABLE, Token, Tokens
from tests.doors.http.shop import client_of, make_app, problem, raw

OPERATOR, READER, FOREIGN = (secrets.token_urlsafe(32) for _ in range(3))
TOKENS = Tokens([Token(OPERATOR, role="operator", name="anna"), Token(READER, role="reader", name="ben")])
PAGE = {"accept": "text/html,application/xhtml+xml"}
TOUCH = "/commands/shop/touch"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def guarded(app: App | None = None, tokens: Tokens = TOKENS, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """The application, served for who has a token, and a client that has none."""
    app = app or make_app()
    async with app.running("memory:"), serving(app, port=0, tokens=tokens, **options) as url, client_of(url) as client:
        yield client


async def sign_in(client: httpx2.AsyncClient, token: str, **fields: str) -> httpx2.Response:
    return await client.post("/sign-in", data={"token": token, **fields}, headers=PAGE)


def cookie_of(response: httpx2.Response) -> str:
    return response.headers["set-cookie"].partition(";")[0].partition("=")[2]


async def actors(client: httpx2.AsyncClient) -> list[str | None]:
    entries = (await client.get("/log", headers=bearer(READER))).json()
    return [entry["actor"] for entry in entries if entry["name"] == "shop/touch"]


@pytest.fixture(autouse=True)
def no_token_is_told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is done here, no log has a token."""
    caplog.set_level(logging.DEBUG)
    yield
    # `caplog.text` is that of the phase at hand, which is the end of the test by now.
    ours = (record for record in caplog.get_records("call") if not record.name.startswith(("httpx", "httpcore")))
    told = "\n".join(record.getMessage() + str(record.exc_text) for record in ours)
    for secret in (OPERATOR, READER, FOREIGN):
        assert secret not in told


# Programs.


async def test_without_a_token_nothing_is_answered_but_the_health_checks() -> None:
    async with guarded() as client:
        paths = set((await client.get("/openapi.json", headers=bearer(READER))).json()["paths"])
        health = {path for path in paths if path.startswith("/health/")}
        for path in [*sorted(paths - health), "/", "/no/such/path", "/health", "/health/live/", "/health/live/x"]:
            problem(await client.get(path), 401, "no-access")
            problem(await client.post(path, json={}), 401, "no-access")
        for path in sorted(health):
            assert (await client.get(path)).status_code == 200
            problem(await client.post(path, json={}), 403, "read-only")


async def test_who_shows_nothing_learns_from_the_health_checks_only_whether_it_is_well() -> None:
    async with guarded() as client:
        assert (await client.get("/health/ready")).json() == {"status": "ready"}
        assert (await client.get("/health/ready", headers=bearer(READER))).json() == {"status": "ready", "position": 0}


WRONG = [
    f"Bearer {FOREIGN}",
    f"Bearer {OPERATOR}x",
    f"Bearer {OPERATOR[:-1]}",
    f"Bearer anna:{OPERATOR}",
    f"Bearer {OPERATOR.swapcase()}",
    f"Basic {OPERATOR}",
    OPERATOR,
    "Bearer",
    "",
    "Bearer \xe4\xff",
]


async def test_a_wrong_token_is_answered_like_none() -> None:
    assert len(WRONG) <= FAILURES_MAX
    async with guarded() as client:
        without = problem(await client.get("/log"), 401, "no-access")
        for authorization in WRONG:
            response = await client.get("/log", headers=[(b"authorization", authorization.encode("latin-1"))])
            assert problem(response, 401, "no-access") == without, authorization
            assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_reader_looks_and_does_not_act() -> None:
    async with guarded() as client:
        for path in ("/log", "/commands", "/queries/shop/echo", "/workers", "/openapi.json"):
            assert (await client.get(path, headers=bearer(READER))).status_code == 200
        problem(await client.post(TOUCH, json={}, headers=bearer(READER)), 403, "read-only")
        pause = await client.post("/commands/journeyman/pause-worker", json={"worker": "x"}, headers=bearer(READER))
        problem(pause, 403, "read-only")
        assert (await client.get("/log", headers=bearer(READER))).json() == []


async def test_an_operator_acts_and_the_log_says_who() -> None:
    async with guarded() as client:
        assert (await client.post(TOUCH, json={}, headers=bearer(OPERATOR))).status_code == 201
        lower = {"authorization": f"bearer  {OPERATOR}"}
        assert (await client.post(TOUCH, json={}, headers=lower)).status_code == 201
        assert await actors(client) == ["operator:anna"] * 2


async def test_a_wrong_token_is_not_made_good_by_a_session() -> None:
    async with guarded() as client:
        await sign_in(client, OPERATOR)
        assert (await client.get("/log")).status_code == 200
        problem(await client.get("/log", headers=bearer(FOREIGN)), 401, "no-access")


async def test_a_token_in_the_url_is_not_taken() -> None:
    async with guarded() as client:
        problem(await client.get("/log", params={"token": OPERATOR, "access_token": OPERATOR}), 401, "no-access")
        answer = await client.get("/sign-in", params={"token": OPERATOR}, headers=PAGE)
        assert "set-cookie" not in answer.headers
        assert OPERATOR not in answer.text


async def test_many_failures_are_told_to_wait_and_the_owner_gets_in_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with guarded() as client:
        answers = [await client.get("/log", headers=bearer(FOREIGN)) for _ in range(FAILURES_MAX * 3)]
        assert [answer.status_code for answer in answers] == [401] * FAILURES_MAX + [429] * FAILURES_MAX * 2
        problem(answers[-1], 429, "too-many-failures")
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        assert (await client.get("/log", headers=bearer(OPERATOR))).status_code == 200
        assert (await sign_in(client, FOREIGN)).status_code == 429
        assert (await sign_in(client, OPERATOR)).status_code == 303

    told = [record for record in caplog.records if "tries to sign in" in record.message]
    assert len(told) == 1, "a flood of tries is no flood of lines"


# Browsers.


async def test_a_browser_is_led_to_the_sign_in_and_back() -> None:
    async with guarded() as client:
        asked = await client.get("/log?after=0&limit=1", headers=PAGE)
        assert (asked.status_code, asked.text) == (303, "")
        page = await client.get(asked.headers["location"], headers=PAGE)
        assert page.status_code == 200
        [target] = re.findall(r'name="next" value="([^"]*)"', page.text)
        signed = await sign_in(client, READER, next=target.replace("&amp;", "&"))
        assert (signed.status_code, signed.headers["location"]) == (303, "/log?after=0&limit=1")
        assert (await client.get(signed.headers["location"], headers=PAGE)).json() == []


async def test_a_wrong_token_is_told_on_the_page_and_not_repeated() -> None:
    async with guarded() as client:
        for wrong in (FOREIGN, "", "<script>", "x" * 10_000):
            page = await sign_in(client, wrong, next="/log")
            assert page.status_code == 401
            assert "no token of this server" in page.text
            assert 'value="/log"' in page.text
            assert not wrong or wrong not in page.text
            assert "set-cookie" not in page.headers


async def test_the_cookie_is_for_this_site_and_no_script_and_not_the_token() -> None:
    async with guarded() as client:
        name, *attributes = (await sign_in(client, OPERATOR)).headers["set-cookie"].split("; ")
        [behind_tls] = [
            (await client.post("/sign-in", data={"token": OPERATOR}, headers=PAGE | proxy)).headers["set-cookie"]
            for proxy in [{"x-forwarded-proto": "https"}]
        ]
    assert set(attributes) == {"Path=/", f"Max-Age={SESSION_S}", "HttpOnly", "SameSite=Strict"}
    assert OPERATOR not in name
    assert behind_tls.endswith("; Secure")


async def test_a_page_over_tls_gets_a_cookie_for_tls_only_whatever_the_proxy_says() -> None:
    async with guarded() as client:
        origin = str(client.base_url).rstrip("/").replace("http:", "https:")
        signed = await client.post("/sign-in", data={"token": OPERATOR}, headers=PAGE | {"origin": origin})
    assert signed.headers["set-cookie"].endswith("; Secure")


ELSEWHERE = [
    "//evil.example/",
    "/\\evil.example",
    "https://evil.example/",
    "javascript:alert(1)",
    "",
    "log",
    "/\r\nSet-Cookie: a=b",
    "/\t/evil.example",
    "/a\\..\\b",
    "/ä",
]


async def test_signing_in_leads_nowhere_else() -> None:
    async with guarded() as client:
        for target in ELSEWHERE:
            signed = await sign_in(client, READER, next=target)
            page = await client.get("/sign-in", params={"next": target}, headers={"cookie": ""})
            assert (signed.status_code, signed.headers["location"]) == (303, "/"), target
            assert signed.headers.get_list("set-cookie") == [signed.headers["set-cookie"]]
            assert "evil" not in page.text


async def test_a_session_acts_only_with_the_proof_of_its_own_forms() -> None:
    async with guarded() as client, client_of(str(client.base_url)) as other:
        for one in (client, other):
            await sign_in(one, OPERATOR)
        proof, foreign = [await proof_of(one) for one in (client, other)]
        for headers in ({}, {HEADER: foreign}, {HEADER: ""}, {HEADER: proof[:-1]}, {HEADER: proof.upper()}):
            problem(await client.post(TOUCH, json={}, headers=headers), 403, "no-proof")
        assert (await client.post(TOUCH, json={}, headers={HEADER: proof})).status_code == 201
        assert await actors(client) == ["operator:anna"]


async def proof_of(client: httpx2.AsyncClient) -> str:
    """What the page that a signed-in browser sees has in its form."""
    [proof] = re.findall(rf'name="{FIELD}" value="([0-9a-f]+)"', (await client.get("/sign-in", headers=PAGE)).text)
    return str(proof)


async def test_a_form_without_proof_does_nothing_and_one_with_it_reaches_its_page() -> None:
    async with guarded() as client:
        await sign_in(client, OPERATOR)
        proof = await proof_of(client)
        for data in ({}, {"a": "1"}, {FIELD: "0" * 64}, {f"x{FIELD}": proof}):
            problem(await client.post("/no/page", data=data), 403, "no-proof")
        problem(await client.post("/no/page", data={"a": "1", FIELD: proof}), 404, "unknown-path")
        problem(await client.post("/no/page", files={"a": b"1"}, data={FIELD: proof}), 403, "no-proof")


async def test_signing_out_ends_the_session_for_whoever_has_the_cookie() -> None:
    async with guarded() as client, client_of(str(client.base_url)) as thief:
        stolen = {"cookie": f"{COOKIE}={cookie_of(await sign_in(client, OPERATOR))}"}
        assert (await thief.get("/log", headers=stolen)).status_code == 200
        problem(await client.post("/sign-out"), 403, "no-proof")
        assert (await thief.get("/log", headers=stolen)).status_code == 200

        out = await client.post("/sign-out", data={FIELD: await proof_of(client)})

        assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
        assert "Max-Age=0" in out.headers["set-cookie"]
        problem(await thief.get("/log", headers=stolen), 401, "no-access")
        assert (await client.post("/sign-out")).status_code == 303, "without a session there is nothing to end"


async def test_another_sites_cookies_beside_ours_do_no_harm() -> None:
    async with guarded() as client, client_of(str(client.base_url)) as fresh:
        ours = f"{COOKIE}={cookie_of(await sign_in(client, READER))}"
        for shape in ("{0}; {0}x", "a=1; {0}", "{0}", ";;{0};=;", "{0}x; {0}"):
            assert (await fresh.get("/log", headers={"cookie": shape.format(ours)})).status_code == 200, shape


async def test_a_hostile_cookie_opens_nothing() -> None:
    async with guarded() as client:
        for cookie in (f"{COOKIE}=", f"{COOKIE}={'x' * 60_000}", COOKIE, "=", f"x{COOKIE}=a", "\xff" * 99):
            headers = [(b"cookie", cookie.encode("latin-1"))]
            problem(await client.get("/log", headers=headers), 401, "no-access")


async def test_who_sends_a_form_without_a_session_is_told_that_nothing_was_recorded() -> None:
    async with guarded() as client:
        answer = await client.post("/posts/new", data={"title": "long text"}, headers=PAGE)
        assert answer.status_code == 401
        assert "not recorded" in answer.text
        assert "set-cookie" not in answer.headers


async def test_a_part_of_a_page_is_not_replaced_by_the_sign_in() -> None:
    async with guarded() as client:
        answer = await client.get("/log", headers=PAGE | {"hx-request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/sign-in")


async def test_another_site_can_not_sign_somebody_in_or_out() -> None:
    async with guarded() as client:
        foreign = {"origin": "https://evil.example"}
        problem(await client.post("/sign-in", data={"token": OPERATOR}, headers=foreign), 403, "foreign-origin")
        problem(await client.post("/sign-out", headers={"sec-fetch-site": "cross-site"}), 403, "foreign-origin")


async def test_the_sign_in_takes_no_other_method_and_no_endless_form() -> None:
    async with guarded() as client:
        answer = await client.put("/sign-in")
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "GET, HEAD, POST"
        problem(await client.get("/sign-out"), 405, "method-not-allowed")
        problem(await client.post("/sign-in", content=b"x" * 600_000), 413, "too-large")
        many = "&".join(f"f{number}=1" for number in range(5000)) + f"&token={OPERATOR}"
        assert (await client.post("/sign-in", content=many, headers=PAGE)).status_code == 401


async def test_the_page_runs_no_script_and_loads_nothing() -> None:
    async with guarded() as client:
        page = await client.get("/sign-in", headers=PAGE)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script" not in policy + page.text
    assert page.headers["referrer-policy"] == "same-origin", "else a browser sends Origin: null with the form"
    assert page.headers["cache-control"] == "no-store"


# This machine.


async def test_without_tokens_this_machine_is_the_operator_and_says_so_in_the_log() -> None:
    async with guarded(tokens=Tokens()) as client:
        assert (await client.post(TOUCH, json={})).status_code == 201
        entries = (await client.get("/log")).json()
        problem(await client.get("/sign-in"), 404, "unknown-path")
    assert [entry["actor"] for entry in entries] == ["local"]


async def test_without_tokens_what_comes_through_a_proxy_is_refused() -> None:
    async with guarded(tokens=Tokens()) as client, guarded() as asking:
        for header in ("x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host"):
            answer = await client.get("/log", headers={header: "192.0.2.1"})
            assert OPERATOR_VARIABLE in problem(answer, 403, "behind-proxy")["detail"]
            assert (await asking.get("/log", headers={header: "192.0.2.1", **bearer(READER)})).status_code == 200


async def test_without_tokens_a_form_needs_its_proof_too() -> None:
    async with guarded(tokens=Tokens()) as client:
        for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""):
            named = {"content-type": content_type} if content_type else {}
            problem(await client.post("/no/page", content=b"a=1", headers=named), 403, "no-proof")


async def test_two_processes_on_one_store_take_each_others_forms() -> None:
    app = make_app()
    async with app.running("memory:"):
        proofs = []
        for _ in range(2):
            seen: list[Any] = []
            async with serving(app, port=0, tokens=Tokens()) as url, client_of(url) as client:
                await client.get("/health/live")
                keys = app.store.keys
                seen = [entry for key in await keys.keys("forms-secret") if (entry := await keys.get(key))]
            proofs.append([entry.value for entry in seen])
    assert proofs[0] == proofs[1]
    assert len(proofs[0]) == 1


# What may be served.


async def test_others_can_be_served_only_with_a_token_and_a_name() -> None:
    app = make_app()
    for options in ({"host": "0.0.0.0"}, {"host": "::"}, {"host": "192.0.2.1"}, {"allowed_hosts": ["blog.example"]}):  # noqa: S104  # refused
        with pytest.raises(DefinitionError, match=r"journeyman token.*JOURNEYMAN_OPERATOR_TOKEN"):
            async with serving(app, port=0, tokens=Tokens(), **options):
                pass
    with pytest.raises(DefinitionError, match=r"--allowed-host NAME"):
        async with serving(app, host="0.0.0.0", port=0, tokens=TOKENS):  # noqa: S104  # refused
            pass


async def test_every_address_can_be_served_for_a_name() -> None:
    async with guarded(host="0.0.0.0", allowed_hosts=["blog.example"]) as client:  # noqa: S104  # with tokens
        for host, status in (("blog.example:80", 200), ("localhost", 200), ("evil.example", 421)):
            assert (await client.get("/log", headers=bearer(READER) | {"host": host})).status_code == status


async def test_the_environment_names_tokens_where_the_caller_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPERATOR_VARIABLE, f"anna:{OPERATOR}")
    app = make_app()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        problem(await client.get("/log"), 401, "no-access")
        assert (await client.get("/log", headers=bearer(OPERATOR))).status_code == 200


async def test_a_request_with_two_authorizations_is_refused() -> None:
    async with guarded() as client:
        twice = f"GET /log HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READER}\r\n" * 1
        answer = await raw(
            str(client.base_url), f"{twice}Authorization: Bearer {FOREIGN}\r\nConnection: close\r\n\r\n".encode()
        )
    assert b"bad-header" in answer
