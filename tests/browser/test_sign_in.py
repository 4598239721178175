"""With a token a person gets in, by any window; acts if the token lets them; and is out again when they say so."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from journeyman import App
from journeyman.doors.serving import serving
from journeyman.doors.web.tokens import Token, Tokens
from journeyman.examples.blog.app import app as blog_app
from journeyman.examples.blog.posts import posts
from tests.browser.conftest import Open
from tests.browser.looks import (
    DESKTOP,
    DESKTOP_DARK,
    NO_SCRIPT,
    PATIENCE_MS,
    PHONE,
    PHONE_DARK,
    Look,
    overflow,
    violations,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

expect.set_options(timeout=PATIENCE_MS)

OPERATOR, READER = (secrets.token_urlsafe(32) for _ in range(2))
TOKENS = Tokens([Token(OPERATOR, role="operator", name="anna"), Token(READER, role="reader")])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url() -> AsyncIterator[str]:
    app = App(features=[posts], pages=blog_app.pages)
    async with app.running("memory:"), serving(app, port=0, tokens=TOKENS) as served:
        yield served


async def sign_in(page: Page, token: str) -> None:
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize("look", [DESKTOP, NO_SCRIPT], ids=["script", "no script"])
async def test_a_person_signs_in_acts_and_signs_out(url: str, open_window: Open, look: Look) -> None:
    page = (await open_window(look)).page
    await page.goto(f"{url}/posts/write")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await sign_in(page, "no token of ours")
    await expect(page.get_by_text("This is no token of this server.")).to_be_visible()
    await expect(page.get_by_label("Token")).to_have_value("")

    await sign_in(page, OPERATOR)
    await page.wait_for_url("**/posts/write")
    await page.get_by_label("Title").fill("Mine")
    await page.get_by_label("Text").fill("Written by anna.")
    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_role("heading", name="Mine")).to_be_visible()

    await page.get_by_role("link", name="operator:anna").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    await page.goto(f"{url}/posts/write")
    await expect(page.get_by_label("Token")).to_be_visible()


async def test_a_reader_sees_and_is_offered_nothing_to_change(url: str, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(url)
    await sign_in(page, READER)
    await expect(page.get_by_role("heading", name="Posts")).to_be_visible()
    await expect(page.get_by_role("link", name="Write a post")).to_have_count(0)
    await expect(page.get_by_role("link", name="reader")).to_be_visible()


@pytest.mark.parametrize(
    "look", [DESKTOP, DESKTOP_DARK, PHONE, PHONE_DARK], ids=["wide", "wide, dark", "phone", "phone, dark"]
)
async def test_the_page_has_no_barrier(url: str, open_window: Open, look: Look) -> None:
    page = (await open_window(look)).page
    await page.goto(f"{url}/sign-in")
    await expect(page.get_by_label("Token")).to_be_focused()
    assert await violations(page) == []
    assert await overflow(page) == 0
    await sign_in(page, "no token of ours")
    await page.get_by_text("This is no token").wait_for()
    assert await violations(page) == []
    await sign_in(page, READER)
    await page.goto(f"{url}/sign-in")
    assert await violations(page) == []
    assert await overflow(page) == 0
