"""The posts on the web: a list, a page for each, and forms to write, change and delete them.

Each form has a key that stays the same however often it is sent, so nothing is recorded twice; and after it the browser
is sent on to a page that shows at least what was recorded (`at`).
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream

from journeyman import App, NotFound
from journeyman.web import (
    Answer,
    Form,
    Page,
    Request,
    SeeOther,
    Streams,
    Templates,
    WrongForm,
    event,
    read_form,
    submit,
)

from .commands import CreatePost, DeletePost, RequestSummaryGeneration, UpdatePost
from .queries import GetPost, ListPosts
from .state import Post, SummaryStatus

templates = Templates(__package__)

# Looking.


@get(["/", "/posts"])
async def list_posts(
    request: Request,
    app: NamedDependency[App],
    summary_status: FromQuery[SummaryStatus | None] = None,
    page: Annotated[int, QueryParameter(ge=1)] = 1,
    at: FromQuery[int | None] = None,
) -> Page:
    """The posts, newest first."""
    position = app.position
    found = await app.query(ListPosts(summary_status=summary_status, page=page), at_least=at)
    return templates.page(request, "list.html", found=found, summary_status=summary_status, position=position)


@get("/posts/read")
async def read_post(
    request: Request, app: NamedDependency[App], post_id: FromQuery[str], at: FromQuery[int | None] = None
) -> Page:
    """One post, with its summary or what has become of it."""
    return _reading(request, app.position, await app.query(GetPost(post_id=post_id), at_least=at), Form())


def _reading(request: Request, position: int, shown: Post, form: Form, *, status: int = 200) -> Page:
    return templates.page(request, "read.html", status=status, post=shown, form=form, position=position)


# Writing.


@get("/posts/write")
async def write_post(request: Request) -> Page:
    """An empty form for a post."""
    return templates.page(request, "write.html", form=Form(), post=None)


@post("/posts/write")
async def create_post(request: Request, app: NamedDependency[App]) -> Answer:
    """Publish it. The form's key is the post's id: sent twice, it is one post."""
    form = await read_form(request)
    try:
        receipt = await submit(app, request, form, form.read(CreatePost, post_id=form.key))
    except WrongForm as wrong:
        return templates.page(request, "write.html", status=wrong.status, form=wrong.form, post=None)
    return SeeOther("/posts/read", post_id=form.key, at=receipt.position)


@get("/posts/edit")
async def edit_post(request: Request, app: NamedDependency[App], post_id: FromQuery[str]) -> Page:
    """A form with the post as it is."""
    found = await app.query(GetPost(post_id=post_id))
    form = Form.of(post_id=found.post_id, title=found.title, content=found.content)
    return templates.page(request, "write.html", form=form, post=found)


@post("/posts/edit")
async def update_post(request: Request, app: NamedDependency[App]) -> Answer:
    """Change it."""
    form = await read_form(request)
    found = await app.query(GetPost(post_id=form.text("post_id")))
    try:
        receipt = await submit(app, request, form, form.read(UpdatePost))
    except WrongForm as wrong:
        return templates.page(request, "write.html", status=wrong.status, form=wrong.form, post=found)
    return SeeOther("/posts/read", post_id=found.post_id, at=receipt.position)


@get("/posts/delete")
async def confirm_deletion(request: Request, app: NamedDependency[App], post_id: FromQuery[str]) -> Page:
    """Ask before it is deleted."""
    found = await app.query(GetPost(post_id=post_id))
    return templates.page(request, "delete.html", form=Form(), post=found)


@post("/posts/delete")
async def delete_post(request: Request, app: NamedDependency[App]) -> Answer:
    """Delete it."""
    form = await read_form(request)
    try:
        receipt = await submit(app, request, form, form.read(DeletePost))
    except WrongForm as wrong:
        return templates.page(request, "delete.html", status=wrong.status, form=wrong.form, post=None)
    return SeeOther("/", at=receipt.position)


# Summaries.


@post("/posts/summary")
async def request_summary(request: Request, app: NamedDependency[App]) -> Answer:
    """Ask for a summary of the present text: a first one, another one, or once more after a failure."""
    form = await read_form(request)
    found = await app.query(GetPost(post_id=form.text("post_id")))
    command = RequestSummaryGeneration(request_id=form.key, post_id=found.post_id, content=found.content)
    try:
        receipt = await submit(app, request, form, command)
    except WrongForm as wrong:
        return _reading(request, app.position, found, wrong.form, status=wrong.status)
    return SeeOther("/posts/read", post_id=found.post_id, at=receipt.position)


@get("/posts/summaries")
async def follow_summaries(
    request: Request,
    app: NamedDependency[App],
    streams: NamedDependency[Streams],
    post_id: Annotated[list[str], QueryParameter(max_items=100)],
    after: FromQuery[int],
    part: FromQuery[Literal["summary", "teaser"]] = "summary",
) -> Stream:
    """The summaries of these posts as they come, as parts of a page: server-sent events, until none is waited for."""
    return streams.answer(_summaries(request, app, streams, post_id, after, f"{part}.html"))


async def _summaries(
    request: Request, app: App, streams: Streams, post_ids: list[str], after: int, template: str
) -> AsyncIterator[bytes]:
    waited_for = set(post_ids)
    told: dict[str, Post] = {}
    async for position in streams.growth(app, after=after):
        for post_id in sorted(waited_for):
            found = await _find(app, post_id, position)
            if found is not None and found is not told.get(post_id):
                told[post_id] = found
                html = templates.render(request.scope, template, post=found, form=Form())
                yield event(f"post-{found.created_at}", html)
            if found is None or found.summary_status in ("done", "failed"):
                waited_for.remove(post_id)
        if not waited_for:
            yield event("end", "")
            return


async def _find(app: App, post_id: str, position: int) -> Post | None:
    try:
        return await app.query(GetPost(post_id=post_id), at_least=position)
    except NotFound:
        return None


pages = Router(
    "/",
    route_handlers=[
        list_posts,
        read_post,
        write_post,
        create_post,
        edit_post,
        update_post,
        confirm_deletion,
        delete_post,
        request_summary,
        follow_summaries,
    ],
)
