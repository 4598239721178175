"""What can be asked about posts."""

from typing import Annotated

from msgspec import Meta, Struct

from journeyman import NotFound, Query

from .commands import posts
from .state import Post, PostsState, SummaryStatus


class PostPage(Struct, frozen=True):
    """Some posts, newest first, and how many there are in all that fit the filter."""

    posts: list[Post]
    total: int
    page: int
    pages: int


@posts.query("get")
class GetPost(Query[Post]):
    """One post."""

    post_id: str

    def run(self, state: PostsState) -> Post:
        post = state.posts.get(self.post_id)
        if post is None:
            raise NotFound(f"There is no post {self.post_id}.")
        return post


@posts.query("list")
class ListPosts(Query[PostPage]):
    """Posts, newest first, in pages; perhaps only those whose summary stands so."""

    summary_status: SummaryStatus | None = None
    page: Annotated[int, Meta(ge=1)] = 1
    page_size: Annotated[int, Meta(ge=1, le=100)] = 20

    def run(self, state: PostsState) -> PostPage:
        index, *values = ("created",) if self.summary_status is None else ("summary", self.summary_status)
        total = state.posts.count(index, *values)
        offset = (self.page - 1) * self.page_size
        found = state.posts.find(index, *values, reverse=True, offset=offset, limit=self.page_size)
        return PostPage(found, total, self.page, pages=max(1, -(-total // self.page_size)))
