"""The application that is measured: posts with revisions, and reviews of them as jobs."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from benchmarks.load import Writing
from journeyman import (
    App,
    Attempt,
    Command,
    Feature,
    Job,
    Message,
    NotFound,
    Query,
    Rejected,
    State,
    Table,
    TodoWorker,
    ends,
    opens,
)


class Post(msgspec.Struct, frozen=True):
    post_id: str
    title: str
    content: str
    revision: int


class PostsState(State):
    posts: Table[str, Post] = Table(Post, key="post_id")


posts = Feature("posts", state=PostsState)


@posts.command("write", subject="post_id")
class Write(Command):
    """Write a post anew. Its revision says which one the author has seen."""

    post_id: str
    title: str
    content: str
    revision: int

    def validate(self, state: PostsState, message: Message[Any]) -> None:
        post = state.posts.get(self.post_id)
        if self.revision != (1 if post is None else post.revision + 1):
            raise Rejected(f"{self.post_id} has another revision by now.")

    def apply(self, state: PostsState, message: Message[Any]) -> None:
        state.posts.put(Post(self.post_id, self.title, self.content, self.revision))


@posts.query("get")
class GetPost(Query[Post]):
    post_id: str

    def run(self, state: PostsState) -> Post:
        if (post := state.posts.get(self.post_id)) is None:
            raise NotFound(f"There is no post {self.post_id}.")
        return post


@posts.command("ask-review", subject="review_id")
class AskReview(Command):
    review_id: str


@posts.command("set-review", subject="review_id")
class SetReview(Command):
    review_id: str
    verdict: str


class Reviews(TodoWorker):
    """Reviews at once; notes when each review began, on the machine's own clock, which all its processes share."""

    name = "posts/reviews"
    concurrency = 256

    def __init__(self) -> None:
        self.begun_s: dict[str, float] = {}

    @opens(AskReview)
    def asked(self, message: Message[AskReview]) -> Job:
        return Job(message.body.review_id)

    @ends(SetReview)
    def answered(self, message: Message[SetReview]) -> str:
        return message.body.review_id

    async def perform(self, attempt: Attempt[AskReview]) -> SetReview:
        review_id = attempt.message.body.review_id
        self.begun_s[review_id] = time.monotonic()
        return SetReview(review_id=review_id, verdict="good")


letters = Feature("letters", state=State)


@letters.command("send", subject="letter_id")
class SendLetter(Command):
    letter_id: str


#: When each letter began to be answered.
letters_begun_s: dict[str, float] = {}


@letters.job("answer", on=SendLetter, since=0)
async def answer(message: Message[SendLetter]) -> str:
    """A job made from one function, as most applications have them: a reaction asks for it."""
    letters_begun_s[message.body.letter_id] = time.monotonic()
    return "good"


def write_of(writing: Writing) -> Write:
    return Write(post_id=writing.post_id, title=writing.title, content=writing.content, revision=writing.revision)


def plain_app(*, snapshot_every: int | None = None) -> App:
    return App(features=[posts], snapshot_every=snapshot_every)


def app_with(worker: Reviews) -> App:
    return App(features=[posts], workers=[worker], snapshot_every=None)
