"""What a `nats://` URL says: which servers, which log, how many replicas, and how to show who one is."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from journeyman.errors import NotReady, UnknownName

#: The options that may stand behind the `?` of a URL.
OPTIONS: Final = ("ca", "cert", "creds", "key", "monitor", "replicas", "tls")

#: What a log may be called. No hyphen: what belongs to a log beside its stream is named `NAME-…`.
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}")

_FORM: Final = "nats://host:4222/NAME"


class Login(msgspec.Struct, frozen=True):
    """Who one is. It never shows itself: neither in an error nor in a log."""

    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | None = None

    def __repr__(self) -> str:
        return "Login(…)"

    __str__ = __repr__


class Tls(msgspec.Struct, frozen=True):
    """Paths of PEM files. With `required`, nothing is said to a server that does not speak TLS; with `first`, TLS comes
    before the server's first word.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    required: bool = False
    first: bool = False


class Address(msgspec.Struct, frozen=True):
    """Where a log is, and how to get there.

    `hosts` are `host:port`. `replicas` is None where the URL leaves it open. `monitors` are the URLs of servers'
    monitoring ports, which tell what a client is not told. `url` is the URL without passwords and tokens.
    """

    url: str
    hosts: tuple[str, ...]
    name: str
    replicas: int | None
    monitors: tuple[str, ...]
    tls: Tls
    login: Login

    def connect_options(self) -> dict[str, Any]:
        """The arguments that the driver's `connect` takes for the login and for TLS.

        Raises:
            NotReady: a file of TLS can't be read.
        """
        login = self.login
        options: dict[str, Any] = {"user": login.user, "password": login.password, "token": login.token}
        options["user_credentials"] = login.creds
        if self.tls.required:
            options["tls"] = _tls_context(self.tls)
            options["tls_handshake_first"] = self.tls.first
        return options


def parse_address(url: str, environment: Mapping[str, str] = os.environ) -> Address:
    """Take a URL apart: `nats://[user:password@]host[:port][,host…]/NAME[?option=value&…]`.

    What it leaves out is taken from the variables that the `nats` tool reads, too: NATS_USER, NATS_PASSWORD,
    NATS_TOKEN, NATS_CREDS, NATS_CA, NATS_CERT, NATS_KEY.

    Raises:
        UnknownName: it has another form, or an option that is not known. The text holds no part of the login.
    """
    authority, _, rest = url.partition("://")[2].partition("/")
    name, _, query = rest.partition("?")
    userinfo, _, hosts = authority.rpartition("@")
    named = tuple(_with_port(host) for host in hosts.split(",") if host)
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not named or not _NAME.fullmatch(name):
        raise UnknownName("log by a nats:// URL", name, known=[f"{_FORM}, with a name of letters, digits and _"])
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise UnknownName("option of a nats:// URL", unknown[0], known=OPTIONS)
    given = {key.removeprefix("NATS_").lower(): value for key, value in environment.items() if key.startswith("NATS_")}
    login = _login(userinfo, options, given)
    return Address(
        url=_shown(login if userinfo else Login(), ",".join(named), name, options),
        hosts=named,
        name=name,
        replicas=_replicas(options.get("replicas")),
        monitors=tuple(filter(None, options.get("monitor", "").split(","))),
        tls=_tls(options, given),
        login=login,
    )


def _with_port(host: str) -> str:
    return host if re.search(r":\d+$", host) else f"{host}:4222"


def _login(userinfo: str, options: Mapping[str, str], given: Mapping[str, str]) -> Login:
    """What stands in the URL counts; the environment only where nothing does."""
    user, colon, password = (unquote(part) for part in userinfo.partition(":"))
    if colon:
        return Login(user=user, password=password)
    if user:
        return Login(token=user)
    if creds := options.get("creds"):
        return Login(creds=creds)
    if "user" in given and "password" in given:
        return Login(user=given["user"], password=given["password"])
    return Login(token=given.get("token"), creds=given.get("creds"))


def _tls(options: Mapping[str, str], given: Mapping[str, str]) -> Tls:
    way = options.get("tls")
    if way not in (None, "required", "first"):
        raise UnknownName("way of TLS", way, known=["required", "first"])
    files = {key: options.get(key) or given.get(key) for key in ("ca", "cert", "key")}
    return Tls(**files, required=way is not None or any(files.values()), first=way == "first")


def _tls_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:
        raise NotReady(f"A file for TLS can't be used: {error}. Mend ca=, cert= or key= in the store's URL.") from error
    return context


def _replicas(given: str | None) -> int | None:
    if given is None:
        return None
    if given not in ("1", "3", "5"):
        raise UnknownName("number of replicas", given, known=["1", "3", "5"])
    return int(given)


def _shown(login: Login, hosts: str, name: str, options: Mapping[str, str]) -> str:
    """The URL without what is secret: a token is left out, a user's name stays."""
    user = f"{quote(login.user, safe='')}@" if login.user is not None else ""
    query = f"?{urlencode(options, safe='/:,')}" if options else ""
    return f"nats://{user}{hosts}/{name}{query}"
