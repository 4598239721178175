"""Every post gets its summary, or the reason why there is none, whatever happens to it meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from journeyman import App, Fenced, GiveUp, NotFound, Rejected, Retry
from journeyman.examples.blog.posts import (
    CreatePost,
    DeletePost,
    FailSummaryGeneration,
    GetPost,
    ListPosts,
    Post,
    PostWorker,
    RequestSummaryGeneration,
    SetGeneratedSummary,
    UpdatePost,
    posts,
)
from journeyman.message import BODY_BYTES_MAX
from journeyman.store.memory import MemoryStore

TIMEOUT_S = 20.0


class HeldSummarizer:
    """A summarizer that answers when the test says so. It counts the calls, by their content."""

    description = "the test's own"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.called = asyncio.Event()
        self.release = asyncio.Event()
        self.answer: Callable[[str], str] = lambda content: f"In short: {content[:20]}"
        self.closed = False

    async def summarize(self, title: str, content: str, *, key: str) -> str:
        self.calls.append(content)
        self.called.set()
        await self.release.wait()
        return self.answer(content)

    async def close(self) -> None:
        self.closed = True


class FastPostWorker(PostWorker):
    """The worker with pauses that a test can wait for."""

    retry = Retry(attempts=3, first_s=0.001, max_s=0.002)


@pytest.fixture
def summarizer() -> HeldSummarizer:
    return HeldSummarizer()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def app(summarizer: HeldSummarizer, store: MemoryStore) -> AsyncIterator[App]:
    blog = blog_with(summarizer)
    async with blog.running(store, drain_s=0.1):
        yield blog


def blog_with(summarizer: HeldSummarizer) -> App:
    return App(features=[posts], workers=[FastPostWorker(lambda: summarizer)])


async def eventually(app: App, claim: Callable[[], Awaitable[bool]]) -> None:
    """Return when the claim holds, looking again each time the log has grown."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            position = app.position
            if await claim():
                return
            await app.store.log.wait(position, 0.02)


async def summary_is(app: App, post_id: str, status: str) -> Post:
    async def claim() -> bool:
        return (await app.query(GetPost(post_id=post_id))).summary_status == status

    await eventually(app, claim)
    return await app.query(GetPost(post_id=post_id))


async def names_of(app: App) -> Counter[str]:
    return Counter(record.name for record in await app.store.log.read(0, 10_000))


async def no_open_jobs(app: App) -> None:
    async def claim() -> bool:
        (status,) = await app.workers()
        return status.lag == 0 and not (status.waiting or status.running or status.retrying or status.parked)

    await eventually(app, claim)


def create(post_id: str = "p1", title: str = "A title", content: str = "Some text.") -> CreatePost:
    return CreatePost(post_id=post_id, title=title, content=content)


async def test_a_new_post_leads_to_request_attempt_and_summary(app: App, summarizer: HeldSummarizer) -> None:
    summarizer.release.set()
    await app.execute(create(), actor="ann")

    post = await summary_is(app, "p1", "done")

    assert post.summary == "In short: Some text."
    records = [record for record in await app.store.log.read(0, 100) if record.name != "journeyman/reaction-added"]
    assert [record.name for record in records] == [
        "posts/create",
        "posts/request-summary-generation",
        "journeyman/job-started",
        "posts/set-generated-summary",
    ]
    created, requested, started, answered = records
    assert requested.causation_id == created.id
    assert answered.causation_id == started.causation_id == requested.id
    assert answered.fence == started.position
    assert {record.correlation_id for record in records} == {created.id}
    assert [record.actor for record in records] == ["ann", *["worker:posts/summaries"] * 3]


async def test_a_post_updated_during_the_call_gets_the_summary_of_its_new_text(
    app: App, summarizer: HeldSummarizer
) -> None:
    await app.execute(create(content="Old text."))
    await summarizer.called.wait()
    await app.execute(UpdatePost(post_id="p1", title="A title", content="New text."))
    summarizer.release.set()

    post = await summary_is(app, "p1", "done")

    assert post.summary == "In short: New text."
    await no_open_jobs(app)
    assert summarizer.calls == ["Old text.", "New text."]
    names = await names_of(app)
    assert names["journeyman/job-ended"] == 1, "the first answer was refused, and that is recorded"
    assert names["posts/set-generated-summary"] == 1


async def test_an_update_that_leaves_the_text_asks_for_nothing(app: App, summarizer: HeldSummarizer) -> None:
    summarizer.release.set()
    await app.execute(create())
    await summary_is(app, "p1", "done")
    await app.execute(UpdatePost(post_id="p1", title="Another title", content="Some text."))
    await no_open_jobs(app)

    post = await app.query(GetPost(post_id="p1"))

    assert (post.title, post.summary) == ("Another title", "In short: Some text.")
    assert summarizer.calls == ["Some text."]


async def test_a_post_deleted_during_the_call_ends_its_job_for_good(app: App, summarizer: HeldSummarizer) -> None:
    await app.execute(create())
    await summarizer.called.wait()
    await app.execute(DeletePost(post_id="p1"))
    summarizer.release.set()

    await no_open_jobs(app)

    assert len(summarizer.calls) == 1, "no second paid call"
    names = await names_of(app)
    assert names["journeyman/job-ended"] == 1
    assert names["posts/set-generated-summary"] == 0
    with pytest.raises(NotFound):
        await app.query(GetPost(post_id="p1"))


async def test_a_post_deleted_before_its_turn_costs_no_call(app: App, summarizer: HeldSummarizer) -> None:
    others = [create(post_id=f"busy-{number}") for number in range(FastPostWorker.concurrency)]
    await asyncio.gather(*map(app.execute, others))

    async def all_slots_are_taken() -> bool:
        return len(summarizer.calls) == len(others)

    await eventually(app, all_slots_are_taken)
    await app.execute(create(content="Deleted soon."))
    await summary_is(app, "p1", "pending")
    await app.execute(DeletePost(post_id="p1"))
    summarizer.release.set()

    await no_open_jobs(app)

    assert "Deleted soon." not in summarizer.calls


async def test_an_empty_post_fails_with_its_reason_and_without_retries(app: App, summarizer: HeldSummarizer) -> None:
    def refuse(content: str) -> str:
        raise GiveUp("there is no text to summarise")

    summarizer.answer = refuse
    summarizer.release.set()
    await app.execute(create(content=""))

    post = await summary_is(app, "p1", "failed")

    assert post.summary_error == "there is no text to summarise (attempt 1 of 3)"
    assert len(summarizer.calls) == 1


async def test_a_very_long_post_is_summarised(app: App, summarizer: HeldSummarizer) -> None:
    summarizer.release.set()
    content = "A sentence of a long post. " * 15_000
    assert len(content) < BODY_BYTES_MAX
    await app.execute(create(content=content))

    assert (await summary_is(app, "p1", "done")).summary is not None


async def test_two_posts_of_one_title_get_a_summary_each(app: App, summarizer: HeldSummarizer) -> None:
    summarizer.release.set()
    await app.execute(create("p1", content="First text."))
    await app.execute(create("p2", content="Second text."))

    assert (await summary_is(app, "p1", "done")).summary == "In short: First text."
    assert (await summary_is(app, "p2", "done")).summary == "In short: Second text."


async def test_posts_created_while_no_worker_ran_are_summarised_when_one_does(
    store: MemoryStore, summarizer: HeldSummarizer
) -> None:
    summarizer.release.set()
    blog = blog_with(summarizer)
    async with blog.running(store, workers=False):
        await blog.execute(create("p1"))
        await blog.execute(create("p2"))
        assert (await blog.query(GetPost(post_id="p1"))).summary_status == "none"

    async with blog.running(store):
        await summary_is(blog, "p1", "done")
        await summary_is(blog, "p2", "done")
        await no_open_jobs(blog)
        assert (await names_of(blog))["posts/set-generated-summary"] == 2


async def test_requests_without_an_answer_are_found_in_the_log_at_the_start(
    store: MemoryStore, summarizer: HeldSummarizer
) -> None:
    blog = blog_with(summarizer)
    async with blog.running(store, workers=False):
        for number in (1, 2):
            await blog.execute(create(f"p{number}"))
            await blog.execute(request(f"r{number}", f"p{number}"))
        await blog.execute(SetGeneratedSummary(request_id="r2", post_id="p2", summary="By a person."))

    summarizer.release.set()
    async with blog.running(store):
        await summary_is(blog, "p1", "done")
        await no_open_jobs(blog)

    assert len(summarizer.calls) == 1, "the answered request is not on the list"


async def test_a_failed_summary_can_be_asked_for_again_by_hand(app: App, summarizer: HeldSummarizer) -> None:
    def fail(content: str) -> str:
        raise ValueError("a text that nobody can read")

    good, summarizer.answer = summarizer.answer, fail
    summarizer.release.set()
    await app.execute(create())
    post = await summary_is(app, "p1", "failed")
    assert post.summary_error == "a text that nobody can read (attempt 3 of 3)"
    assert (await names_of(app))["journeyman/job-failed"] == 2

    summarizer.answer = good
    await app.execute(request("by-hand", "p1"), actor="ann")

    post = await summary_is(app, "p1", "done")
    assert (post.summary, post.summary_error) == ("In short: Some text.", None)


async def test_a_person_may_be_faster_than_the_call(app: App, summarizer: HeldSummarizer) -> None:
    await app.execute(create())
    await summarizer.called.wait()
    post = await summary_is(app, "p1", "pending")
    assert post.request_id is not None
    by_hand = SetGeneratedSummary(request_id=post.request_id, post_id="p1", summary="By a person.")
    await app.execute(by_hand, actor="ann")
    summarizer.release.set()

    await no_open_jobs(app)

    assert (await app.query(GetPost(post_id="p1"))).summary == "By a person."
    assert (await names_of(app))["posts/set-generated-summary"] == 1


async def test_a_second_request_is_refused_while_one_is_open_or_once_it_is_answered(app: App) -> None:
    await app.execute(create())
    post = await summary_is(app, "p1", "pending")
    with pytest.raises(Rejected, match="being made already"):
        await app.execute(request("r2", "p1"))
    assert post.request_id is not None
    await app.execute(FailSummaryGeneration(request_id=post.request_id, post_id="p1", error_message="no"))
    with pytest.raises(Rejected, match="has its answer already"):
        await app.execute(request(post.request_id, "p1"))


async def test_what_does_not_fit_the_post_is_refused_with_a_reason(app: App) -> None:
    await app.execute(create())
    with pytest.raises(Rejected, match="There is a post p1 already"):
        await app.execute(create())
    for unknown in (UpdatePost(post_id="x", title="t", content=""), DeletePost(post_id="x"), request("r", "x")):
        with pytest.raises(Rejected, match="There is no post x"):
            await app.execute(unknown)
    with pytest.raises(Rejected, match="The text of post p1 is another by now"):
        await app.execute(request("r", "p1", content="Some other text."))
    with pytest.raises(Rejected, match="does not wait for request"):
        await app.execute(SetGeneratedSummary(request_id="unknown", post_id="p1", summary="s"))


async def test_an_answer_with_the_fence_of_no_attempt_is_dropped(app: App, summarizer: HeldSummarizer) -> None:
    from journeyman.pending import Envelope

    await app.execute(create())
    await summarizer.called.wait()
    post = await app.query(GetPost(post_id="p1"))
    assert post.request_id is not None
    late = SetGeneratedSummary(request_id=post.request_id, post_id="p1", summary="Late.")
    running = app._now_running()
    with pytest.raises(Fenced):
        await running.executor.execute(late, Envelope(fence=1))


async def test_the_list_is_paged_newest_first_and_filtered_by_summary(app: App, summarizer: HeldSummarizer) -> None:
    for number in range(5):
        await app.execute(create(f"p{number}"))
    await summary_is(app, "p4", "pending")

    page = await app.query(ListPosts(page=2, page_size=2))
    assert [post.post_id for post in page.posts] == ["p2", "p1"]
    assert (page.total, page.page, page.pages) == (5, 2, 3)

    summarizer.release.set()
    await no_open_jobs(app)
    done = await app.query(ListPosts(summary_status="done", page_size=3))
    assert [post.post_id for post in done.posts] == ["p4", "p3", "p2"]
    assert (await app.query(ListPosts(summary_status="failed"))).total == 0
    assert (await app.query(ListPosts(page=9))).posts == []


async def test_the_summarizer_is_opened_where_workers_run_and_closed_at_the_end(store: MemoryStore) -> None:
    opened: list[HeldSummarizer] = []

    def open_one() -> HeldSummarizer:
        opened.append(HeldSummarizer())
        return opened[-1]

    blog = App(features=[posts], workers=[PostWorker(open_one)])
    async with blog.running(store, workers=False):
        assert opened == []
    async with blog.running(store):
        assert [one.closed for one in opened] == [False]
    assert [one.closed for one in opened] == [True]


def request(request_id: str, post_id: str, *, content: str = "Some text.") -> RequestSummaryGeneration:
    return RequestSummaryGeneration(request_id=request_id, post_id=post_id, content=content)
