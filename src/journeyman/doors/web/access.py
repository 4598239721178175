"""Who asks: found by the guard, left in the ASGI scope for whoever answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

#: Where the scope keeps it.
ACCESS: Final = "journeyman.access"

#: What one may do: a reader looks, an operator acts, too.
Role = Literal["reader", "operator"]


class Access(Struct, frozen=True):
    """Who asks, what they may do, and what their forms have to bring along, as a proof that they are ours."""

    actor: str
    role: Role
    csrf: str


def access_of(scope: Mapping[str, Any]) -> Access:
    """Who asks. Without a guard that finds it out, whoever reaches the door is its operator."""
    found: Access = scope.get(ACCESS) or Access("http", "operator", "")
    return found
