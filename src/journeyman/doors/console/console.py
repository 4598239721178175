"""What the pages of a console share: the application, its index and its past, and who asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from litestar import Request

from journeyman.app import App
from journeyman.doors.console.bulk import Account
from journeyman.doors.console.index.follower import Index, Progress
from journeyman.doors.console.past import Past
from journeyman.doors.console.wording import FILTERS
from journeyman.doors.web.access import access_of
from journeyman.doors.web.answers import Page
from journeyman.doors.web.forms import Form, WrongForm, read_form
from journeyman.doors.web.problems import READ_ONLY, Kind, Refused
from journeyman.doors.web.streams import Streams
from journeyman.doors.web.templates import Templates
from journeyman.timing import SYSTEM_TIMING, Timing

PATH: Final = "/console"

#: How many accounts of decisions are kept for the pages that tell them.
ACCOUNTS_MAX: Final = 100

#: How long a page waits for what the form before it recorded, in seconds.
SEEN_S: Final = 5.0

templates: Final = Templates(__name__.rpartition(".")[0], path=PATH, filters=FILTERS)


class Console:
    """The console of one application."""

    def __init__(self, app: App, streams: Streams, *, timing: Timing = SYSTEM_TIMING) -> None:
        self.app = app
        self.streams = streams
        self.index = Index(app)
        self.past = Past(app)
        self.accounts: OrderedDict[str, Account] = OrderedDict()
        self._timing = timing
        streams.at_end(self.stop)  # Where the site is mounted, nobody ends these: then the application's stop does.

    async def stop(self) -> None:
        """End what goes on in the background."""
        await self.past.stop()
        await self.index.stop()

    @property
    def now_us(self) -> int:
        """The time, in microseconds since 1970 UTC."""
        return self._timing.now_us()

    async def page(self, request: Request[Any, Any, Any], template: str, *, status: int = 200, **values: Any) -> Page:
        """A page, with what all of them show."""
        told = {"indexed": await self.index.progress(), "head": self.app.position, "now_us": self.now_us}
        return templates.page(request, template, status=status, **told, **values)

    async def progress(self) -> Progress:
        """How far the index is."""
        return await self.index.progress()

    async def form_of_operator(self, request: Request[Any, Any, Any]) -> Form:
        """The form that somebody sent who may act.

        Raises:
            Refused: whoever asks may only look; or it is no form.
        """
        if access_of(request.scope).role != "operator":
            raise Refused(READ_ONLY, "Sign in as an operator to do this. You can go on looking.")
        return await read_form(request)

    def keep_account(self, account: Account) -> str:
        """Keep what came of a decision, for the page that tells it. Returns its key."""
        key = self._timing.new_id()
        self.accounts[key] = account
        while len(self.accounts) > ACCOUNTS_MAX:
            self.accounts.popitem(last=False)
        return key

    async def see(self, position: int | None) -> None:
        """Wait until this process has applied a position: what another one recorded is on the page then.

        Raises:
            Busy: it takes too long.
        """
        if position is not None:
            await self.app.reach(position, timeout_s=SEEN_S)


def actor_of(request: Request[Any, Any, Any]) -> str:
    """Who asks, for what is recorded."""
    return access_of(request.scope).actor or "http"


@contextmanager
def deciding() -> Iterator[None]:
    """For the forms of decisions, which are buttons: what is wrong with one is told on a page of its own.

    Raises:
        Refused: the decision was not recorded.
    """
    try:
        yield
    except WrongForm as wrong:
        fields = (f"{name}: {sentence}" for name, sentence in wrong.form.errors.items())
        kind = Kind("not-done", wrong.status, "It was not done")
        raise Refused(kind, " ".join(filter(None, [wrong.form.problem, *fields]))) from wrong
