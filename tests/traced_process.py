"""A process that runs a desk's workers and prints its spans: started by test_telemetry, never by hand.

    python -m tests.traced_process URL

Each span is a line of JSON. It ends once no job is open.
"""

from __future__ import annotations

import asyncio
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from journeyman import App
from tests.test_telemetry import make_workers
from tests.todo.desk import desk, idle, until


async def main(url: str) -> None:
    provider = TracerProvider()
    exporter = ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    app = App(features=[desk], workers=make_workers())
    async with app.running(url):
        await until(app, idle)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
