"""Bills to add up, decided by a seed."""

import random
from collections.abc import Iterator

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from .bank import RATES
from .jobs import Jobs

tracer = trace.get_tracer(__name__)


def bills(count: int, seed: int = 1) -> Iterator[dict[str, float]]:
    """Yield bills in one to three currencies each."""
    chance = random.Random(seed)
    for _ in range(count):
        currencies = chance.sample(list(RATES), chance.randint(1, 3))
        yield {currency: chance.randint(100, 10_000) / 100 for currency in currencies}


def order(jobs: Jobs, count: int, *, at_once: int = 5) -> None:
    """Put so many bills into the queue, some at a time: each time is a trace, which goes on where they are added up."""
    waiting = list(bills(count))
    for start in range(0, count, at_once):
        with tracer.start_as_current_span("order bills", kind=SpanKind.PRODUCER):
            jobs.add(waiting[start : start + at_once])
