"""Caches in front of Redis: what one changes, the others do not serve any more; on threads, on loops, in other processes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from otel_perfopt_redis import RedisTier

from otel_perfopt import cached, entry_options
from otel_perfopt.testing import capture
from tests.cache.support import run, spawn
from tests.integrations.redis.support import TIMEOUT, Calls, Server, Wire, until
from tests.tiers.sqlite_support import finished, process

NewTier = Callable[..., RedisTier]
NewCache = Callable[..., Any]


def shared(one: Any, *others: Any, **values: Any) -> None:
    """Set values in one cache, and let the others have them in memory, too."""
    for key, value in values.items():
        one.set(key, value, tags=["tag"])
    one.flush()
    until(lambda: all(other.get(key) == value for other in others for key, value in values.items()))


CHANGES: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "delete": ("delete", ("key",), None),
    "tag": ("invalidate_tag", ("tag",), None),
    "clear": ("clear", (), None),
    "set": ("set", ("key", "new"), "new"),
    "expire": ("expire", ("key",), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_one_changes_the_other_does_not_serve(new_cache: NewCache, do: Calls, change: str) -> None:
    """It goes from its memory, and it is not found in Redis either."""
    one, other = new_cache(), new_cache()
    shared(one, other, key="old")
    assert other.stats().hits_by_tier["redis"] == 1
    method, args, left = CHANGES[change]
    do(one, method, *args)
    one.flush()
    until(lambda: other.get("key") == left)
    assert do(other, "get", "key") == do(one, "get", "key") == left
    assert do(other, "get", "key", do.loading("loaded")) == (left or "loaded")


def test_what_one_loads_the_other_finds(new_cache: NewCache, do: Calls) -> None:
    """With its tags, those included that the loader has named."""
    one, other = new_cache(), new_cache()

    def load() -> str:
        entry_options(tags=["inner"])
        return "value"

    assert do(one, "get", "key", do.loader(load), tags=["outer"]) == "value"
    one.flush()
    assert do(other, "get", "key", do.loading("not loaded")) == "value"
    do(other, "invalidate_tag", "inner")
    until(lambda: one.get("key") is None)


def test_many(new_cache: NewCache, do: Calls, server: Server) -> None:
    """One command for all that is not in memory, and one load for what nobody has."""
    one, other = new_cache(), new_cache()
    shared(one, a=1, b=2)
    other.get("warm")
    asked: list[Any] = []

    def load(keys: Any) -> dict[str, int]:
        asked.append(sorted(keys))
        return dict.fromkeys(keys, 3)

    with server.counted() as calls:
        found = do(other, "get_many", ["a", "b", "c", "d"], do.loader(load))
    assert found == {"a": 1, "b": 2, "c": 3, "d": 3}
    assert asked == [["c", "d"]]
    assert calls.get("mget", 0) + calls.get("evalsha", 0) <= 5, "one to read, one for each that is written, and the listener's"
    other.flush()
    assert do(one, "get_many", ["c", "d"]) == {"c": 3, "d": 3}


def test_many_are_set(new_cache: NewCache, do: Calls) -> None:
    """Each of them replaces what others have."""
    one, other = new_cache(max_size=2000), new_cache(max_size=2000)
    old, new = ({f"{number}": f"{which} {number}" for number in range(300)} for which in ("old", "new"))
    do(one, "set_many", old)
    one.flush()
    assert do(other, "get_many", list(old)) == old
    do(one, "set_many", new)
    one.flush()
    until(lambda: other.get_many(list(new)) == new)


@pytest.mark.parametrize("change", ["delete", "tag", "clear", "set"])
def test_a_load_that_began_before_a_change_elsewhere_is_kept_nowhere(new_cache: NewCache, do: Calls, change: str) -> None:
    """Neither in memory nor in Redis."""
    one, other = new_cache(), new_cache()
    one.get("warm")

    def load() -> str:
        method, args, _ = CHANGES[change]
        spawn(getattr(other, method), *args).result(TIMEOUT)
        other.flush()
        return "old"

    assert do(one, "get", "key", do.loader(load), tags=["tag"]) == "old"
    one.flush()
    until(lambda: one.get("key") == CHANGES[change][2])
    assert new_cache().get("key") == CHANGES[change][2]


def test_a_cached_function(new_tier: NewTier) -> None:
    """Two processes would have the same function; here it is two of one name."""

    def make() -> Any:
        @cached(tiers=[new_tier()], ttl="1h", name="redis function")
        def square(number: int) -> int:
            calls.append(number)
            return number * number

        return square

    calls: list[int] = []
    one, other = make(), make()
    assert one(3) == 9
    one.cache.flush()
    assert other(3) == 9
    assert calls == [3]
    assert other.invalidate(3)
    until(lambda: one.cache.stats().size == 0)
    assert one(3) == 9
    assert calls == [3, 3]


def test_stale_values_outlive_a_process(new_cache: NewCache, do: Calls) -> None:
    """What is stale in Redis is served if the load fails."""
    one, other = new_cache(stale_for="1h"), new_cache(stale_for="1h")
    shared(one, key="old")
    one.expire("key")

    def fail() -> str:
        raise ConnectionError

    assert do(other, "get", "key", do.loader(fail)) == "old"
    one.delete("key")
    until(lambda: len(other) == 0)
    with pytest.raises(ConnectionError):
        do(other, "get", "key", do.loader(fail))


def test_figures_of_all_processes(new_cache: NewCache) -> None:
    """They are kept in Redis."""
    one, other = new_cache(), new_cache()
    one.get("key", lambda: 1)
    one.get("key")
    one.close()
    assert other.stats().lifetime["hits"] == 1
    assert other.stats().lifetime["misses"] == 1


# loops ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_loop_goes_on_while_redis_does_not_answer(new_cache: NewCache, wire: Wire) -> None:
    """Whatever is asked of the cache there: other tasks run meanwhile."""
    cache = new_cache(wire, timeout=0.2)
    cache.set("key", "value")
    cache.flush()

    async def load(*_: object) -> str:
        return "loaded"

    calls: list[Callable[[], Any]] = [
        lambda: cache.get_async("new", load),
        lambda: cache.set_async("key", "new"),
        lambda: cache.delete_async("key"),
        lambda: cache.expire_async("key"),
        lambda: cache.invalidate_tag_async("tag"),
        lambda: cache.clear_async(),
        lambda: cache.flush_async(),
    ]

    async def main() -> list[int]:
        ticks = []
        for call in calls:
            cache._behind.guards[0]._breaker.succeeded()  # each of them has to wait
            task = asyncio.ensure_future(call())
            count = 0
            while not task.done():
                await asyncio.sleep(0.001)
                count += 1
            await task
            ticks.append(count)
        return ticks

    wire.is_silent = True
    ticks = run(main())
    assert all(count > 20 for count in ticks[:-1]), f"the loop stood still: {ticks}"


@pytest.mark.slow
def test_bug_a_loop_goes_on_while_owed_changes_are_made_up_for(new_cache: NewCache, wire: Wire) -> None:
    """Somebody waits for Redis then, and others note what they owe meanwhile, with the lock of the cache, which a loop needs."""
    cache = new_cache(wire, timeout=1.0)
    cache.set("key", "value")
    cache.flush()
    guard = cache._behind.guards[0]
    guard._owe(tags=["owed"])
    for _ in range(3):
        guard._breaker.failed(cache.clock(), spread=1.0)
    wire.is_silent = True

    async def load() -> str:
        return "loaded"

    async def main() -> int:
        paying = spawn(guard.make_last_attempt)
        await asyncio.sleep(0.1)
        ticks = 0
        setting = asyncio.ensure_future(cache.set_async("other", 1))
        await asyncio.sleep(0.1)
        while not paying.done():
            await cache.get_async(f"new {ticks}", load)
            await asyncio.sleep(0.001)
            ticks += 1
        await setting
        return ticks

    assert run(main()) > 20, "the loop stood still"


def test_a_synchronous_call_on_a_loop_is_mentioned_once(new_cache: NewCache, caplog: pytest.LogCaptureFixture) -> None:
    """It works, and names its twin."""
    cache = new_cache()

    async def main() -> None:
        for number in range(3):
            cache.set(number, number)
            assert cache.get(f"new {number}", lambda: 1) == 1

    run(main())
    assert len([record for record in caplog.records if "blocks the event loop" in record.message]) == 1
    assert "get_async" in caplog.text


def test_memory_hits_ask_nobody(new_cache: NewCache, server: Server, do: Calls) -> None:
    """Not even on a loop."""
    cache = new_cache()
    cache.set("key", "value")
    cache.flush()
    with server.counted() as calls:
        for _ in range(20):
            assert do(cache, "get", "key") == "value"
    assert calls.get("mget", 0) + calls.get("evalsha", 0) < 10, "the listener asks now and then whether everything is there"


# processes -----------------------------------------------------------------------------------------------------

CHILD = """
import sys
from otel_perfopt import Cache
from otel_perfopt_redis import RedisTier

cache = Cache("redis", tiers=[RedisTier(sys.argv[1], namespace=sys.argv[2], timeout=5)], ttl=None)
cache.set("by the child", "set", tags=["child"])
assert cache.get("by the parent") == "set"
cache.flush()
print("ready", flush=True)
for line in sys.stdin:
    method, key = line.split()
    print(getattr(cache, method)(key), flush=True)
"""


def test_two_processes(new_cache: NewCache, server: Server, namespace: str) -> None:
    """They share what they have, and tell each other what they change."""
    cache = new_cache()
    cache.set("by the parent", "set")
    cache.flush()
    child = process(CHILD, server.url, namespace)
    assert child.stdin is not None
    assert child.stdout is not None

    def ask(method: str, key: str) -> str:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{method} {key}\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    try:
        assert child.stdout.readline() == "ready\n"
        assert cache.get("by the child") == "set"
        assert ask("invalidate_tag", "child") == "None"
        until(lambda: cache.get("by the child") is None)
        cache.set("key", "first")
        cache.flush()
        assert ask("get", "key") == "first"
        cache.delete("key")
        until(lambda: ask("get", "key") == "None")
        child.stdin.close()
        child.stdin = None
        finished(child)
    finally:
        child.kill()
        child.communicate()


def test_what_waits_at_the_end_of_a_process_is_written(new_cache: NewCache, server: Server, namespace: str) -> None:
    """Without a close or a flush."""
    code = """
    import sys
    from otel_perfopt import Cache
    from otel_perfopt_redis import RedisTier
    cache = Cache("redis", tiers=[RedisTier(sys.argv[1], namespace=sys.argv[2], timeout=5)], ttl=None)
    for number in range(100):
        cache.set(number, number)
    """
    finished(process(code, server.url, namespace))
    assert new_cache().get_many(list(range(100))) == {number: number for number in range(100)}


def test_a_process_without_a_redis_ends_in_time(namespace: str) -> None:
    """What it could not write is lost, and nothing is raised."""
    code = """
    import sys
    from otel_perfopt import Cache
    from otel_perfopt_redis import RedisTier
    cache = Cache("redis", tiers=[RedisTier("redis://127.0.0.1:1", namespace=sys.argv[1], timeout=0.1)])
    for number in range(100):
        cache.set(number, number)
    cache.delete(1)
    print(cache.get(0), cache.get(1))
    """
    assert finished(process(code, namespace)) == "0 None\n"


def test_telemetry(new_cache: NewCache) -> None:
    """Hits of the tier are told as such."""
    one, other = new_cache(), new_cache()
    shared(one, key="value")
    with capture() as seen:
        assert other.get("key") == "value"
    assert seen.metric("perfopt.cache.requests", name="redis", result="hit", tier="redis") == 1
