"""Measured functions, coroutines and generators, with a failure among them."""

import asyncio
from collections.abc import Iterator

from otel_perfopt import get_performance_report, measure_performance, record_performance_metric


@measure_performance("parse")
def parse(text: str) -> int:
    """Return the number that `text` says."""
    return int(text)


@measure_performance("wait", span=False)
async def wait() -> None:
    """Wait for nothing in particular."""
    await asyncio.sleep(0.01)


@measure_performance("lines")
def lines(text: str) -> Iterator[str]:
    """Yield the lines of `text`; what the consumer does meanwhile is not measured."""
    yield from text.splitlines()


def main() -> None:
    numbers = []
    for line in lines("1\n2\nthree\n4"):
        try:
            numbers.append(parse(line))
        except ValueError as error:
            print("skipped:", error)
    print("sum:", sum(numbers))
    asyncio.run(wait())
    record_performance_metric("measured elsewhere", "1m30s")
    print()
    print(get_performance_report())


if __name__ == "__main__":
    main()
