"""What type checkers know of batches. Checked by mypy --strict and pyright (strict), never run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import assert_type

from otel_perfopt import AsyncBatchProcessor, BatchProcessor, BatchStats, batched, get_batch_processor


def lengths(words: list[str]) -> list[int]:
    return [len(word) for word in words]


async def lengths_async(words: list[str]) -> list[int]:
    return lengths(words)


def checked(words: Sequence[str]) -> list[int | BaseException]:
    return [len(word) if word else ValueError("empty") for word in words]


@batched
def length(words: list[str]) -> list[int]:
    return lengths(words)


@batched(batch_size=100, batch_timeout="5ms", max_concurrent=2, dedupe=lambda word: str(word), name="lengths")
def length_with_options(words: list[str]) -> list[int]:
    return lengths(words)


@batched
async def length_async(words: list[str]) -> tuple[int, ...]:
    return tuple(lengths(words))


@batched(weigher=lambda word: len(str(word)), max_weight=1000)
async def length_async_with_options(words: list[str]) -> list[int]:
    return lengths(words)


class Shop:
    @batched
    def price(self, articles: list[str]) -> list[float]:
        return [1.5 for _ in articles]

    @batched(batch_size=20)
    async def stock(self, articles: list[str]) -> list[int]:
        return lengths(articles)

    @classmethod
    @batched
    def known(cls, articles: list[str]) -> list[bool]:
        return [True for _ in articles]

    @classmethod
    @batched
    async def known_async(cls, articles: list[str]) -> list[bool]:
        return [True for _ in articles]

    @staticmethod
    @batched
    def weight(articles: list[str]) -> list[int]:
        return lengths(articles)


def processors() -> None:
    with BatchProcessor("lengths", lengths, batch_size=5) as processor:
        assert_type(processor, BatchProcessor[str, int])
        assert_type(processor.add("word"), Future[int])
        assert_type(processor.add("word", timeout="5s").result(), int)
        assert_type(processor.flush(timeout=1), bool)
        assert_type(processor.close(), bool)
        assert_type(processor.stats(), BatchStats)
    wrong = processor.add(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wrong.cancel()
    assert_type(BatchProcessor("lengths", checked).add("word").result(), int)
    BatchProcessor("lengths", lengths_async)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BatchProcessor("lengths", lengths, on_full="block")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(get_batch_processor("lengths").close(), bool)
    assert_type(get_batch_processor("lengths", AsyncBatchProcessor).add(1).done(), bool)


async def processors_async() -> None:
    async with AsyncBatchProcessor("lengths", lengths_async, batch_size=5) as processor:
        assert_type(processor, AsyncBatchProcessor[str, int])
        future: asyncio.Future[int] = processor.add("word")
        assert_type(await future, int)
        assert_type(await processor.add("word", timeout="5s"), int)
        assert_type(await processor.flush(timeout=1), bool)
        assert_type(await processor.close(), bool)
    assert_type(await AsyncBatchProcessor("lengths", lengths).add("word"), int)


def functions() -> None:
    assert_type(length("word"), int)
    assert_type(length_with_options("word"), int)
    assert_type(length.processor, BatchProcessor[str, int])
    assert_type(length.__name__, str)
    length(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    length(["word"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    as_callable: Callable[[str], int] = length
    assert_type(as_callable("word"), int)


async def coroutines() -> None:
    assert_type(await length_async("word"), int)
    assert_type(await length_async_with_options("word"), int)
    assert_type(length_async.processor, AsyncBatchProcessor[str, int])
    assert_type(await asyncio.gather(length_async("a"), length_async("b")), tuple[int, int])
    as_callable: Callable[[str], Awaitable[int]] = length_async
    assert_type(await as_callable("word"), int)


async def methods(shop: Shop) -> None:
    assert_type(shop.price("tea"), float)
    assert_type(await shop.stock("tea"), int)
    assert_type(Shop.price(shop, "tea"), float)
    assert_type(Shop.price.processor_of(shop), BatchProcessor[str, float])
    assert_type(Shop.stock.processor_of(shop), AsyncBatchProcessor[str, int])
    assert_type(Shop.known("tea"), bool)
    assert_type(shop.known("tea"), bool)
    assert_type(await Shop.known_async("tea"), bool)
    assert_type(await shop.known_async("tea"), bool)
    assert_type(Shop.weight("tea"), int)
    assert_type(shop.weight("tea"), int)
    shop.price(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
