"""Who asks: found by the guard, left in the ASGI scope for whoever answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

#: Where the scope keeps it.
ACCESS: Final = "journeyman.access"

#: What one may do: a reader looks, an operator acts, too.
Role = Literal["reader", "operator"]

#: Whoever asks over this machine's own interface, where nobody set up tokens.
LOCAL_ACTOR: Final = "local"


class Access(Struct, frozen=True):
    """Who asks, what they may do, and what their forms have to bring along, as a proof that they are ours.

    `csrf` is empty where nothing has to be brought, since no browser by itself sends what showed who asks. `by_cookie`
    says that a cookie did: those a browser sends whatever site made it ask.
    """

    actor: str | None
    role: Role
    csrf: str
    by_cookie: bool = False


#: Who has shown nothing, and gets only what is open to everybody.
NOBODY: Final = Access(None, "reader", "")


def access_of(scope: Mapping[str, Any]) -> Access:
    """Who asks. Without a guard that finds it out, whoever reaches the door is its operator."""
    found: Access = scope.get(ACCESS) or Access("http", "operator", "")
    return found
