"""A tier that was away is found again without anybody asking, and a remote tier is not waited for on an event loop."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from otel_perfopt.errors import TierError
from otel_perfopt.telemetry import background
from otel_perfopt.testing import ManualClock, capture
from otel_perfopt.tiers import encode_key
from tests.cache.support import TIMEOUT, Gate, passed, run, spawn, until
from tests.cache.tier_support import Site, Stops

KEY = encode_key("key")
NAMED = {"perfopt.cache.name": "recovery", "perfopt.cache.tier": "dict"}


@pytest.fixture(autouse=True)
def recovery() -> None:
    """Tiers are tried in the background."""


@pytest.fixture
def site() -> Site:
    """Where caches share a tier, with timers that tests let run out."""
    site = Site(ttl=None)
    site.clock = ManualClock()
    return site


def pass_time(site: Site, seconds: float) -> None:
    """Let time pass, and timers do what they do."""
    site.advance(seconds)
    assert background.wait(TIMEOUT)


def test_what_is_owed_is_paid_without_traffic(site: Site) -> None:
    """Others must not find what was deleted here while the tier was away."""
    cache, tier = site.cache()
    other, _ = site.cache()
    cache.set("key", "old")
    cache.flush()
    tier.is_away = True
    cache.delete("key")
    assert other.get("key") == "old"
    tier.is_away = False
    pass_time(site, 5)
    site.settle()
    assert other.get("key") is None


def test_a_breaker_closes_without_traffic(site: Site) -> None:
    """As soon as the tier is there again, all may use it."""
    cache, tier = site.cache(name="recovery")
    cache.get("key")
    tier.is_away = True
    for key in range(3):
        cache.get(key)
    with capture() as seen:
        assert seen.metric("perfopt.cache.breaker.open", **NAMED) == 1
        pass_time(site, 100)
        calls = tier.calls["mark"]
        tier.is_away = False
        pass_time(site, 5)
        assert seen.metric("perfopt.cache.breaker.open", **NAMED) == 0
    assert tier.calls["mark"] == calls + 1
    tier.read_keys.clear()
    cache.get("key")
    assert tier.read_keys == [1]


def test_it_is_tried_now_and_then_and_not_after_it_works(site: Site) -> None:
    """Every five seconds at last; a tier that works is left in peace."""
    cache, tier = site.cache()
    cache.get("key")
    tier.is_away = True
    for key in range(3):
        cache.get(key)
    pass_time(site, 60)
    tried = tier.calls["mark"]
    for _ in range(60):
        pass_time(site, 1)
    assert 10 <= tier.calls["mark"] - tried <= 30
    tier.is_away = False
    pass_time(site, 5)
    tried = tier.calls["mark"]
    pass_time(site, 1000)
    assert tier.calls["mark"] == tried


def test_a_cache_that_is_gone_is_not_recovered(site: Site) -> None:
    """The timer keeps nothing alive."""
    cache, tier = site.cache()
    tier.is_away = True
    cache.delete("key")
    calls = tier.calls["mark"]
    del cache
    pass_time(site, 100)
    assert tier.calls["mark"] == calls


def test_what_a_tier_loses_is_owed_and_counted(site: Site) -> None:
    """A tier that writes behind may find out later that it cannot keep what was set; what it has of that key is older."""
    cache, tier = site.cache(name="recovery")
    cache.set("key", "older")
    cache.flush()
    with capture() as seen:
        assert tier.on_loss is not None
        tier.on_loss([KEY], TierError("no room"))
        assert seen.metric("perfopt.cache.tier.errors", **NAMED) == 1
    pass_time(site, 5)
    assert KEY not in site.records()


class Remote(Stops):
    """A tier behind a network, which notes the threads that wait for it."""

    is_remote = True
    is_exclusive = True

    def __init__(self, tier: Stops) -> None:
        super().__init__(tier.tier)
        self.threads: set[threading.Thread] = set()
        self.released: list[bytes] = []

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        if method != "write":  # which only takes note
            self.threads.add(threading.current_thread())
        return super()._call(method, *args, **options)

    def release(self, keys: Sequence[bytes]) -> None:
        """Let others load keys."""
        self.released.extend(keys)


def remote(site: Site) -> tuple[Any, Remote]:
    """A cache with a remote tier, and the tier."""
    tier = Remote(site.cache()[1])
    return site.cache(tiers=[tier])[0], tier


def test_a_loop_does_not_wait_for_a_remote_tier(site: Site) -> None:
    """Whatever is asked of it there."""
    cache, tier = remote(site)

    async def main() -> None:
        assert await cache.get_async("key", lambda: 1) == 1
        assert await cache.get_async("other") is None
        await cache.set_async("set", 2)
        assert await cache.get_many_async(["key", 5, 6], lambda keys: dict.fromkeys(keys, 0)) == {"key": 1, 5: 0, 6: 0}
        await cache.expire_async("key")
        await cache.delete_async("key")
        await cache.invalidate_tag_async("tag")
        await cache.clear_async()

    run(main())
    assert tier.calls["read"] >= 3
    assert threading.current_thread() not in tier.threads


def test_a_synchronous_call_on_a_loop_works_and_is_mentioned_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It waits there, which nobody may want."""
    cache, tier = remote(site)

    async def main() -> None:
        for key in range(3):
            assert cache.get(key, lambda: "value") == "value"

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert threading.current_thread() in tier.threads
    assert caplog.text.count("blocks the event loop") == 1


def test_keys_whose_load_failed_are_released(site: Site) -> None:
    """Other processes may be waiting for a value that does not come."""
    cache, tier = remote(site)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    assert cache.get("fine", lambda: 1) == 1
    until(lambda: bool(tier.released))
    assert background.wait(TIMEOUT)
    assert tier.released == [KEY]


def away(site: Site) -> tuple[Any, Stops]:
    """A cache that owes something to a tier that is there again, and the tier."""
    cache, tier = site.cache()
    cache.get("key")
    tier.is_away = True
    cache.delete("key")
    tier.is_away = False
    return cache, tier


def test_bug_a_set_does_not_wait_for_what_is_made_up_for(site: Site) -> None:
    """Nobody could look anything up meanwhile, because it holds the lock of the cache."""
    cache, tier = away(site)
    gate = tier.before["delete"] = Gate()
    site.advance(5)
    passed(gate.entered)
    write = partial(cache._guards[0].write, {b"set": None}, None, replaces=True)
    spawn(write).result(TIMEOUT / 2)
    gate.opened.set()
    assert background.wait(TIMEOUT)
    pass_time(site, 5)
    assert tier.calls["delete"] == 3
    assert not cache._guards[0]._is_owing


def test_bug_tiers_that_hang_leave_workers_to_others(site: Site) -> None:
    """Loads for coroutines run there, too; there were as many tiers as workers."""
    caches = [away(site) for _ in range(background.MAX_WORKERS)]
    gates = [tier.before.setdefault("mark", Gate()) for _, tier in caches]
    site.advance(5)
    passed(gates[0].entered)
    is_done = threading.Event()
    background.submit(is_done.set)
    try:
        passed(is_done)
    finally:
        for gate in gates:
            gate.opened.set()
    assert background.wait(TIMEOUT)
    assert all(tier.calls["mark"] == 1 for _, tier in caches)
    assert not any(cache._guards[0]._is_owing for cache, _ in caches)


def test_bug_a_tier_is_tried_again_after_there_was_no_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system had none left at that moment."""
    cache, tier = away(site)

    def refuse(_: object) -> None:
        raise background.NoThread("none left")

    with monkeypatch.context() as patch:
        patch.setattr(background, "submit", refuse)
        site.advance(5)
    assert tier.calls["mark"] == 0
    pass_time(site, 5)
    assert tier.calls["mark"] == 1
    assert not cache._guards[0]._is_owing


def test_bug_a_tier_that_was_closed_is_not_opened_by_a_timer(site: Site) -> None:
    """Its folder may be gone for good; whoever uses the cache opens it again."""
    cache, tier = site.cache()
    tier.is_away = True
    for key in range(3):
        cache.get(key)
    cache.delete("key")
    cache.close()
    calls = tier.calls.copy()
    pass_time(site, 100)
    assert tier.calls == calls
    tier.is_away = False
    cache.get("key")
    assert tier.calls["read"] == calls["read"] + 1


def test_bug_a_tier_of_which_a_part_fails_does_not_fill_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It was told each time that it failed, and each time that it worked again, although that was true."""
    cache, tier = site.cache()
    tier.broken = {"write"}
    with caplog.at_level(logging.INFO):
        for number in range(20):
            cache.set(number, number)
        assert background.wait(TIMEOUT)
        assert caplog.text.count("fails") == caplog.text.count("works again") == 1
        pass_time(site, 60)
        cache.set("later", 1)
        assert background.wait(TIMEOUT)
        assert caplog.text.count("fails") == 2


def test_bug_a_remote_tier_is_asked_where_there_is_no_thread_for_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends, and a coroutine still wants something."""
    cache, _ = remote(site)

    def refuse(_: object) -> None:
        raise background.NoThread("none left")

    async def load() -> str:
        return "value"

    async def main() -> None:
        await cache.set_async("set", 1)
        assert await cache.get_async("key", load) == "value"
        assert await cache.delete_async("set")
        assert await cache.get_async("set") is None

    monkeypatch.setattr(background, "submit", refuse)
    run(main())
