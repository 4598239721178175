"""An operator finds what went wrong, sees why, and acts on it; follows the log; looks into the past; gives commands: on
a desk, on a phone, in the dark, without scripts; and nothing that is stored does anything to a page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import expect

from journeyman.todo.jobs import Standing
from journeyman.todo.ledger import jobs_state
from tests.browser.conftest import Open
from tests.browser.looks import DESKTOP, NO_SCRIPT, PATIENCE_MS, PHONE, PHONE_DARK, Look, overflow, violations
from tests.doors.console.bakery import FAILS, HELD, HOSTILE, Bakery, Invoices, SetReminder, serving_as, serving_bakery

pytestmark = pytest.mark.asyncio(loop_scope="session")

expect.set_options(timeout=PATIENCE_MS)

WORKER: Final = Invoices.name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bakery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bakery]:
    """With orders that are done, one whose invoice hangs, one that failed, and a hostile one."""
    async with serving_bakery(f"sqlite:///{tmp_path_factory.mktemp('bakery')}/bakery.db") as served:
        for number in range(12):
            await served.place(f"order-{number:02}", customer=f"Customer {number % 3}")
        await served.place("hangs", note=HELD)
        await served.place("broken", note=FAILS)
        await served.place("hostile", note=HOSTILE, customer=HOSTILE[:40])
        await served.app.execute(SetReminder(reminder_id="later"))
        await standing(served, "broken", "parked")
        yield served


async def standing(bakery: Bakery, order_id: str, *wanted: Standing) -> str:
    """The key of an order's job, once it stands so."""
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while True:
            rows = await bakery.app.state(
                lambda state: [
                    row for one in wanted for row in jobs_state(state).jobs.find("subject", WORKER, order_id, one)
                ]
            )
            if rows:
                return rows[0].job
            await bakery.app.store.log.wait(bakery.app.position, 0.05)
            await asyncio.sleep(0)


async def over(bakery: Bakery, job: str) -> None:
    """Return once the job is over."""
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while await bakery.app.state(lambda state: jobs_state(state).jobs.get((WORKER, job))) is not None:
            await bakery.app.store.log.wait(bakery.app.position, 0.05)
            await asyncio.sleep(0)


async def test_from_the_overview_to_the_failed_job_why_it_failed_and_its_retry(
    bakery: Bakery, open_window: Open
) -> None:
    page = (await open_window()).page
    await bakery.place("jammed", note=FAILS)
    job = await standing(bakery, "jammed", "parked")
    await page.goto(f"{bakery.url}/console")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("need")
    await page.get_by_role("link", name=re.compile("parked and need a decision|parked and needs")).click()
    await page.get_by_role("link", name=job).click()
    await expect(page.get_by_text("It is parked: a person decides")).to_be_visible()
    await expect(page.locator(".timeline")).to_contain_text("the printer jammed on <b>jammed</b>")
    await expect(page.locator(".timeline")).to_contain_text("Attempt 2")
    await expect(page.locator(".chain")).to_contain_text("orders/place")
    bakery.invoices.mended = True
    try:
        await page.get_by_role("button", name="Retry now").click()
        await over(bakery, job)
        await page.goto(page.url)
        await expect(page.locator(".timeline")).to_contain_text("orders/set-invoice")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("answered")
    finally:
        bakery.invoices.mended = False


async def test_many_failed_jobs_are_chosen_and_discarded(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await bakery.place("many-1", note=FAILS)
    await bakery.place("many-2", note=FAILS)
    jobs = [await standing(bakery, order_id, "parked") for order_id in ("many-1", "many-2")]
    await page.goto(f"{bakery.url}/console/worker?name={WORKER}&standing=parked")
    for job in jobs:
        await page.get_by_role("checkbox", name=job).check()
    await page.get_by_label("Reason, for a discard").fill("spoiled paper")
    await page.get_by_role("button", name="Discard").click()
    await expect(page.get_by_role("status")).to_contain_text("2 jobs are discarded.")
    await expect(page.get_by_role("link", name=jobs[0])).to_have_count(0)


async def test_a_worker_is_paused_and_resumed(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(f"{bakery.url}/console/workers")
    await page.get_by_role("link", name="reminders/send").click()
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("paused")
    await page.goto(f"{bakery.url}/console")
    await expect(page.get_by_text("reminders/send is paused.")).to_be_visible()
    await page.get_by_text("reminders/send is paused.").click()
    await page.get_by_role("button", name="Resume").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("running")


async def test_the_overview_renews_itself(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(f"{bakery.url}/console")
    await page.locator(".verdict").wait_for()
    await page.evaluate("document.querySelector('.verdict').dataset.old = 'yes'")
    await page.locator(".verdict:not([data-old])").wait_for()


async def test_a_new_message_appears_in_the_tail_by_itself(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(f"{bakery.url}/console/log?name=orders/place")
    receipt = await bakery.place("tailed", note=HOSTILE)
    row = page.locator("#tail tr").first
    await expect(row).to_contain_text("tailed")
    await expect(page.locator("#tail")).not_to_contain_text("set-invoice")
    await row.get_by_role("link", name=str(receipt.position), exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("orders/place")
    await expect(page.locator("pre").first).to_contain_text("<script>document.title")
    assert "taken" not in await page.title()


async def test_jump_to_a_position_and_on_to_cause_and_effect(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    receipt = await bakery.place("jumped")
    await page.goto(f"{bakery.url}/console/log")
    await page.get_by_label("Position or id").fill(str(receipt.position))
    await page.get_by_role("button", name="Jump").click()
    await page.wait_for_url(f"**/console/log/{receipt.position}")
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while await page.locator(".plain a").count() == 0:
            await page.reload()  # Its effect may be recorded, or indexed, a moment later.
    await page.locator(".plain a").last.click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("orders/request-invoice")
    await page.get_by_role("link", name=str(receipt.position), exact=True).first.click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("orders/place")


async def test_filter_by_subject_and_page_through(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(f"{bakery.url}/console/log")
    await page.get_by_label("Subject").fill("order-03")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.locator("#tail tr")).to_have_count(3)
    await expect(page.locator("#tail")).to_contain_text("orders/set-invoice")
    await page.get_by_role("link", name="Show all").click()
    await page.get_by_role("link", name="Older →").click()
    first = await page.locator("#tail a").first.inner_text()
    await page.get_by_role("link", name="← Newer").click()
    assert int(await page.locator("#tail a").first.inner_text()) > int(first)


async def test_on_a_phone_the_filter_is_folded_and_opens_by_keyboard(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window(PHONE_DARK)).page
    await page.goto(f"{bakery.url}/console/log")
    await expect(page.get_by_label("Subject")).to_be_hidden()
    await expect(page.locator("#tail tr").first).to_be_in_viewport()
    await page.get_by_role("button", name="Jump").focus()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Subject")).to_be_visible()
    assert await violations(page) == []
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Feature")).to_be_focused()
    await page.get_by_label("Subject").fill("order-03")
    await page.keyboard.press("Enter")
    await expect(page.locator("summary")).to_have_text("Filter: subject order-03")
    await expect(page.locator("#tail tr").first).to_be_in_viewport()
    await page.locator("summary").click()
    await page.get_by_role("link", name="Show all").click()
    await expect(page.locator("summary")).to_have_text("Filter")


async def test_where_there_is_room_the_filter_is_not_folded(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(f"{bakery.url}/console/log")
    await expect(page.locator("summary")).to_be_hidden()
    await page.get_by_role("button", name="Jump").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Feature")).to_be_focused()


async def test_the_state_as_it_was_and_what_changed(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    before = await bakery.place("travelled", customer="Before")
    await page.goto(f"{bakery.url}/console/state")
    await page.get_by_label("As of position").fill(str(before.position - 1))
    await page.get_by_role("button", name="Go there").click()
    await expect(page.get_by_text("You are looking at the past")).to_be_visible()
    await page.get_by_role("link", name="orders/orders").click()
    await page.get_by_label("Key").fill("travelled")
    await page.get_by_role("button", name="Find the row").click()
    await expect(page.get_by_text("has no row travelled")).to_be_visible()
    await page.goto(f"{bakery.url}/console/log/{before.position}")
    await page.get_by_role("link", name="Compare before and after").click()
    await expect(page.locator("main")).to_contain_text("travelled")
    await expect(page.locator("main")).to_contain_text("added")
    await expect(page.locator("ins", has_text="Before")).to_be_visible()


async def test_a_command_by_its_form_first_wrong_then_right(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(f"{bakery.url}/console/do")
    await page.get_by_role("link", name="orders/place").click()
    await page.get_by_label("customer").fill("Grace")
    await page.get_by_label("pieces").fill("0")
    await page.get_by_role("button", name="Record it").click()
    await expect(page.get_by_role("alert")).to_contain_text("2 fields are wrong")
    await expect(page.get_by_label("order_id")).to_be_focused()
    await expect(page.get_by_label("customer")).to_have_value("Grace")
    await page.get_by_label("order_id").fill("by-form")
    await page.get_by_label("pieces").fill("3")
    await page.get_by_label("kind").select_option("cake")
    await page.get_by_label("address").fill('{"street": "Main St", "city": "York"}')
    await page.get_by_role("button", name="Record it").click()
    await expect(page.get_by_role("status")).to_contain_text("It is recorded.")
    await page.goto(f"{bakery.url}/console/do/query/orders/get")
    await page.get_by_label("order_id").fill("by-form")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator("pre")).to_contain_text('"kind": "cake"')


async def test_all_of_it_works_without_scripts(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window(NO_SCRIPT)).page
    await bakery.place("unscripted", note=FAILS)
    job = await standing(bakery, "unscripted", "parked")
    for path in ("/console", "/console/log", "/console/state"):
        await page.goto(bakery.url + path)
        assert await page.locator("h1").count() == 1
    await page.goto(f"{bakery.url}/console/worker?name={WORKER}&standing=parked")
    await page.get_by_role("link", name=job).click()
    await page.get_by_label("Reason, for a discard").fill("no script")
    await page.get_by_role("button", name="Discard").click()
    await expect(page.locator(".timeline")).to_contain_text("no script")
    await page.goto(f"{bakery.url}/console/state?as_of=3&table=orders/orders")
    for _ in range(20):
        if await page.get_by_text("You are looking at the past").count():
            break
        await page.reload()
    await expect(page.get_by_text("You are looking at the past")).to_be_visible()


async def test_a_reader_sees_everything_and_can_not_act(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    job = await standing(bakery, "broken", "parked")
    acts = re.compile("Retry|Discard|Pause|Resume|Record|Examine|Open its lane")
    async with serving_as(bakery.app, "reader") as url:
        for path in await paths(bakery):
            await page.goto(url + path)
            await expect(page.get_by_role("button", name=acts)).to_have_count(0)
        await page.goto(f"{url}/console/job?worker={WORKER}&job={job}")
        await expect(page.locator(".timeline")).to_contain_text("the printer jammed")
        form: dict[str, str | float | bool] = {"worker": WORKER, "job": job, "decision": "discard"}
        assert (await page.request.post(f"{url}/console/job/decide", form=form)).status == 403
    assert await standing(bakery, "broken", "parked") == job


async def test_the_keyboard_alone_gets_everywhere(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window()).page
    await page.goto(f"{bakery.url}/console/log")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Position or id")).to_be_focused()
    await page.keyboard.type("1")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/log/1")


async def paths(bakery: Bakery) -> list[str]:
    parked, hangs = await standing(bakery, "broken", "parked"), await standing(bakery, "hangs", "running")
    return [
        "/console",
        "/console/workers",
        f"/console/worker?name={WORKER}&standing=parked",
        f"/console/worker?name={WORKER}&over=true",
        f"/console/job?worker={WORKER}&job={parked}",
        f"/console/job?worker={WORKER}&job={hangs}",
        "/console/log",
        "/console/log?subject=nothing",
        "/console/log/1",
        "/console/state",
        "/console/state?table=orders/orders",
        "/console/state?as_of=5&table=orders/orders",
        "/console/state/row?table=orders/orders&key=hostile",
        "/console/state/changes?since=0&as_of=9",
        "/console/do",
        "/console/do/command/orders/place",
        "/console/do/query/orders/list?_asked=1&kind=",
        "/console/store",
        "/console/log/99999",
    ]


@pytest.mark.parametrize(
    "look", [DESKTOP, PHONE_DARK], ids=["desktop", "phone dark"]
)  # Each width, and each scheme, once.
async def test_every_page_is_accessible_and_fits_its_window(bakery: Bakery, open_window: Open, look: Look) -> None:
    page = (await open_window(look)).page
    wrong: dict[str, object] = {}
    for path in await paths(bakery):
        await page.goto(bakery.url + path)
        if found := await violations(page):
            wrong[path] = found
        if wide := await overflow(page):
            wrong[f"{path} is too wide"] = wide
        assert "taken" not in await page.title()
    assert wrong == {}


async def test_on_a_phone_a_job_is_found_and_retried(bakery: Bakery, open_window: Open) -> None:
    page = (await open_window(PHONE)).page
    await bakery.place("on-the-way", note=FAILS)
    job = await standing(bakery, "on-the-way", "parked")
    await page.goto(f"{bakery.url}/console/job?worker={WORKER}&job={job}")
    await page.get_by_role("button", name="Retry now").click()
    await expect(page.locator(".timeline")).to_contain_text("retried")
