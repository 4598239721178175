"""What the URL of a PostgreSQL store says: the server, and two options of our own.

    postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME&pooler=transaction

All else in the query goes to the driver as it is, like `sslmode=verify-full` or `host=/run/postgresql`.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from journeyman.errors import NotReady

#: The schema in which a store lives, unless its URL names another.
SCHEMA_DEFAULT: Final = "journeyman"

#: Names that need no quotes, and leave room for what is put before them: PostgreSQL cuts names off at 63 bytes.
_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,47}")

PORT_MAX: Final = 65535

#: Parameters of the driver that hold secrets.
_SECRET: Final = ("password", "sslpassword")

_FORM: Final = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


class Address(msgspec.Struct, frozen=True):
    """Where a store lives, and how it is reached.

    `dsn` is for the driver, and may hold the password: nothing prints it. `url` is for people. `pooled` when a pooler
    may give each transaction another session of the server.
    """

    dsn: str
    url: str
    schema: str
    pooled: bool
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Address({self.url!r})"

    def without_secrets(self, text: str) -> str:
        """The text of another's error, as it may be shown."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text

    def lock_key(self, purpose: str) -> int:
        """The key of an advisory lock: a database has one set of them, for all its schemas."""
        digest = blake2b(f"journeyman {self.schema} {purpose}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    @property
    def channel(self) -> str:
        """What is notified when there is news."""
        return f"journeyman_{self.schema}"


def parse_address(url: str) -> Address:
    """Take the URL apart.

    Raises:
        NotReady: it is no such URL. The error shows nothing of it, because what does not fit may be a password.
    """
    try:
        parts = urlsplit(url)
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        _check(parts)
    except ValueError:
        raise NotReady(
            f"The store's URL can't be read. It must look like {_FORM}, and in the name and the password each "
            "character that is no letter or digit must be written as %XX, as urllib.parse.quote(TEXT, safe='') does."
        ) from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    shown = {name: value for name, value in options.items() if name not in _SECRET}
    secrets = (password, unquote(password), *(options[name] for name in _SECRET if name in options))
    schema, pooler = options.pop("schema", SCHEMA_DEFAULT), options.pop("pooler", None)
    if not _SCHEMA.fullmatch(schema):
        raise NotReady(f"The store's URL names the schema {schema!r}: use small letters, digits and _, at most 48.")
    if pooler not in (None, "transaction"):
        raise NotReady(f"The store's URL says pooler={pooler}: the only kind there is to say is pooler=transaction.")
    host = parts.netloc.rpartition("@")[2]
    return Address(
        dsn=_url(parts.netloc, parts.path, options),
        url=_url(f"{user}@{host}" if user else host, parts.path, shown),
        schema=schema,
        pooled=pooler is not None,
        secrets=tuple(secret for secret in secrets if secret),
    )


def _check(parts: SplitResult) -> None:
    """Refuse what a password that is not quoted makes of a URL: its rest, in places where it does not belong.

    Raises:
        ValueError: there is such a place.
    """
    for host in parts.netloc.rpartition("@")[2].split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not (port.isdecimal() and int(port) <= PORT_MAX):
            raise ValueError("no port")
    if parts.fragment or "@" in parts.path + parts.query or parts.path.count("/") > 1:
        raise ValueError("characters that are not quoted")


def _url(netloc: str, path: str, options: dict[str, str]) -> str:
    query = urlencode(options, quote_via=quote, safe="/")
    return f"postgresql://{netloc}{path}{'?' if query else ''}{query}"
