"""Takes the pictures that the documents show, of the example filled as the demo fills it: `make screenshots`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from journeyman import App
from journeyman.doors.serving import serving
from journeyman.examples.blog.app import app as blog
from journeyman.examples.blog.documents import standard_library_documents
from journeyman.examples.blog.posts import CreatePost, ListPosts
from tests.browser.conftest import launch
from tests.browser.looks import DESKTOP, PHONE_DARK, Look, open_visit

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


async def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with blog.running(f"sqlite:///{folder}/blog.db"), serving(blog, port=0) as url:
            await fill(blog)
            async with async_playwright() as playwright, await launch(playwright) as browser:
                for picture in PICTURES:
                    await take(browser, url, picture)
                    sys.stdout.write(f"docs/pictures/{picture.name}.png\n")


if __name__ == "__main__":
    asyncio.run(main())
