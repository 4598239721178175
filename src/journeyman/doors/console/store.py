"""The processes that run the application's workers, and the store that it lives in."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler

from journeyman.doors.console.console import Console
from journeyman.doors.console.index.file import place_of
from journeyman.doors.web.answers import Page
from journeyman.errors import StoreError
from journeyman.heartbeat import Note
from journeyman.snapshots import SnapshotInfo
from journeyman.store.base import Examination


class Kept(msgspec.Struct, frozen=True):
    """A snapshot, and how old its state is: when its last message was recorded."""

    info: SnapshotInfo
    at_us: int | None


class StoreView(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows. `head` is the store's own, which may be past what this process has applied."""

    url: str
    durability: str
    head: int
    position: int
    instance: str
    stalled_s: float | None
    processes: dict[str, Note]
    snapshots: list[Kept]
    index: str | None
    examination: Examination | None = None
    trouble: str | None = None


def store_handlers(console: Console) -> list[HTTPRouteHandler]:
    """The page, and a close look at the store, which takes a while."""

    @get("/store")
    async def store(request: Request[Any, Any, Any]) -> Page:
        return await console.page(request, "store.html", shown=await _view(console))

    @post("/store/examine")
    async def examine(request: Request[Any, Any, Any]) -> Page:
        await console.form_of_operator(request)
        shown = await _view(console)
        try:
            shown = msgspec.structs.replace(shown, examination=await _examine(console))
        except StoreError as error:
            shown = msgspec.structs.replace(shown, trouble=str(error))
        return await console.page(request, "store.html", shown=shown)

    return [store, examine]


async def _examine(console: Console) -> Examination:
    """By a handle of its own: it reads everything, and nothing else of this process should wait for that."""
    handle = await console.app.store.open_again()
    try:
        return await handle.examine()
    finally:
        await handle.close()


async def _view(console: Console) -> StoreView:
    app = console.app
    first = await app.store.log.read(0, 1)
    place = place_of(app.store, first[0].id) if first else None
    return StoreView(
        url=app.store.url,
        durability=app.store.durability,
        head=await app.store.log.head(),
        position=app.position,
        instance=app.instance,
        stalled_s=app.stalled_s,
        processes=await app.instances(),
        snapshots=await _snapshots(console),
        index=None if place is None or place.in_memory else place.path,
    )


async def _snapshots(console: Console) -> list[Kept]:
    if console.app.snapshots is None:
        return []
    return [Kept(info, await _recorded_at(console, info.position)) for info in await console.app.snapshots.list()]


async def _recorded_at(console: Console, position: int) -> int | None:
    found = await console.app.store.log.read(position - 1, 1)
    return found[0].recorded_at_us if found else None
