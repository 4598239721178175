"""eventsourcing: an aggregate is loaded from its events, commanded, and saved."""

from __future__ import annotations

import os
import time
from itertools import islice
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from benchmarks.load import Figures, Writing, drive_in_place, main, recorded_writings, writings

#: How many events one read of the replay asks for.
READ_MAX = 1000


class Post(Aggregate):
    """A post, whose revision must be the next one."""

    @event("Created")
    def __init__(self, post_id: str) -> None:
        self.post_id = post_id
        self.title = self.content = ""
        self.revision = 0

    @staticmethod
    def create_id(post_id: str) -> UUID:
        return _id_of(post_id)

    def write(self, title: str, content: str, revision: int) -> None:
        if revision != self.revision + 1:
            raise ValueError(f"{self.post_id} has another revision by now.")
        self._written(title, content, revision)

    @event("Written")
    def _written(self, title: str, content: str, revision: int) -> None:
        self.title, self.content, self.revision = title, content, revision


def _id_of(post_id: str) -> UUID:
    return uuid5(NAMESPACE_URL, post_id)


class Posts(Application[UUID]):
    """An application that reads as many events at a time as the others do."""

    log_section_size = READ_MAX


def _application() -> Posts:
    os.environ.update(PERSISTENCE_MODULE="eventsourcing.sqlite", SQLITE_DBNAME="log.db")
    return Posts()


def _durability(app: Any) -> str:
    with app.factory.datastore.get_connection(commit=True) as connection:
        cursor = connection.cursor()
        return " ".join(f"{name}={_setting(cursor, name)}" for name in ("journal_mode", "synchronous"))


def _setting(cursor: Any, name: str) -> Any:
    cursor.execute(f"PRAGMA {name}")
    [value] = tuple(cursor.fetchone())
    return value


def load_command_save(*, count: int) -> Figures:
    """One caller that loads an aggregate, commands it and saves it. The aggregates' histories are short."""
    app = _application()
    app.save(*(Post(identity) for identity in sorted({writing.post_id for writing in islice(writings(0), 100)})))

    def execute(writing: Writing) -> None:
        post: Any = app.repository.get(_id_of(writing.post_id))
        post.write(writing.title, writing.content, writing.revision)
        app.save(post)

    return drive_in_place(execute, count=count) | {"durability": _durability(app)}


def save_one(*, count: int) -> Figures:
    """One caller that saves new aggregates, one event each, and loads nothing."""
    app = _application()
    numbers = iter(range(10 * count + 1000))

    def execute(_: Writing) -> None:
        app.save(Post(f"post-{next(numbers)}"))

    return drive_in_place(execute, count=count) | {"durability": _durability(app)}


def save_batch(*, count: int) -> Figures:
    """All new aggregates saved in one transaction."""
    app = _application()
    aggregates = [Post(f"post-{number}") for number in range(count)]
    begun_s = time.perf_counter()
    app.save(*aggregates)
    return {"per_s": count / (time.perf_counter() - begun_s), "durability": _durability(app)}


def replay(*, count: int, rows: int) -> Figures:
    """Read all events, decode them, and apply them to a dict: what a projection does."""
    app = _application()
    posts = {f"post-{number:08d}": Post(f"post-{number:08d}") for number in range(rows)}
    for writing in recorded_writings(count - rows, rows):
        posts[writing.post_id].write(writing.title, writing.content, writing.revision)
    app.save(*posts.values())
    rebuilt: dict[UUID, tuple[str, str, int]] = {}
    position = 0
    begun_s = time.perf_counter()
    while notifications := app.notification_log.select(position + 1, READ_MAX):
        for notification in notifications:
            event: Any = app.mapper.to_domain_event(notification)
            if isinstance(event, Post.Written):
                rebuilt[event.originator_id] = (event.title, event.content, event.revision)
        position = notifications[-1].id
    elapsed_s = time.perf_counter() - begun_s
    if position != count or len(rebuilt) != rows:
        raise RuntimeError(f"{position} of {count} events were read, for {len(rebuilt)} of {rows} posts")
    return {"per_s": count / elapsed_s}


if __name__ == "__main__":
    main({"load-command-save": load_command_save, "save-one": save_one, "save-batch": save_batch, "replay": replay})
