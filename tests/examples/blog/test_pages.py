"""The example's pages show a reader everything, and no way to change it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from journeyman.doors.web.access import ACCESS
from journeyman.examples.blog.posts import Post, PostPage
from journeyman.examples.blog.posts.pages import templates
from journeyman.examples.blog.posts.state import SummaryStatus
from journeyman.web import Access, Form

READER = {"path": "/", ACCESS: Access("ann", "reader", "")}
OPERATOR = {"path": "/", ACCESS: Access("ann", "operator", "a-proof")}


def post(status: SummaryStatus) -> Post:
    return Post(
        post_id="p",
        title="A title",
        content="One.\n\nTwo.",
        created_at=7,
        updated_at=7,
        published_on=datetime(2026, 1, 2, tzinfo=UTC),
        summary_status=status,
        summary="In short.",
        summary_error="Too long.",
    )


@pytest.mark.parametrize("status", ["none", "pending", "done", "failed"])
def test_a_reader_sees_a_post_and_no_way_to_change_it(status: SummaryStatus) -> None:
    told = {"post": post(status), "form": Form(), "position": 9}
    page = templates.render(READER, "read.html", **told)
    operators = templates.render(OPERATOR, "read.html", **told)

    assert "<p>One.</p>" in page
    assert "<form" not in page
    assert "/posts/edit" not in page
    assert "/posts/edit" in operators
    assert operators.count('name="_csrf" value="a-proof"') == operators.count("<form") == (status != "pending")


def test_a_reader_is_not_asked_to_write() -> None:
    some, none = PostPage([post("done")], total=1, page=1, pages=1), PostPage([], total=0, page=1, pages=1)
    for found in (some, none):
        told = {"found": found, "summary_status": None, "position": 9}
        assert "/posts/write" not in templates.render(READER, "list.html", **told)
        assert "/posts/write" in templates.render(OPERATOR, "list.html", **told)


def test_a_list_without_posts_says_why_it_has_none() -> None:
    cases: list[tuple[SummaryStatus | None, int, str]] = [
        (None, 0, "Nothing is written yet"),
        ("failed", 0, "No post is like that"),
        (None, 3, "There is no page 9"),
        ("failed", 3, "There is no page 9"),
    ]
    for status, total, told in cases:
        found = PostPage([], total=total, page=9, pages=1)
        assert told in templates.render(READER, "list.html", found=found, summary_status=status, position=9)


@pytest.mark.parametrize(("status", "listens"), [("none", True), ("pending", True), ("done", False), ("failed", False)])
def test_only_a_page_that_waits_listens(status: SummaryStatus, listens: bool) -> None:
    page = templates.render(READER, "read.html", post=post(status), form=Form(), position=9)
    assert ("sse-connect" in page, "http-equiv" in page) == (listens, listens)
