"""What can be done with posts. Each command says when it is allowed, and what it changes."""

from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from journeyman import Command, Feature, Message, Rejected

from .state import Post, PostsState

posts = Feature("posts", state=PostsState)

Id = Annotated[str, Meta(min_length=1, max_length=100)]
Title = Annotated[str, Meta(min_length=1, max_length=200)]


@posts.command("create", subject="post_id")
class CreatePost(Command):
    """Publish a post. Two posts may have the same title; an empty one is a post too."""

    post_id: Id
    title: Title
    content: str

    def validate(self, state: PostsState, message: Message["CreatePost"]) -> None:
        if self.post_id in state.posts:
            raise Rejected(f"There is a post {self.post_id} already.")

    def apply(self, state: PostsState, message: Message["CreatePost"]) -> None:
        at = message.position
        state.posts.put(
            Post(
                post_id=self.post_id,
                title=self.title,
                content=self.content,
                created_at=at,
                updated_at=at,
                published_on=message.recorded_at,
            )
        )


@posts.command("update", subject="post_id")
class UpdatePost(Command):
    """Change a post. When its text changes, a summary of the old text is worth nothing any more."""

    post_id: Id
    title: Title
    content: str

    def validate(self, state: PostsState, message: Message["UpdatePost"]) -> None:
        existing_post(state, self.post_id)

    def apply(self, state: PostsState, message: Message["UpdatePost"]) -> None:
        post = replace(state.posts[self.post_id], title=self.title, updated_at=message.position)
        if post.content != self.content:
            nothing = {"summary_status": "none", "request_id": None, "summary": None, "summary_error": None}
            post = replace(post, content=self.content, **nothing)
        state.posts.put(post)


@posts.command("delete", subject="post_id")
class DeletePost(Command):
    """Remove a post. Its history stays in the log."""

    post_id: Id

    def validate(self, state: PostsState, message: Message["DeletePost"]) -> None:
        existing_post(state, self.post_id)

    def apply(self, state: PostsState, message: Message["DeletePost"]) -> None:
        state.posts.delete(self.post_id)


@posts.command("request-summary-generation", subject="post_id")
class RequestSummaryGeneration(Command):
    """Ask for a summary of a post's present text: by the worker for a new text, or by hand, also after a failure."""

    request_id: Id
    post_id: Id
    content: str

    def validate(self, state: PostsState, message: Message["RequestSummaryGeneration"]) -> None:
        post = existing_post(state, self.post_id)
        if post.content != self.content:
            raise Rejected(f"The text of post {self.post_id} is another by now; ask with its present text.")
        if post.summary_status == "pending":
            raise Rejected(f"A summary of post {self.post_id} is being made already (request {post.request_id}).")
        if post.request_id == self.request_id:
            raise Rejected(f"Request {self.request_id} has its answer already; ask with a new request_id.")

    def apply(self, state: PostsState, message: Message["RequestSummaryGeneration"]) -> None:
        post = state.posts[self.post_id]
        state.posts.put(replace(post, summary_status="pending", request_id=self.request_id, summary_error=None))


@posts.command("set-generated-summary", subject="post_id")
class SetGeneratedSummary(Command):
    """Answer a request with a summary: by the worker, or by a person who was faster."""

    request_id: Id
    post_id: Id
    summary: Annotated[str, Meta(min_length=1, max_length=5000)]

    def validate(self, state: PostsState, message: Message["SetGeneratedSummary"]) -> None:
        pending_post(state, self.post_id, self.request_id)

    def apply(self, state: PostsState, message: Message["SetGeneratedSummary"]) -> None:
        post = state.posts[self.post_id]
        state.posts.put(replace(post, summary_status="done", summary=self.summary))


@posts.command("fail-summary-generation", subject="post_id")
class FailSummaryGeneration(Command):
    """Answer a request with the reason why there is no summary."""

    request_id: Id
    post_id: Id
    error_message: Annotated[str, Meta(min_length=1, max_length=2000)]

    def validate(self, state: PostsState, message: Message["FailSummaryGeneration"]) -> None:
        pending_post(state, self.post_id, self.request_id)

    def apply(self, state: PostsState, message: Message["FailSummaryGeneration"]) -> None:
        post = state.posts[self.post_id]
        state.posts.put(replace(post, summary_status="failed", summary_error=self.error_message))


def existing_post(state: PostsState, post_id: str) -> Post:
    """The post, or a refusal."""
    post = state.posts.get(post_id)
    if post is None:
        raise Rejected(f"There is no post {post_id}; it may have been deleted.")
    return post


def pending_post(state: PostsState, post_id: str, request_id: str) -> Post:
    """The post that waits for the answer to this very request, or a refusal."""
    post = existing_post(state, post_id)
    if post.request_id != request_id:
        raise Rejected(
            f"Post {post_id} does not wait for request {request_id}: its text changed, or it was asked anew."
        )
    if post.summary_status != "pending":
        raise Rejected(f"Request {request_id} has its answer already: {post.summary_status}.")
    return post
