"""huey on SQLite: tasks enqueued, and consumed by threads of the same process.

`fsync=True` is set, because huey does not wait for the disk otherwise. What it consumes is removed first, and so lost
when the process dies before its end: the work is less than that of the others.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from huey import SqliteHuey

from benchmarks.load import Figures, main

app = SqliteHuey("reviews", filename="log.db", fsync=True)
_left = 0
_gate = threading.Lock()
_done = threading.Event()


@app.task()  # type: ignore[untyped-decorator,unused-ignore]  # huey has no types
def review(number: int) -> str:
    global _left  # noqa: PLW0603  # a script, and the task runs in its threads
    with _gate:
        _left -= 1
        if _left == 0:
            _done.set()
    return f"good {number}"


def enqueue_and_consume(*, count: int, workers: int) -> Figures:
    """Tasks from the first enqueued to the last one done, its result stored."""
    global _left  # noqa: PLW0603  # as above
    _left = count
    consumer: Any = app.create_consumer(workers=workers, worker_type="thread", periodic=False)
    begun_s = time.perf_counter()
    results = [review(number) for number in range(count)]
    consumer.start()
    _done.wait()
    for result in results:
        result.get(blocking=True)
    elapsed_s = time.perf_counter() - begun_s
    consumer.stop(graceful=True)
    return {"per_s": count / elapsed_s, "durability": _durability()}


def enqueue(*, count: int) -> Figures:
    """Tasks enqueued only."""
    for number in range(count):
        review(number)
    return {"durability": _durability()}


def _durability() -> str:
    connection: Any = app.storage.conn
    return " ".join(
        f"{name}={connection.execute(f'PRAGMA {name}').fetchone()[0]}" for name in ("journal_mode", "synchronous")
    )


if __name__ == "__main__":
    main({"enqueue-and-consume": enqueue_and_consume, "enqueue": enqueue})
