"""One cache with all its options against a model that remembers everything: no value is served that it must not serve."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_perfopt.cache.terms import entry_options
from otel_perfopt.testing import ManualClock
from tests.cache.support import TIMEOUT, new_cache

TTL, STALE_FOR, ERROR_TTL, REFRESH_AFTER = 10, 15, 4, 6
KEYS, TAGS = ("a", "b"), ("x", "y")
BROKEN = ConnectionError("down")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stale": {"stale_for": STALE_FOR},
    "errors": {"error_ttl": ERROR_TTL},
    "refresh": {"refresh_after": REFRESH_AFTER},
    "soft": {"stale_for": STALE_FOR, "soft_timeout": 2, "hard_timeout": 5},
    "all": {"stale_for": STALE_FOR, "error_ttl": ERROR_TTL, "refresh_after": REFRESH_AFTER, "soft_timeout": 2, "hard_timeout": 5},
    "lru, three": {"stale_for": STALE_FOR, "refresh_after": REFRESH_AFTER, "policy": "lru", "max_size": 1},
}

KEY, SOME_TAGS = st.sampled_from(KEYS), st.sets(st.sampled_from(TAGS))
STEP = st.one_of(
    st.tuples(st.just("set"), KEY, SOME_TAGS),
    st.tuples(st.just("ask"), KEY, SOME_TAGS, SOME_TAGS),
    st.tuples(st.just("ask"), KEY, SOME_TAGS, SOME_TAGS),
    st.tuples(st.just("end"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("end"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("look"), KEY),
    st.tuples(st.just("delete"), KEY),
    st.tuples(st.just("expire"), KEY),
    st.tuples(st.just("invalidate_tag"), st.sampled_from(TAGS)),
    st.tuples(st.just("clear")),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("advance"), st.sampled_from([1, 2, 3, 5, 8])),
)


class Value:
    """A value, with all that decides who may have it."""

    def __init__(self, key: str, tags: set[str], begun: int) -> None:
        self.key = key
        self.tags = tags
        self.begun = begun  # the step in which it began to be made
        self.made = float("inf")  # the time at which it was stored or returned


class Model:
    """What has happened to a cache, step by step; and asks it on a loop, one step of everything at a time."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.clock = ManualClock()
        self.options = options
        self.cache = new_cache(ttl=TTL, clock=self.clock, **options)
        self.step = 0
        self.history: list[tuple[int, str, str | None]] = []  # of invalidations
        self.loads: list[tuple[Value, asyncio.Future[bool]]] = []
        self.callers: list[tuple[int, asyncio.Task[Any]]] = []
        self.answers = 0

    def was_invalidated(self, value: Value, until: int) -> bool:
        """Whether something invalidated a value between its beginning and that step."""
        return any(
            value.begun <= step < until
            and (how == "clear" or (how == "tag" and what in value.tags) or (how in ("delete", "set") and what == value.key))
            for step, how, what in self.history
        )

    def check(self, value: Any, key: str, asked: int, *, may_be_stale: bool) -> None:
        """A value that was returned to somebody who asked in that step, and was answered now."""
        assert isinstance(value, Value)
        assert value.key == key
        assert not self.was_invalidated(value, asked), "it was invalidated before somebody asked"
        window = TTL + (self.options.get("stale_for", 0) if may_be_stale else 0)
        # Whoever asked may have been waiting; what it found was worth serving at some time since.
        assert self.clock() - value.made < window or value.made == float("inf") or value.begun >= asked

    async def settle(self) -> None:
        """Let everything on the loop come to rest."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def take_answers(self) -> None:
        """Look at what callers got in this step."""
        for asked, task in list(self.callers):
            if task.done():
                self.callers.remove((asked, task))
                if task.cancelled():
                    continue
                error = task.exception()
                if error is not None:
                    assert error is BROKEN or type(error).__name__ == "LoadTimeout", repr(error)
                else:
                    self.check(task.result(), task.get_name(), asked, may_be_stale=True)
                    self.answers += 1

    def ask(self, key: str, tags: set[str], late: set[str]) -> None:
        """Have a caller ask for a key, with a loader that ends when it is told to."""

        async def load() -> Value:
            value = Value(key, tags | late, self.step)
            ending: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self.loads.append((value, ending))
            is_fine = await ending
            entry_options(tags=late)
            if not is_fine:
                raise BROKEN
            value.made = self.clock()
            return value

        task = asyncio.create_task(self.cache.get_async(key, load, tags=tags), name=key)
        self.callers.append((self.step, task))

    async def do(self, name: str, *arguments: Any) -> None:
        """Do one step."""
        self.step += 1
        cache = self.cache
        if name == "ask":
            self.ask(*arguments)
        elif name == "set":
            key, tags = arguments
            self.history.append((self.step, "set", key))
            self.step += 1
            value = Value(key, tags, self.step)
            value.made = self.clock()
            cache.set(key, value, tags=tags)
        elif name == "end" and self.loads:
            _, ending = self.loads.pop(arguments[0] % len(self.loads))
            if not ending.done():
                ending.set_result(arguments[1])
        elif name == "look":
            value = cache.get(arguments[0])
            if value is not None:
                self.check(value, arguments[0], self.step, may_be_stale=False)
        elif name == "cancel" and self.callers:
            self.callers[arguments[0] % len(self.callers)][1].cancel()
        elif name == "advance":
            self.clock.advance(arguments[0])
        elif name in ("delete", "clear", "invalidate_tag"):
            how = "tag" if name == "invalidate_tag" else name
            getattr(cache, name)(*arguments)
            self.history.append((self.step, how, arguments[0] if arguments else None))
        elif name == "expire":
            cache.expire(*arguments)
            assert arguments[0] not in cache
        await self.settle()
        await self.take_answers()
        assert len(cache._store.policy) == len(cache)

    async def run(self, steps: list[Any]) -> None:
        """Do all steps, and then let everything end."""
        for name, *arguments in steps:
            await self.do(name, *arguments)
        for _ in range(100):
            if not self.callers and not self.cache.stats().loads_in_flight:
                break
            await self.do("end", 0, True)
        assert not self.callers, "somebody waits for ever"
        assert self.cache.stats().loads_in_flight == 0
        assert self.cache.stats().load_waiters == 0


@pytest.mark.parametrize("options", OPTIONS)
@settings(max_examples=60)
@given(steps=st.lists(STEP, max_size=40))
def test_no_value_is_served_that_was_invalidated_after_its_load_began(options: str, steps: list[Any]) -> None:
    """Nor longer than it may be, and everybody is answered."""

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT):
            await Model(OPTIONS[options]).run(steps)

    asyncio.run(main())


def test_the_model_would_notice() -> None:
    """A cache that forgets an invalidation is found out."""

    async def main(break_it: Callable[[Any], None]) -> None:
        model = Model(OPTIONS["stale"])
        break_it(model.cache)
        await model.run(
            [("ask", "a", {"x"}, set()), ("invalidate_tag", "x"), ("end", 0, True), ("ask", "a", {"x"}, set()), ("end", 0, True)]
        )

    def forget(cache: Any) -> None:
        cache._tags.invalidate = lambda _: None

    asyncio.run(main(lambda _: None))
    with pytest.raises(AssertionError, match="it was invalidated before somebody asked"):
        asyncio.run(main(forget))
