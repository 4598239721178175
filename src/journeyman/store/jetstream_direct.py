"""Reading a stream's messages, many at a time, from whichever replica answers (ADR-31); or one from the leader."""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from journeyman.errors import NotReady
from journeyman.store.jetstream_connection import Connection
from journeyman.store.jetstream_reply import NoReply, Refused, reading

#: The most messages, and about the most bytes, that one request asks for: the driver holds them all in memory.
READ_MESSAGES_MAX: Final = 1000
READ_BYTES_MAX: Final = 8 * 1024 * 1024

#: An answer with fewer bytes than this was not cut off at READ_BYTES_MAX: no message is larger than the difference.
_CUT_BYTES_MIN: Final = READ_BYTES_MAX - 2 * 1024 * 1024

#: How long a replica's answer may keep one waiting, in seconds, at the first try; each next one may take twice as long.
ANSWER_FIRST_S: Final = 0.1
ANSWER_MAX_S: Final = 1.6

#: The option that has the server leave out what it would say of each message, and what its writer said.
NO_HEADERS: Final = "no_hdr"

#: The statuses at the end of an answer: there is no more in the batch; there is nothing at all.
_END: Final = "204"
_NOTHING: Final = "404"

#: JetStream's number for a message that is not there: server/errors.json in nats-server.
_NO_MESSAGE: Final = 10037


class Chunk(msgspec.Struct, frozen=True):
    """Contents of messages in order; `ended` when the replica had no more of them."""

    contents: list[bytes]
    ended: bool


class Stored(msgspec.Struct, frozen=True):
    """One message, as the leader has it."""

    sequence: int
    content: bytes


class Direct:
    """Reads from one stream.

    Raises:
        NotReady: it can't be read now.
    """

    def __init__(self, connection: Connection, stream: str) -> None:
        self._connection = connection
        self._stream = stream

    async def chunk(self, sequence: int, limit: int, *, subject: str | None = None) -> Chunk:
        """Messages from a sequence number on, of one subject or of all. The replica may be behind the leader.

        Without headers, whose parsing would take three quarters of the time. A server that does not know this option,
        which NATS calls deprecated, sends them all the same.
        """
        wanted = min(limit, READ_MESSAGES_MAX)
        request: dict[str, object] = {"seq": sequence, "batch": wanted, "max_bytes": READ_BYTES_MAX, NO_HEADERS: True}
        if subject is not None:
            request["next_by_subj"] = subject
        data = msgspec.json.encode(request)
        contents, status = await self._ask_replicas(data)
        if status not in (_END, _NOTHING):
            raise NotReady(f"The server does not read the stream {self._stream}: it says {status}. Try again.")
        ended = len(contents) < wanted and sum(map(len, contents)) < _CUT_BYTES_MIN
        return Chunk(contents, ended)

    async def _ask_replicas(self, request: bytes) -> tuple[list[bytes], str]:
        """Ask again where no answer comes: the server takes any replica, also one that hangs, or was cut off."""
        subject, idle_s = f"$JS.API.DIRECT.GET.{self._stream}", ANSWER_FIRST_S
        with reading():
            while True:
                try:
                    return await self._connection.request_many(subject, request, idle_s=idle_s)
                except NoReply:
                    if idle_s >= ANSWER_MAX_S:
                        self._connection.drop()
                        raise
                idle_s *= 2

    async def next(self, sequence: int, subject: str) -> Stored | None:
        """The leader's first message of a subject from a sequence number on."""
        return await self._get({"seq": sequence, "next_by_subj": subject})

    async def at(self, sequence: int) -> Stored | None:
        """The leader's message of that sequence number."""
        return await self._get({"seq": sequence})

    async def newest(self, subject: str) -> Stored | None:
        """The leader's last message of a subject."""
        return await self._get({"last_by_subj": subject})

    async def _get(self, request: dict[str, object]) -> Stored | None:
        with reading():
            try:
                answer = await self._connection.ask(f"STREAM.MSG.GET.{self._stream}", request)
            except Refused as refused:
                if refused.code == _NO_MESSAGE:
                    return None
                raise
        message = answer["message"]
        return Stored(message["seq"], base64.b64decode(message.get("data", "")))

    async def subjects(self, filter: str) -> list[str]:  # noqa: A002  # JetStream's own word
        """The subjects that have messages, as the leader has them, at most the 100,000 that one answer holds."""
        with reading():
            info = await self._connection.ask(f"STREAM.INFO.{self._stream}", {"subjects_filter": filter})
        return sorted(info["state"].get("subjects") or ())
