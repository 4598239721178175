"""Decentralised accounts of a NATS server: an operator, an account and a user, each vouched for by the one above.

The form is of docs.nats.io, "In Depth JWT Guide": JSON Web Tokens, signed by NKeys, ed25519 keys in base32.
"""

from __future__ import annotations

import base64
import json
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final

#: What an account may do: everything, without end.
_NO_LIMITS: Final = dict.fromkeys(
    (
        "subs",
        "data",
        "payload",
        "conn",
        "leaf",
        "imports",
        "exports",
        "mem_storage",
        "disk_storage",
        "streams",
        "consumer",
    ),
    -1,
) | {"wildcards": True}

#: And the system's own account, which may store nothing.
_NO_LIMITS_SYSTEM: Final = {key: value for key, value in _NO_LIMITS.items() if "st" not in key and key != "consumer"}


class _Key:
    """A key pair of one kind: O(perator), A(ccount) or U(ser)."""

    def __init__(self, kind: int) -> None:
        nkeys = import_module("nkeys")
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), kind)
        self._pair = nkeys.from_seed(self.seed)

    @property
    def public(self) -> str:
        name: bytes = self._pair.public_key
        return name.decode()

    def vouch(self, for_whom: _Key, name: str, claims: dict[str, Any]) -> str:
        """The token that says so."""
        claim = {
            "jti": base64.b32encode(os.urandom(32)).decode().rstrip("="),
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": for_whom.public,
            "nats": {"version": 2, **claims},
        }
        content = f"{_encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encoded(claim)}"
        return f"{content}.{_base64(self._pair.sign(content.encode()))}"


def make_account(folder: Path) -> tuple[Path, str]:
    """A user's credentials file, and the part of a server's configuration that lets that user in."""
    nkeys = import_module("nkeys")
    operator, system, account, user = (
        _Key(getattr(nkeys, f"PREFIX_BYTE_{kind}")) for kind in ("OPERATOR", "ACCOUNT", "ACCOUNT", "USER")
    )
    of_operator = operator.vouch(operator, "operator", {"type": "operator", "system_account": system.public})
    of_system = operator.vouch(system, "system", {"type": "account", "limits": _NO_LIMITS_SYSTEM})
    of_account = operator.vouch(account, "blog", {"type": "account", "limits": _NO_LIMITS})
    of_user = account.vouch(user, "ann", {"type": "user", "subs": -1, "data": -1, "payload": -1})
    credentials = folder / "ann.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    configuration = f"""
        operator: {of_operator}
        resolver: MEMORY
        resolver_preload: {{ {account.public}: {of_account}, {system.public}: {of_system} }}
    """
    return credentials, configuration


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
