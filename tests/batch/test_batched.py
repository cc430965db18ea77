"""The decorator: callers pass one item and get one result."""

import asyncio
import copy
import gc
import inspect
import pickle
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_overloads

import pytest

from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor, batched, get_batch_processor
from otel_perfopt.errors import BatchError, ConfigurationError, UnknownName
from tests.batch.support import TIMEOUT, settle

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@batched(batch_size=4, batch_timeout=TIMEOUT)
def square(numbers: list[int]) -> list[int]:
    """Square numbers."""
    calls.append(numbers)
    return [number * number for number in numbers]


@batched(batch_timeout=0)
async def square_async(numbers: list[int]) -> list[int | BaseException]:
    calls.append(numbers)
    return [number * number if number else ValueError("zero") for number in numbers]


class Shop:
    """A class with everything that can be batched."""

    def __init__(self, rate: int) -> None:
        self.rate = rate

    @batched(batch_size=2, batch_timeout=0.001)
    def price(self, articles: list[str]) -> list[int]:
        calls.append((self.rate, articles))
        return [self.rate * len(article) for article in articles]

    @batched(batch_timeout=0)
    async def price_async(self, articles: list[str]) -> list[int]:
        calls.append((self.rate, articles))
        return [self.rate * len(article) for article in articles]

    @batched(batch_timeout=0, weigher=len, max_weight=5, dedupe=str.lower)
    async def weighed(self, articles: list[str]) -> list[str]:
        calls.append(articles)
        return articles

    @classmethod
    @batched(batch_timeout=0)
    def name_of(cls, articles: list[str]) -> list[str]:
        return [f"{cls.__name__} {article}" for article in articles]

    @batched(batch_timeout=0)
    @classmethod
    def name_inside(cls, articles: list[str]) -> list[str]:
        return [f"{cls.__name__} {article}" for article in articles]

    @staticmethod
    @batched(batch_timeout=0)
    def upper(articles: list[str]) -> list[str]:
        return [article.upper() for article in articles]

    @batched(batch_timeout=0)
    @staticmethod
    def upper_inside(articles: list[str]) -> list[str]:
        return [article.upper() for article in articles]


class Branch(Shop):
    pass


def test_calls_of_threads_go_together() -> None:
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(square, range(4))) == [0, 1, 4, 9]
    (items,) = calls
    assert sorted(items) == [0, 1, 2, 3]


def test_calls_of_tasks_go_together() -> None:
    async def main() -> None:
        assert await asyncio.gather(*[square_async(number) for number in (1, 2, 3)]) == [1, 4, 9]
        found = await asyncio.gather(square_async(0), square_async(2), return_exceptions=True)
        assert isinstance(found[0], ValueError)
        assert found[1] == 4

    asyncio.run(main())
    assert calls == [[1, 2, 3], [0, 2]]


def test_it_is_a_function_of_one_item() -> None:
    """With the name and the documentation of the function; it pickles and copies by name."""
    assert (square.__name__, square.__doc__, square.__module__) == ("square", "Square numbers.", __name__)
    assert str(inspect.signature(square)) == "(item, /)"
    assert str(inspect.signature(Shop.price)) == "(self, item, /)"
    assert str(inspect.signature(Shop(1).price)) == "(item, /)"
    assert inspect.iscoroutinefunction(square_async)
    assert not inspect.iscoroutinefunction(square)
    assert pickle.loads(pickle.dumps(square)) is square
    assert copy.deepcopy(square) is square
    assert square.__wrapped__([1, 2]) == [1, 4]
    with pytest.raises(TypeError):
        square(1, 2)


def test_its_processor() -> None:
    """Named after the function, and found by that name."""
    assert isinstance(square.processor, BatchProcessor)
    assert isinstance(square_async.processor, AsyncBatchProcessor)
    assert get_batch_processor(f"{__name__}.square") is square.processor

    @batched(name="my squares")
    def mine(numbers: list[int]) -> list[int]:
        return numbers

    assert get_batch_processor("my squares") is mine.processor


def test_each_instance_has_batches_of_its_own() -> None:
    """The method gets one `self`."""
    cheap, dear = Shop(1), Shop(10)

    async def main() -> list[int]:
        return await asyncio.gather(*[shop.price_async(name) for name in ("a", "bb") for shop in (cheap, dear)])

    assert asyncio.run(main()) == [1, 10, 2, 20]
    assert calls == [(1, ["a", "bb"]), (10, ["a", "bb"])]
    assert (cheap.price("ccc"), Shop.price(dear, "c")) == (3, 10)
    assert Shop.price_async.processor_of(cheap) is not Shop.price_async.processor_of(dear)
    assert Shop.price_async.processor_of(cheap).stats().item_count == 2


def test_options_of_a_method_are_about_its_items() -> None:
    """Not about the pairs in which they are kept."""
    shop = Shop(1)

    async def main() -> list[str]:
        return await asyncio.gather(*[shop.weighed(name) for name in ("tea", "TEA", "milk")])

    assert asyncio.run(main()) == ["tea", "tea", "milk"]
    assert calls == [["tea"], ["milk"]]


def test_no_instance_is_kept_alive() -> None:
    """Nor its processor, once there is nothing to do."""

    async def main() -> list[Any]:
        shop = Shop(3)
        kept = [weakref.ref(shop), weakref.ref(Shop.price_async.processor_of(shop))]
        answer = asyncio.create_task(shop.price_async("tea"))
        await asyncio.sleep(0)
        del shop
        assert await answer == 9  # its item was waiting, and so the instance was kept
        del answer
        await settle()
        return kept

    kept = asyncio.run(main())
    gc.collect()
    assert [each() for each in kept] == [None, None]


def test_the_place_of_a_dead_instance_is_nobodys() -> None:
    """A new one may get its identity."""
    seen = set()
    for rate in range(200):
        shop = Shop(rate)
        seen.add(id(shop))
        assert shop.price("x") == rate
        del shop
    assert len(seen) < 200


def test_class_and_static_methods() -> None:
    """In both orders of the decorators, through the class and through an instance."""
    for owner in (Shop, Shop(1)):
        assert owner.name_of("tea") == "Shop tea"
        assert owner.name_inside("tea") == "Shop tea"
        assert owner.upper("tea") == "TEA"
        assert owner.upper_inside("tea") == "TEA"
    assert Branch.name_of("tea") == "Branch tea"
    assert Branch(2).price("tea") == 6


def test_a_method_is_not_found_by_name() -> None:
    """There is one processor for each instance."""
    shop = Shop(1)
    assert shop.price("tea") == 3
    with pytest.raises(UnknownName):
        get_batch_processor(f"{__name__}.Shop.price")


def test_a_function_that_calls_itself() -> None:
    """It would wait for a batch that waits for it; for threads and for tasks, and for methods."""

    @batched(batch_timeout=0)
    def inner(numbers: list[int]) -> list[int]:
        return [inner(number - 1) if number else 0 for number in numbers]

    @batched(batch_timeout=0)
    async def inner_async(numbers: list[int]) -> list[int]:
        return [await inner_async(number - 1) if number else 0 for number in numbers]

    class Tree:
        @batched(batch_timeout=0)
        def walk(self, numbers: list[int]) -> Sequence[int]:
            return [self.walk(number - 1) if number else 0 for number in numbers]

        @batched(batch_timeout=0)
        async def walk_async(self, numbers: list[int]) -> Sequence[int]:
            return [await self.walk_async(number - 1) if number else 0 for number in numbers]

    with pytest.raises(BatchError, match=r"calls itself.*inner.__wrapped__\(\[item\]\)"):
        inner(1)
    with pytest.raises(BatchError, match="calls itself"):
        Tree().walk(1)
    for coroutine in (inner_async(1), Tree().walk_async(1)):

        async def main(awaitable: Any = coroutine) -> None:
            await awaitable

        with pytest.raises(BatchError, match="calls itself"):
            asyncio.run(main())
    assert inner(0) == 0


def test_a_caller_that_is_cancelled() -> None:
    """Its item is dropped; the others go on."""

    async def main() -> None:
        tasks = [asyncio.create_task(square_async(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == [4, 9]

    asyncio.run(main())
    assert calls == [[2, 3]]


@pytest.mark.parametrize("thing", [3, "f", []])
def test_it_decorates_functions(thing: Any) -> None:
    with pytest.raises(TypeError, match="decorates a function"):
        batched(thing)


def test_generators_are_refused() -> None:
    def generator(items: list[int]) -> Any:
        yield from items

    async def generator_async(items: list[int]) -> Any:
        for item in items:
            yield item

    for function in (generator, generator_async):
        with pytest.raises(TypeError, match="yields"):
            batched(function)


def test_options_that_cannot_work() -> None:
    """Refused at once, also for methods."""
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        batched(batch_size=0)(square.__wrapped__)
    with pytest.raises(ConfigurationError, match="on_full='never'"):

        class Bad:
            @batched(on_full="never")  # type: ignore[call-overload, untyped-decorator]
            def method(self, items: list[int]) -> list[int]:
                return items


def test_its_options_are_those_of_a_processor() -> None:
    """Type checkers are told all of them, with the same defaults."""

    def options(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and not p.name.startswith("_")}

    told = options(get_overloads(batched)[-1])
    assert told.pop("name") is None
    assert told == options(BatchProcessor)
