"""Tokens: long random texts by which programs and people show that they may read, or act.

They come from the environment or from a file, never from the command line, where every user of the machine sees them.
What is kept of a token recognises it and signs in its name; the text itself is forgotten, so that no log can show it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
import stat
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, get_args

from journeyman.doors.web.access import Role
from journeyman.errors import DefinitionError

logger = logging.getLogger(__name__)

#: The variables that hold tokens, divided by spaces, each `TOKEN` or `NAME:TOKEN`.
OPERATOR_VARIABLE: Final = "JOURNEYMAN_OPERATOR_TOKEN"
READER_VARIABLE: Final = "JOURNEYMAN_READER_TOKEN"

#: How hard a token must be to guess: then no number of tries is enough.
TOKEN_BITS_MIN: Final = 128

#: A text of many characters that are nearly all the same is no random one.
DISTINCT_MIN: Final = 8

#: Which characters a random text may have been drawn from, and from how many at a time; the first that fits counts.
_ALPHABETS: Final = (
    (string.digits, 10),
    (string.hexdigits, 16),
    (string.ascii_lowercase, 26),
    (string.ascii_uppercase, 26),
    (string.digits + string.ascii_lowercase, 36),
    (string.digits + string.ascii_uppercase, 36),
    (string.ascii_letters, 52),
)
_ALPHABET_MAX: Final = 64
_TOKEN: Final = re.compile(r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):)?(?P<secret>[A-Za-z0-9._~+/=-]+)")

#: What to do, in each error.
HOW: Final = "Make a good one with: journeyman token"


def new_token() -> str:
    """A token that is good enough, with some bits to spare."""
    return secrets.token_urlsafe(32)


class Token:
    """What is kept of one token. Its text is not."""

    __slots__ = ("_digest", "_key", "actor", "role")

    def __init__(self, secret: str, *, role: Role, name: str | None = None) -> None:
        self.role = role
        self.actor = role if name is None else f"{role}:{name}"
        self._digest = hashlib.sha256(secret.encode()).digest()
        self._key = hmac.digest(secret.encode(), b"journeyman: what this token signs", "sha256")

    def is_made_of(self, secret: str) -> bool:
        """Whether this is its text. How long that takes tells nothing: digests are compared, and whole."""
        return hmac.compare_digest(self._digest, hashlib.sha256(secret.encode(errors="replace")).digest())

    def sign(self, text: str) -> str:
        """A signature that only who has the token can make: the same in each process that was given it."""
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


class Tokens:
    """The tokens that a server takes. None of them: nobody is asked."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens)

    def find(self, secret: str) -> Token | None:
        """The token with this text. All are compared, so that the time does not tell which one is near."""
        found = [token for token in self._tokens if token.is_made_of(secret)]
        return found[0] if found else None


def read_tokens(environment: Mapping[str, str], file: Path | None = None) -> Tokens:
    """The tokens that the environment and a file name. The file has one on each line: `operator anna:TOKEN`.

    Raises:
        DefinitionError: one is too weak, malformed or there twice, or the file can't be read. It tells no token.
    """
    operators, readers = (environment.get(name, "").split() for name in (OPERATOR_VARIABLE, READER_VARIABLE))
    given: list[tuple[str, Role, str]] = [(OPERATOR_VARIABLE, "operator", text) for text in operators]
    given += [(READER_VARIABLE, "reader", text) for text in readers]
    if file is not None:
        given += _lines(file)
    return Tokens(_distinct(given))


def _distinct(given: Iterable[tuple[str, Role, str]]) -> Iterator[Token]:
    known: dict[str, str] = {}
    for where, role, text in given:
        name, secret = _parse(where, text)
        if secret in known:
            raise DefinitionError(f"{where} has a token that {known[secret]} has, too. {HOW}")
        known[secret] = where
        yield Token(secret, role=role, name=name)


def _parse(where: str, text: str) -> tuple[str | None, str]:
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise DefinitionError(f"{where} has what is neither TOKEN nor NAME:TOKEN. {HOW}")
    secret = match["secret"]
    if len(set(secret)) < DISTINCT_MIN or bits_of(secret) < TOKEN_BITS_MIN:
        raise DefinitionError(f"{where} has a token that could be guessed: it needs {TOKEN_BITS_MIN} bits. {HOW}")
    return match["name"], secret


def bits_of(secret: str) -> float:
    """How many bits a random text of this length and alphabet has."""
    characters = set(secret)
    size = next((size for alphabet, size in _ALPHABETS if characters <= set(alphabet)), _ALPHABET_MAX)
    return len(secret) * math.log2(size)


def _lines(file: Path) -> Iterator[tuple[str, Role, str]]:
    try:
        text = file.read_text(encoding="ascii")
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"The tokens in {file} can't be read: {error}.") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        logger.warning("every user of this machine can read or change the tokens in %s: chmod 600 mends that", file)
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words:
            yield _entry(f"Line {number} of {file}", words)


def _entry(where: str, words: list[str]) -> tuple[str, Role, str]:
    for role in get_args(Role):
        if len(words) == 2 and words[0] == role:
            return where, role, words[1]
    raise DefinitionError(f"{where} is neither `operator TOKEN` nor `reader TOKEN`; NAME:TOKEN names who has it. {HOW}")
