"""Procrastinate on PostgreSQL: tasks that wait already, until all are done."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import procrastinate

from benchmarks.load import Figures, main

logging.disable(logging.WARNING)

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCHMARK_STORE"]))


@app.task(name="review")
async def review(number: int) -> str:
    return f"good {number}"


def jobs(*, count: int, concurrency: int) -> Figures:
    """Deferred together before the clock starts; then worked off, so many at a time."""

    async def run() -> Figures:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            await review.batch_defer_async(*({"number": number} for number in range(count)))
            begun_s = time.perf_counter()
            await app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)
            elapsed_s = time.perf_counter() - begun_s
            done = await app.connector.execute_query_one_async(
                "SELECT count(*) AS number FROM procrastinate_jobs WHERE status = 'succeeded'"
            )
            if done["number"] != count:
                raise RuntimeError(f"of {count} tasks {done['number']} were done")
            shown = await app.connector.execute_query_one_async("SHOW synchronous_commit")
            return {"per_s": count / elapsed_s, "durability": f"synchronous_commit={shown['synchronous_commit']}"}

    return asyncio.run(run())


if __name__ == "__main__":
    main({"jobs": jobs})
