"""What watches the pages sees what it is there for: each fault is planted on a page of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from litestar import Router, get
from litestar.params import FromQuery
from playwright.async_api import Browser

from journeyman import App
from journeyman.doors.serving import serving
from journeyman.web import Page, Request
from tests.browser.looks import PHONE, Look, open_visit, overflow, violations

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: By what must be said of it, in any case.
COMPLAINTS = {
    "inline script": "<script>document.title = 'ran'</script>",
    "inline style": "<p style='color: red'>red</p>",
    "attribute": "<img src='/assets/none.png' alt='' onerror='document.title=1'>",
    "frame": "<iframe src='https://example.invalid/' title='x'></iframe>",
    "foreign image": "<img src='https://example.invalid/x.png' alt=''>",
    "missing file": "<img src='/assets/none.png' alt=''>",
}

BARRIERS = {
    "image-alt": "<img src='data:,x'>",
    "label": "<input type='text'>",
    "color-contrast": "<p class='muted' id='pale'>pale</p>",
    "button-name": "<button></button>",
    "heading-order": "<h4>Too deep</h4>",
}


@get("/fault")
async def fault(request: Request, html: FromQuery[str]) -> Page:
    page = f"<!doctype html><html lang=en><title>A fault</title><main><h1>A fault</h1>{html}</main></html>"
    return Page(page)


faults = Router("/", route_handlers=[fault])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url() -> AsyncIterator[str]:
    app = App(features=[], pages=["tests.browser.test_looks:faults"])
    async with app.running("memory:"), serving(app, port=0) as served:
        yield f"{served}/fault"


async def with_fault(browser: Browser, url: str, html: str, look: Look) -> tuple[list[str], list[str], int]:
    """What is said of a page with this in it: complaints, barriers, and by how much it overflows."""
    visit = await open_visit(browser, look)
    async with visit.context:
        await visit.page.goto(f"{url}?{urlencode({'html': html})}")
        await visit.page.wait_for_load_state("networkidle")
        if "pale" in html:
            await visit.page.evaluate("document.getElementById('pale').style.color = '#ddd'")
        complaints = visit.complaints.copy()
        return complaints, await violations(visit.page), await overflow(visit.page)


@pytest.mark.parametrize("kind", COMPLAINTS)
async def test_what_the_policy_forbids_or_does_not_come_is_heard(kind: str, browser: Browser, url: str) -> None:
    complaints, _, _ = await with_fault(browser, url, COMPLAINTS[kind], Look())
    assert complaints, kind
    if kind != "missing file":
        assert "Content Security Policy" in " ".join(complaints)


@pytest.mark.parametrize("kind", BARRIERS)
async def test_a_barrier_is_found(kind: str, browser: Browser, url: str) -> None:
    _, barriers, _ = await with_fault(browser, url, BARRIERS[kind], Look())
    assert kind in {barrier.partition(":")[0] for barrier in barriers}


async def test_what_is_wider_than_a_phone_is_found(browser: Browser, url: str) -> None:
    _, _, pixels = await with_fault(browser, url, f"<p>{'w' * 400}</p>", PHONE)
    assert pixels > 0


async def test_a_page_without_fault_is_left_alone(browser: Browser, url: str) -> None:
    assert await with_fault(browser, url, "<p>All is well.</p>", PHONE) == ([], [], 0)
