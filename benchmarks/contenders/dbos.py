"""DBOS, on SQLite unless another store is named: a workflow of two steps, called directly and through a queue."""

from __future__ import annotations

import os
import time
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSConfig

from benchmarks.load import Figures, main

STORE = os.environ.get("BENCHMARK_STORE", "sqlite:///log.db")


@DBOS.step()
def attempt(number: int) -> int:
    return number


@DBOS.step()
def answer(number: int) -> str:
    return f"good {number}"


@DBOS.workflow()
def review(number: int) -> str:
    return answer(attempt(number))


def _launch() -> Any:
    """Launch it; its queue, which is looked at each second, as it comes."""
    config: DBOSConfig = {
        "name": "benchmark",
        "system_database_url": STORE,
        "log_level": "ERROR",
        "run_admin_server": False,
    }
    DBOS(config=config)
    DBOS.launch()
    return DBOS.register_queue("reviews")


def _durability() -> str:
    import dbos._dbos

    engine: Any = dbos._dbos._get_dbos_instance()._sys_db.engine
    with engine.connect() as connection:
        if not STORE.startswith("sqlite:"):
            return f"synchronous_commit={connection.execute(sqlalchemy.text('SHOW synchronous_commit')).scalar()}"
        return " ".join(
            f"{name}={connection.execute(sqlalchemy.text(f'PRAGMA {name}')).scalar()}"
            for name in ("journal_mode", "synchronous")
        )


def direct(*, count: int) -> Figures:
    """Workflows one after the other, each to its recorded result."""
    _launch()
    review(-1)
    begun_s = time.perf_counter()
    for number in range(count):
        review(number)
    elapsed_s = time.perf_counter() - begun_s
    return {"per_s": count / elapsed_s, "durability": _durability()}


def queued(*, count: int) -> Figures:
    """Workflows put into a queue, until all have their results."""
    queue = _launch()
    queue.enqueue(review, -1).get_result()
    begun_s = time.perf_counter()
    handles = [queue.enqueue(review, number) for number in range(count)]
    for handle in handles:
        handle.get_result()
    return {"per_s": count / (time.perf_counter() - begun_s), "durability": _durability()}


def idle(*, seconds: float) -> Figures:
    """The processor time of an application that waits, with a queue."""
    queue = _launch()
    queue.enqueue(review, -1).get_result()
    begun_s, used_s = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return {"cpu_percent": 100 * (time.process_time() - used_s) / (time.perf_counter() - begun_s)}


if __name__ == "__main__":
    main({"direct": direct, "queued": queued, "idle": idle})
    DBOS.destroy()
