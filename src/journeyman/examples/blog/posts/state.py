"""What the posts feature keeps."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from journeyman import State, Table

#: Where a post's summary stands. `none` also after the text changed, until a new one is asked for.
SummaryStatus = Literal["none", "pending", "done", "failed"]


class Post(Struct, frozen=True, kw_only=True):
    """A post. `request_id` is the newest request for a summary of its present text; None when there is none."""

    post_id: str
    title: str
    content: str
    created_at: int
    updated_at: int
    published_on: datetime
    summary_status: SummaryStatus = "none"
    request_id: str | None = None
    summary: str | None = None
    summary_error: str | None = None


class PostsState(State):
    """Posts by id. `created_at` and `updated_at` are positions, so newest first is an order that all agree on."""

    posts: Table[str, Post] = Table(
        Post,
        key="post_id",
        index={"created": ("created_at",), "summary": ("summary_status", "created_at")},
    )
