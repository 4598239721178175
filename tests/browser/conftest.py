"""A real browser for the tests of this folder: Debian's chromium, driven by playwright.

The browser and what is served to it live in one event loop for the whole run, since starting them takes longer than
most tests: each test file says `pytestmark = pytest.mark.asyncio(loop_scope="session")`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Playwright, async_playwright

from tests.browser.looks import DESKTOP, Look, Visit, open_visit

#: Opens a window; at the end of the test it is closed, and the browser must not have complained.
Open = Callable[..., Awaitable[Visit]]

CHROMIUM = os.environ.get("JOURNEYMAN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

MISSING = "These tests drive chromium, which is not installed: apt-get install chromium, or set JOURNEYMAN_CHROMIUM."


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(MISSING)
    async with async_playwright() as playwright, await launch(playwright) as started:
        yield started


async def launch(playwright: Playwright) -> Browser:
    """Start it: without the sandbox, which root can't use, since the pages are our own."""
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])


@pytest_asyncio.fixture(loop_scope="session")
async def open_window(browser: Browser) -> AsyncIterator[Open]:
    """Opens windows. At the end of the test they are closed, and nothing may have gone wrong in any of them."""
    visits: list[Visit] = []

    async def open_one(look: Look = DESKTOP) -> Visit:
        visits.append(await open_visit(browser, look))
        return visits[-1]

    yield open_one
    for visit in visits:
        await visit.context.close()
    complaints = [complaint for visit in visits for complaint in visit.complaints]
    assert complaints == []
