"""A person can write, read, change and delete posts, and sees summaries come: with a mouse, a keyboard, a phone, in the
dark, and without scripts; nothing is written twice, and nothing that somebody wrote does anything to a page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from journeyman.examples.blog.posts import DeletePost, GetPost, ListPosts
from journeyman.message import BODY_BYTES_MAX
from tests.browser.blog import FAILS, HELD, Blog, serving_blog
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


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def blog(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Blog]:
    async with serving_blog(tmp_path_factory.mktemp("blog")) as served:
        yield served


async def publish(page: Page, blog: Blog, title: str, content: str) -> str:
    """Write a post as a person does. Returns its id."""
    await page.goto(f"{blog.url}/posts/write")
    await page.get_by_label("Title").fill(title)
    await page.get_by_label("Text").fill(content)
    await page.get_by_role("button", name="Publish").click()
    await page.wait_for_url("**/posts/read?**")
    return post_id_of(page)


def post_id_of(page: Page) -> str:
    return parse_qs(urlsplit(page.url).query)["post_id"][0]


def reading(blog: Blog, post_id: str) -> str:
    return f"{blog.url}/posts/read?post_id={post_id}"


async def count(blog: Blog) -> int:
    return (await blog.app.query(ListPosts())).total


# Writing.


async def test_a_summary_appears_by_itself_in_every_tab(blog: Blog, open_window: Open) -> None:
    blog.summarizer.release.clear()
    visit = await open_window()
    post_id = await publish(visit.page, blog, "A held post", f"To be summarised later {HELD}.")
    other = await visit.tab()
    await other.goto(reading(blog, post_id))
    listed = await visit.tab()
    await listed.goto(blog.url)
    for page in (visit.page, other):
        await expect(page.get_by_text("Being made")).to_be_visible()
    entry = listed.get_by_role("listitem").filter(has=listed.get_by_role("link", name="A held post"))
    await expect(entry.get_by_text("Being summarised")).to_be_visible()

    blog.summarizer.release.set()

    places: tuple[Page | Locator, ...] = (visit.page, other, entry)
    for place in places:
        await expect(place.get_by_text("In short: To be summarised later")).to_be_visible()
        await expect(place.get_by_text(re.compile("Being (made|summarised)"))).to_have_count(0)


async def test_a_page_that_waits_for_nothing_holds_no_stream(blog: Blog, open_window: Open) -> None:
    visit = await open_window()
    streams: list[str] = []
    visit.page.on("request", lambda request: streams.append(request.url) if "summaries" in request.url else None)
    await publish(visit.page, blog, "Soon done", "At once.")
    await expect(visit.page.get_by_text("In short: At once.")).to_be_visible()
    streams.clear()

    await visit.page.reload()
    await expect(visit.page.get_by_text("In short: At once.")).to_be_visible()

    assert streams == []


async def test_wrong_fields_are_marked_and_what_was_typed_is_kept(blog: Blog, open_window: Open) -> None:
    before = await count(blog)
    visit = await open_window()
    page = visit.page
    await page.goto(f"{blog.url}/posts/write")
    await page.get_by_label("Text").fill("  Two lines,\n\nkept as they are. ")
    await page.get_by_role("button", name="Publish").click()

    title = page.get_by_label("Title")
    await expect(title).to_have_attribute("aria-invalid", "true")
    await expect(title).to_have_accessible_description(re.compile("It must have at least 1 character"))
    await expect(title).to_be_focused()
    await expect(page.get_by_role("alert")).to_have_text("One field is wrong.")
    await expect(page.get_by_label("Text")).to_have_value("  Two lines,\n\nkept as they are. ")
    assert await count(blog) == before

    await title.fill("T" * 201)
    await page.get_by_role("button", name="Publish").click()
    await expect(title).to_have_accessible_description(re.compile("It may have at most 200 characters"))
    await expect(title).to_have_value("T" * 201)

    await title.fill("Corrected")
    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_role("heading", name="Corrected")).to_be_visible()


async def test_a_form_sent_twice_and_a_page_reloaded_are_one_post(blog: Blog, open_window: Open) -> None:
    before = await count(blog)
    visit = await open_window()
    page = visit.page
    await page.goto(f"{blog.url}/posts/write")
    await page.get_by_label("Title").fill("Once")
    await page.get_by_role("button", name="Publish").dblclick()  # The second one may cut the first answer off.
    await expect(page.get_by_role("heading", name="Once")).to_be_visible()
    await page.reload()

    await expect(page.get_by_role("heading", name="Once")).to_be_visible()
    assert await count(blog) == before + 1


async def test_a_form_sent_again_with_other_content_asks_once_and_is_another_post(
    blog: Blog, open_window: Open
) -> None:
    visit = await open_window()
    page = visit.page
    first = await publish(page, blog, "The first", "One.")  # Its id is the key of its form.
    await page.goto(f"{blog.url}/posts/write")
    await page.evaluate("key => document.querySelector('[name=_key]').value = key", first)
    await page.get_by_label("Title").fill("The second")
    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_role("alert")).to_contain_text("sent before, with other content")
    await page.get_by_role("button", name="Publish").click()
    await page.wait_for_url("**/posts/read?**")

    assert post_id_of(page) != first
    assert (await blog.app.query(GetPost(post_id=first))).title == "The first"


# Changing.


async def test_a_post_is_edited_and_summarised_again(blog: Blog, open_window: Open) -> None:
    visit = await open_window()
    page = visit.page
    post_id = await publish(page, blog, "Before", "The old text.")
    await expect(page.get_by_text("In short: The old text.")).to_be_visible()
    await page.get_by_role("link", name="Edit").click()
    await expect(page.get_by_label("Text")).to_have_value("The old text.")
    await page.get_by_label("Title").fill("Behind")
    await page.get_by_label("Text").fill("\n  The new text.")
    await page.get_by_role("button", name="Save").click()

    await expect(page.get_by_role("heading", name="Behind")).to_be_visible()
    await expect(page.get_by_text("In short: The new text.")).to_be_visible()
    assert (await blog.app.query(GetPost(post_id=post_id))).content == "\n  The new text."


async def test_a_post_is_deleted_only_after_it_was_confirmed(blog: Blog, open_window: Open) -> None:
    visit = await open_window()
    page = visit.page
    post_id = await publish(page, blog, "To be gone", "Soon.")
    await page.get_by_role("link", name="Delete …").click()
    await page.get_by_role("link", name="Keep it").click()
    await expect(page.get_by_role("heading", name="To be gone")).to_be_visible()
    await page.get_by_role("link", name="Delete …").click()
    await page.get_by_role("button", name="Delete it").click()

    await expect(page.get_by_role("heading", name="Posts")).to_be_visible()
    await expect(page.get_by_role("link", name="To be gone")).to_have_count(0)
    answer = await page.goto(reading(blog, post_id))
    assert answer is not None
    assert answer.status == 404
    await expect(page.get_by_text(f"There is no post {post_id}.")).to_be_visible()


async def test_a_refusal_is_a_sentence_on_the_form(blog: Blog, open_window: Open) -> None:
    visit = await open_window()
    page = visit.page
    post_id = await publish(page, blog, "Deleted meanwhile", "By somebody else.")
    await page.get_by_role("link", name="Delete …").click()
    await blog.app.execute(DeletePost(post_id=post_id), actor="somebody else")
    await page.get_by_role("button", name="Delete it").click()

    await expect(page.get_by_role("alert")).to_contain_text(f"There is no post {post_id}; it may have been deleted.")


# Summaries.


async def test_a_failed_summary_says_why_and_can_be_tried_again(blog: Blog, open_window: Open) -> None:
    blog.summarizer.mended.clear()
    visit = await open_window()
    page = visit.page
    await publish(page, blog, "A difficult post", f"Too strange {FAILS}.")
    await expect(page.get_by_text("The summary could not be made.")).to_be_visible()
    await expect(page.get_by_text("this text is <b>too strange</b>")).to_be_visible()
    await page.goto(f"{blog.url}/?summary_status=failed")
    await page.get_by_role("link", name="A difficult post").click()

    blog.summarizer.mended.set()
    await page.get_by_role("button", name="Try again").click()

    await expect(page.get_by_text("In short: Too strange")).to_be_visible()
    await page.get_by_role("button", name="Ask for another").click()
    await expect(page.get_by_text("In short: Too strange")).to_be_visible()


async def test_everything_works_without_scripts(blog: Blog, open_window: Open) -> None:
    blog.summarizer.release.clear()
    visit = await open_window(NO_SCRIPT)
    page = visit.page
    await publish(page, blog, "Without scripts", f"Plain pages {HELD}.")
    await expect(page.get_by_text("Being made")).to_be_visible()
    blog.summarizer.release.set()

    await expect(page.get_by_text("In short: Plain pages")).to_be_visible()  # The page looks again by itself.
    await page.get_by_role("link", name="Edit").click()
    await page.get_by_label("Title").fill("")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_label("Title")).to_be_focused()
    await page.get_by_label("Title").fill("Without any script")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("link", name="Delete …").click()
    await page.get_by_role("button", name="Delete it").click()
    await expect(page.get_by_role("heading", name="Posts")).to_be_visible()


# Reading.


async def test_many_posts_come_in_pages(blog: Blog, open_window: Open) -> None:
    for number in range(21):
        await blog.write(f"many-{number}", f"One of many, {number}")
    visit = await open_window()
    page = visit.page
    await page.goto(blog.url)
    await expect(page.get_by_role("link", name="One of many, 20")).to_be_visible()
    await expect(page.get_by_role("link", name="One of many, 0", exact=True)).to_have_count(0)
    await page.get_by_role("link", name="After →").click()
    await expect(page.get_by_role("link", name="One of many, 0", exact=True)).to_be_visible()
    await page.get_by_role("link", name="← Before").click()
    await expect(page.get_by_role("link", name="One of many, 20")).to_be_visible()


HOSTILE = {
    "markup": "<script>document.title = 'stolen'</script><img src=x onerror=\"document.title='stolen'\">{{ 7*7 }}",
    "quotes": "\"'`><svg onload=document.title='stolen'> &lt;b&gt; &amp;",
    "direction": "safe\u202egnp.exe\u202c \u2066hidden\u2069 \u200fafter",
    "control": "bell\x07 escape\x1b[31m delete\x7f",
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_whatever_is_written_is_shown_as_text(kind: str, blog: Blog, open_window: Open) -> None:
    text = HOSTILE[kind]
    await blog.write(f"hostile-{kind}", text[:200], f"{text}\n\nThe second paragraph\nof two lines: {text}")
    visit = await open_window()
    page = visit.page
    for path in (f"/posts/read?post_id=hostile-{kind}", "/", f"/posts/edit?post_id=hostile-{kind}"):
        await page.goto(blog.url + path)
        assert await page.title() != "stolen"
        assert await page.locator("main img, main script, main svg, main b").count() == 0
    await page.goto(reading(blog, f"hostile-{kind}"))

    shown = await page.locator("main").inner_text()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x08\x1b\x7f]", shown)
    assert "The second paragraph\nof two lines:" in shown
    if kind == "markup":
        assert text in shown
    if kind == "direction":
        assert "safe⟨U+202E⟩gnp.exe" in shown


async def test_ids_of_any_kind_lead_to_their_posts(blog: Blog, open_window: Open) -> None:
    visit = await open_window()
    for post_id in ("a/b", "..", "?x=1&y#z", "100% é ☃", "+ +"):
        await blog.write(post_id, f"The post {post_id}")
        await visit.page.goto(blog.url)
        await visit.page.get_by_role("link", name=f"The post {post_id}", exact=True).click()
        await expect(visit.page.get_by_role("heading", name=f"The post {post_id}", exact=True)).to_be_visible()


async def test_a_very_long_post_can_be_written_and_read(blog: Blog, open_window: Open) -> None:
    paragraph = "Ein langer Absatz über alles, was zählt. " * 25
    content = "\n\n".join(paragraph for _ in range(480))
    assert BODY_BYTES_MAX - 24_000 < len(content.encode()) < BODY_BYTES_MAX
    visit = await open_window()
    post_id = await publish(visit.page, blog, "Very long", content)

    assert (await blog.app.query(GetPost(post_id=post_id))).content == content
    assert await visit.page.locator(".prose p").count() == 480


# However it is looked at.


async def test_the_keyboard_is_enough(blog: Blog, open_window: Open) -> None:
    visit = await open_window()
    page = visit.page
    await page.goto(blog.url)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Write a post")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/posts/write")
    await page.get_by_label("Title").focus()
    await page.keyboard.type("Typed")
    await page.keyboard.press("Tab")
    await page.keyboard.type("All by keyboard.")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/posts/read?**")

    await expect(page.get_by_role("heading", name="Typed")).to_be_visible()


@pytest.mark.parametrize("look", [DESKTOP, PHONE_DARK], ids=["desktop, light", "phone, dark"])
async def test_no_page_has_a_barrier_or_scrolls_sideways(look: Look, blog: Blog, open_window: Open) -> None:
    blog.summarizer.release.clear()
    blog.summarizer.mended.clear()
    name = f"look-{look.width}-{look.scheme}"
    for kind, content in {"done": "All is well.", "failed": FAILS, "pending": HELD}.items():
        await blog.write(f"{name}-{kind}", f"{name} {kind} {'Donaudampfschifffahrtsgesellschaft' * 4}", content)
    visit = await open_window(look)
    page = visit.page
    paths = [
        "/",
        "/?summary_status=failed",
        "/?page=1000",
        "/posts/write",
        *(f"/posts/read?post_id={name}-{kind}" for kind in ("done", "failed", "pending")),
        f"/posts/delete?post_id={name}-done",
        "/posts/read?post_id=nowhere",
    ]
    wrong = {}
    for path in paths:
        await page.goto(blog.url + path)
        wrong[path] = [*await violations(page), *(["it scrolls sideways"] if await overflow(page) else [])]
    await page.goto(f"{blog.url}/posts/write")
    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    wrong["a wrong form"] = await violations(page)
    blog.summarizer.release.set()

    assert {path: found for path, found in wrong.items() if found} == {}


async def test_what_can_be_touched_is_large_enough(blog: Blog, open_window: Open) -> None:
    """WCAG 2.2, 2.5.8: at least 24 pixels; links within a text are excepted."""
    visit = await open_window(PHONE)
    for path in ("/", "/posts/write"):
        await visit.page.goto(blog.url + path)
        for target in await visit.page.locator("button, .button, nav a, .brand, input:not([type=hidden])").all():
            box = await target.bounding_box()
            assert box is not None
            assert box["height"] >= 24, await target.inner_text()


async def test_the_colours_follow_the_system(blog: Blog, open_window: Open) -> None:
    light, dark = await open_window(), await open_window(DESKTOP_DARK)
    grounds = []
    for visit in (light, dark):
        await visit.page.goto(blog.url)
        grounds.append(await visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert grounds == ["rgb(247, 246, 243)", "rgb(20, 24, 23)"]
