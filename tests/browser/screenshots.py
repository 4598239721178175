"""Takes the pictures that the documents show, of the example filled as the demo fills it: `make screenshots`."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from journeyman import App
from journeyman.doors.serving import serving
from journeyman.examples.blog.app import app as blog
from journeyman.examples.blog.documents import standard_library_documents
from journeyman.examples.blog.posts import CreatePost, ListPosts
from journeyman.timing import Timing
from journeyman.todo.ledger import jobs_state
from tests.browser.conftest import launch
from tests.browser.looks import DESKTOP, PHONE_DARK, Look, open_visit
from tests.doors.console.bakery import FAILS, PlaceOrder, make_bakery

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"

#: So that a clone stays small.
PICTURE_BYTES_MAX = 150_000


@dataclass(frozen=True)
class Picture:
    """One picture: its file, the path of the page, and how it is looked at."""

    name: str
    path: str
    look: Look


PICTURES = [
    Picture("posts-desktop", "/", DESKTOP),
    Picture("posts-phone-dark", "/", PHONE_DARK),
    Picture("post-desktop", "/posts/read?post_id=difflib", DESKTOP),
    Picture("post-phone-dark", "/posts/read?post_id=difflib", PHONE_DARK),
]


CONSOLE_PICTURES = [
    Picture("console-overview-desktop", "/console", DESKTOP),
    Picture("console-overview-phone-dark", "/console", PHONE_DARK),
    Picture("console-job-desktop", "/console/job?worker=orders/invoices&job={failed}", DESKTOP),
]

#: Over how long the console's pictures show something going on, in minutes.
MINUTES = 58


async def fill(app: App) -> None:
    """Write the demo's posts, and wait until each has its summary."""
    for document in await asyncio.to_thread(lambda: list(standard_library_documents())):
        await app.execute(CreatePost(post_id=document.name, title=document.title, content=document.content))
    while (await app.query(ListPosts(summary_status="done"))).total < (await app.query(ListPosts())).total:
        await app.store.log.wait(app.position, 1.0)


async def take(browser: Browser, url: str, picture: Picture) -> None:
    visit = await open_visit(browser, picture.look)
    answer = await visit.page.goto(url + picture.path)
    assert answer is not None
    assert answer.ok, f"{picture.path}: {answer.status}"
    file = FOLDER / f"{picture.name}.png"
    await visit.page.screenshot(path=file)
    await visit.context.close()
    if file.stat().st_size > PICTURE_BYTES_MAX:
        raise SystemExit(f"{file.name} has {file.stat().st_size} bytes; {PICTURE_BYTES_MAX} are the most.")


async def take_all(url: str, pictures: Sequence[Picture]) -> None:
    async with async_playwright() as playwright, await launch(playwright) as browser:
        for picture in pictures:
            await take(browser, url, picture)
            sys.stdout.write(f"docs/pictures/{picture.name}.png\n")


async def take_blog(folder: str) -> None:
    async with blog.running(f"sqlite:///{folder}/blog.db"), serving(blog, port=0) as url:
        await fill(blog)
        await take_all(url, PICTURES)


async def take_console() -> None:
    """Of the bakery, after an hour that passes quickly."""
    late_us = MINUTES * 60_000_000
    app, invoices = make_bakery(timing=Timing(now_us=lambda: time.time_ns() // 1000 - late_us))
    async with app.running("memory:", drain_s=0.1), serving(app, port=0) as url:
        for minute in range(MINUTES):
            for number in range(3 + minute * 7 % 11):
                note = FAILS if (minute, number) in ((17, 2), (31, 0), (44, 1)) else None
                order = PlaceOrder(order_id=f"order-{minute:02}-{number:02}", customer="Ada", note=note)
                await app.execute(order, actor="shop")
            await settled(app)
            late_us -= 60_000_000
        failed = await app.state(lambda state: jobs_state(state).jobs.find("due", invoices.name, "parked")[0].job)
        pictures = [dataclasses.replace(one, path=one.path.format(failed=failed)) for one in CONSOLE_PICTURES]
        await take_all(url, pictures)


async def settled(app: App) -> None:
    """Return once every job has its answer, or is parked."""
    while await app.state(lambda state: any(row.standing != "parked" for row in jobs_state(state).jobs)):
        await app.store.log.wait(app.position, 0.1)
        await asyncio.sleep(0)


async def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        await take_blog(folder)
        await take_console()


if __name__ == "__main__":
    asyncio.run(main())
