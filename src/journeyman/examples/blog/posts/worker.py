"""The worker that gives every post a summary, whatever happens to the process, the service or the post meanwhile."""

from collections.abc import Callable
from uuid import UUID, uuid5

from journeyman import Attempt, Command, GiveUp, Job, Message, NotFound, Retry, TodoWorker, ends, opens, reacts

from .commands import CreatePost, FailSummaryGeneration, RequestSummaryGeneration, SetGeneratedSummary, UpdatePost
from .queries import GetPost
from .state import Post
from .summarizer import Summarizer


class PostWorker(TodoWorker):
    """Asks for a summary of each new text, has it made, and answers with it or with the reason why there is none."""

    name = "posts/summaries"
    concurrency = 8
    timeout_s = 60.0
    retry = Retry(attempts=5, first_s=1, factor=2, max_s=60)

    def __init__(self, open_summarizer: Callable[[], Summarizer]) -> None:
        self._open_summarizer = open_summarizer

    async def start(self) -> None:
        self._summarizer = self._open_summarizer()

    async def stop(self) -> None:
        await self._summarizer.close()

    # Each new text leads to one request.

    @reacts(CreatePost, name="ask", since=0)
    async def ask(self, message: Message[CreatePost]) -> RequestSummaryGeneration | None:
        return await self._request_if_wanted(message, message.body.post_id, message.body.content)

    @reacts(UpdatePost, name="ask-again", since=0)
    async def ask_again(self, message: Message[UpdatePost]) -> RequestSummaryGeneration | None:
        return await self._request_if_wanted(message, message.body.post_id, message.body.content)

    async def _request_if_wanted(
        self, message: Message[CreatePost | UpdatePost], post_id: str, content: str
    ) -> RequestSummaryGeneration | None:
        """The request that a text leads to, if it is still the post's and nobody has asked. Its id is the message's."""
        post = await self._find(post_id)
        if post is None or post.content != content or post.summary_status != "none":
            return None
        request_id = str(uuid5(UUID(message.id), self.name))
        return RequestSummaryGeneration(request_id=request_id, post_id=post_id, content=content)

    # The list of posts that need a summary: requests without an answer of the same request_id.

    @opens(RequestSummaryGeneration)
    def asked(self, message: Message[RequestSummaryGeneration]) -> Job:
        return Job(message.body.request_id, subject=message.body.post_id)

    @ends(SetGeneratedSummary, FailSummaryGeneration)
    def answered(self, message: Message[SetGeneratedSummary | FailSummaryGeneration]) -> str:
        return message.body.request_id

    # The work on one of them.

    async def perform(self, attempt: Attempt[RequestSummaryGeneration]) -> Command:
        request = attempt.message.body
        post = await self._find(request.post_id)
        if post is None:
            raise GiveUp("the post was deleted")
        if post.request_id != request.request_id:
            raise GiveUp("the post's text changed before its summary was made")
        summary = await self._summarizer.summarize(post.title, request.content, key=attempt.key)
        return SetGeneratedSummary(request_id=request.request_id, post_id=request.post_id, summary=summary)

    def give_up(self, attempt: Attempt[RequestSummaryGeneration], error: BaseException) -> Command:
        request = attempt.message.body
        reason = f"{str(error) or type(error).__name__} (attempt {attempt.number} of {self.retry.attempts})"
        return FailSummaryGeneration(
            request_id=request.request_id, post_id=request.post_id, error_message=reason[:2000]
        )

    async def _find(self, post_id: str) -> Post | None:
        try:
            return await self.app.query(GetPost(post_id=post_id))
        except NotFound:
            return None
