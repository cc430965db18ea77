"""Requests that ask for one article each, and a shop that answers many at once; in threads and on an event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from otel_perfopt import AsyncBatchProcessor, batched

PRICES = {"tea": 3.5, "milk": 1.2, "sugar": 2.0}
queries: list[list[str]] = []


@batched(batch_size=100, batch_timeout="20ms")
def price(articles: list[str]) -> list[float | BaseException]:
    """Ask for many prices in one query; an article that is not there fails alone."""
    queries.append(articles)
    return [PRICES[article] if article in PRICES else LookupError(f"no {article}") for article in articles]


async def store(lines: list[str]) -> list[int]:
    """Write many lines at once, and return their numbers."""
    await asyncio.sleep(0.001)
    return list(range(len(lines)))


async def log_everything() -> None:
    async with AsyncBatchProcessor("log", store, batch_size=50, max_concurrent=2, max_queue=200) as log:
        futures = [log.add(f"line {number}") for number in range(500)]
        await asyncio.gather(*futures)
    stats = log.stats()
    print(f"{stats.item_count} lines in {stats.flush_count} batches")
    assert (stats.item_count, stats.failed_count, stats.flush_count) == (500, 0, 10)


def main() -> None:
    with ThreadPoolExecutor(30) as threads:
        prices = list(threads.map(price, ["tea", "milk", "sugar"] * 10))
    assert prices == [3.5, 1.2, 2.0] * 10
    assert sum(map(len, queries)) == 30
    assert len(queries) < 30
    print(f"{len(prices)} prices in {len(queries)} queries")

    try:
        price("coffee")
    except LookupError as error:
        print("coffee:", error)

    asyncio.run(log_everything())


if __name__ == "__main__":
    main()
