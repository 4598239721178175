"""Copying a log from one store to another: positions, ids and times stay as they are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import count
from typing import Final, Literal

import msgspec

from journeyman.errors import Conflict, OutcomeUnknown, WrongLog
from journeyman.message import Record
from journeyman.store.base import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, MessageLog, Store

#: What is being done: comparing what the target has already, copying the rest, reading all of the target back.
Stage = Literal["comparing", "copying", "verifying"]

#: Is told the stage, how many messages it has behind it, and how many there are.
Progress = Callable[[Stage, int, int], None]

#: How often an append without an answer is made again, and the longest pause before, in seconds.
TRIES: Final = 10
PAUSE_S_MAX: Final = 2.0

_encode = msgspec.msgpack.Encoder().encode


class Copied(msgspec.Struct, frozen=True):
    """Both logs have `messages` now, of which `copied` were written; logs with the same `digest` are the same."""

    messages: int
    copied: int
    digest: str


async def copy_log(source: Store, target: Store, *, progress: Progress = lambda *_: None) -> Copied:
    """Copy the messages that the target lacks, then read all of it back and compare.

    Nothing is written unless all that the target has is what the source has there. Stopped at any moment, it goes on
    where it was with the next call. What is appended to the source meanwhile is copied, too, as far as it is seen.

    Raises:
        WrongLog: the target has other messages, more of them, or somebody else appends to it; or what was read back
            is not what was written.
        NotReady, OutcomeUnknown, Corrupt: of one of the stores. What is copied is copied; call it again.
    """
    digest = hashlib.blake2b(digest_size=16)
    present = await target.log.head()
    if present > (length := await source.log.head()):
        raise WrongLog(
            f"{target.url} has {present} messages, {source.url} only {length}: it is not a copy of it. Is it the other "
            "way round? Else name a new store."
        )
    await _compare(source, target, present, digest, progress)
    length = await _copy(source, target, present, digest, progress)
    if await _digest_of(target, length, progress) != digest.hexdigest():
        raise WrongLog(f"{target.url} gives back other messages than were copied into it. Do not use it.")
    return Copied(length, length - present, digest.hexdigest())


async def _compare(source: Store, target: Store, present: int, digest: hashlib.blake2b, progress: Progress) -> None:
    """Go through what both have; the digest takes it in."""
    position = 0
    async for records in _batches(source.log, 0, present):
        progress("comparing", position, present)
        found = await target.log.read(position, len(records))
        if found != records:
            differs = next((one.position for one, other in zip(records, found, strict=False) if one != other), None)
            raise WrongLog(
                f"{target.url} has another message at position {differs or position + len(found) + 1} than "
                f"{source.url}: it is not a copy of it. Name a new store."
            )
        _take_in(digest, records)
        position += len(records)


async def _copy(source: Store, target: Store, after: int, digest: hashlib.blake2b, progress: Progress) -> int:
    """Append what comes behind `after` in the source, to its end; the position reached."""
    length = await source.log.head()
    async for records in _batches(source.log, after):
        for batch in _cut(records):
            await _append(target, batch, after=after)
            after = batch[-1].position
            progress("copying", after, max(after, length))
        _take_in(digest, records)
    return after


async def _append(target: Store, batch: Sequence[Record], *, after: int) -> None:
    """Append, again while nobody says whether it was done: the identical call settles it."""
    for attempt in count(1):
        try:
            await target.log.append(batch, after=after)
            return
        except OutcomeUnknown:
            if attempt == TRIES:
                raise
            await asyncio.sleep(min(PAUSE_S_MAX, 0.05 * 2**attempt))
        except Conflict as conflict:
            raise WrongLog(
                f"Somebody else appends to {target.url}: its position {after + 1} is taken. Stop that, and copy into a "
                "new store."
            ) from conflict


async def _digest_of(store: Store, length: int, progress: Progress) -> str:
    digest = hashlib.blake2b(digest_size=16)
    async for records in _batches(store.log, 0, length):
        _take_in(digest, records)
        progress("verifying", records[-1].position, length)
    return digest.hexdigest()


async def _batches(log: MessageLog, after: int, end: int | None = None) -> AsyncIterator[list[Record]]:
    """What is behind `after`, up to `end` or the end of the log."""
    while records := await log.read(after, BATCH_RECORDS_MAX if end is None else min(BATCH_RECORDS_MAX, end - after)):
        yield records
        after = records[-1].position


def _cut(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Batches that one append may carry."""
    batch: list[Record] = []
    size = 0
    for record in records:
        if batch and size + len(record.body) > BATCH_BYTES_MAX:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.body)
    if batch:
        yield batch


def _take_in(digest: hashlib.blake2b, records: Sequence[Record]) -> None:
    for record in records:
        digest.update(_encode(record))
