"""Ways to look at a page, and what must hold of every page however it is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request

#: How long the browser waits for what must come, in milliseconds: far more than it needs on a busy machine.
PATIENCE_MS = 30_000

#: What axe checks: the success criteria of WCAG 2.2 up to AA, and its own best practices.
RULES = {"resultTypes": ["violations"]}


@dataclass(frozen=True)
class Look:
    """A window: how wide, in which colours, with scripts or without."""

    width: int = 1280
    height: int = 860
    scheme: Literal["light", "dark"] = "light"
    script: bool = True


DESKTOP = Look()
DESKTOP_DARK = Look(scheme="dark")
PHONE = Look(width=390, height=840)
PHONE_DARK = Look(width=390, height=840, scheme="dark")
NO_SCRIPT = Look(script=False)


@dataclass
class Visit:
    """A window of the browser, with cookies of its own. What the browser complained of is in `complaints`."""

    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> Page:
        """Note what goes wrong in a tab: errors of scripts, breaches of the policy, files that don't come."""
        page.on("console", partial(self._heard, page))
        page.on("pageerror", lambda error: self.complaints.append(f"a script broke: {error}"))
        page.on("requestfailed", self._failed)
        return page

    async def tab(self) -> Page:
        """One more tab of the same window."""
        return self.watch(await self.context.new_page())

    def _heard(self, page: Page, message: ConsoleMessage) -> None:
        # The status of a page itself is the test's to judge; that of a file or of a part of a page is not expected.
        expected = message.text.startswith("Failed to load resource") and message.location["url"] == page.url
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(f"{message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        # A stream, or a page that a newer one replaces, is given up by the browser itself.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.url}: {request.failure}")


async def open_visit(browser: Browser, look: Look = DESKTOP, **options: Any) -> Visit:
    """A window of that look, with an empty tab."""
    context = await browser.new_context(
        viewport={"width": look.width, "height": look.height},
        color_scheme=look.scheme,
        java_script_enabled=look.script,
        **options,
    )
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context, await context.new_page())
    visit.watch(visit.page)
    return visit


async def violations(page: Page) -> list[str]:
    """What axe finds wrong on the page as it is now, in words."""
    found = (await Axe().run(page, options=RULES)).response["violations"]
    return [f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes']]}" for one in found]


async def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window: nobody wants to scroll sideways to read."""
    width: int = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return max(0, width)
