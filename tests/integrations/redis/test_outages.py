"""Redis goes away in every way there is: caches serve from memory and loaders in time, and nobody serves older values later."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from otel_perfopt_redis import RedisTier

from otel_perfopt import Cache
from otel_perfopt.telemetry import background
from otel_perfopt.testing import ManualClock, capture
from tests.cache.support import run
from tests.integrations.redis.support import TIMEOUT, Server, Wire, until

NewTier = Callable[..., RedisTier]

LIMIT = 0.1
"""The timeout of tiers here, in seconds."""

SOON = 3.0
"""A call that takes longer than this many seconds waits for more than its timeouts."""


class Site:
    """A cache that an outage concerns, and another one that can reach Redis all the time, if anybody can.

    Args:
        new_tier: makes tiers.
        server: the server.
        wire: the way of the first one.
    """

    def __init__(self, new_tier: NewTier, server: Server, wire: Wire) -> None:
        self.server = server
        self.wire = wire
        self.clock = ManualClock()
        self.tier = new_tier(wire, timeout=LIMIT)
        self.other_tier = new_tier(server, timeout=1.0)
        options: dict[str, Any] = {"ttl": None, "stale_for": "1h", "clock": self.clock}
        self.cache: Any = Cache("outage", tiers=[self.tier], **options)
        self.other: Any = Cache("outage of nobody", tiers=[self.other_tier], **options)

    @property
    def is_back(self) -> bool:
        """Whether everything is made up for, without that anybody asks for anything."""
        self.clock.advance(5)
        assert background.wait(TIMEOUT)
        guards = [cache._behind.guards[0] for cache in (self.cache, self.other)]
        return not any(guard.is_open or guard._is_owing or guard.tier._listener.is_behind for guard in guards)

    def in_time(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call something that must not take long."""
        begin = time.monotonic()
        result = call(*args, **options)
        assert time.monotonic() - begin < SOON
        return result


@contextmanager
def killed(site: Site) -> Iterator[bool]:
    """The server is gone, and comes back with nothing."""
    site.server.kill()
    yield False
    site.server.start()


@contextmanager
def restored(site: Site) -> Iterator[bool]:
    """The server is gone, and comes back with what it had."""
    site.server.admin.save()
    site.server.kill()
    yield False
    site.server.start()


@contextmanager
def paused(site: Site) -> Iterator[bool]:
    """The server takes what it is told, and does nothing until later: then it does all of it."""
    with site.server.paused():
        yield False


@contextmanager
def full(site: Site) -> Iterator[bool]:
    """The server has no room, and answers."""
    site.server.admin.config_set("maxmemory", 1)
    yield True
    site.server.admin.config_set("maxmemory", 0)


@contextmanager
def unwritable(site: Site) -> Iterator[bool]:
    """The server can be read only."""
    site.server.admin.config_set("min-replicas-to-write", 1)
    yield False
    site.server.admin.config_set("min-replicas-to-write", 0)


def _wired(**wrong: Any) -> Callable[[Site], Any]:
    @contextmanager
    def outage(site: Site) -> Iterator[bool]:
        right = {name: getattr(site.wire, name) for name in wrong}
        vars(site.wire).update(wrong)
        site.wire.cut()
        yield True
        vars(site.wire).update(right)
        site.wire.cut()

    return outage


OUTAGES: dict[str, Callable[[Site], Any]] = {
    "killed": killed,
    "restored": restored,
    "paused": paused,
    "full": full,
    "unwritable": unwritable,
    "closed": _wired(is_closed=True),
    "silent": _wired(is_silent=True),
    "slow": _wired(delay=0.3),
    "error": _wired(answer=b"-ERR whatever\r\n"),
    "loading": _wired(answer=b"-LOADING Redis is loading the dataset in memory\r\n"),
    "readonly": _wired(answer=b"-READONLY You can't write against a read only replica.\r\n"),
}


@pytest.fixture
def site(new_tier: NewTier, own_server: Server) -> Iterator[Site]:
    """Two caches, with old values in memory and in Redis."""
    wire = Wire(own_server.port)
    site = Site(new_tier, own_server, wire)
    keys = ["kept", "deleted", "set", "tagged", "expired", "by another", "set by another", "tagged by another"]
    old = {key: f"old {key}" for key in keys}

    def are_there() -> bool:
        for key, value in old.items():
            tag = {"tagged": ["tag"], "tagged by another": ["another tag"]}.get(key, [])
            site.cache.set(key, value, tags=tag)
        site.cache.flush()
        # On a machine that stands still for as long as the tier waits, the outage has been before it begins.
        return site.is_back and site.cache.get_many(keys) == site.other.get_many(keys) == old

    until(are_there)
    yield site
    site.server.resume() if site.server._process else None
    wire.close()


def load(value: Any) -> Callable[[], Any]:
    """A loader."""
    return lambda: value


@pytest.mark.slow
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage(site: Site, outage: str) -> None:
    """All calls work meanwhile, and nothing older is served afterwards, by nobody."""
    cache, other, in_time = site.cache, site.other, site.in_time
    with OUTAGES[outage](site) as others_can:
        for number in range(4):
            assert in_time(cache.get, f"new {number}", load(number)) == number
        assert in_time(cache.get, "kept", load("not loaded")) == "old kept"
        assert in_time(cache.delete, "deleted") is True
        assert in_time(cache.get, "deleted") is None
        in_time(cache.set, "set", "new")
        assert in_time(cache.get, "set") == "new"
        in_time(cache.invalidate_tag, "tag")
        assert in_time(cache.get, "tagged") is None
        in_time(cache.expire, "expired")
        assert in_time(cache.get_many, ["kept", "one"], lambda keys: dict.fromkeys(keys, 1)) == {"kept": "old kept", "one": 1}
        in_time(cache.flush)
        in_time(cache.stats)
        if others_can:
            assert other.delete("by another")
            other.set("set by another", "new")
            other.invalidate_tag("another tag")
            other.flush()
    until(lambda: site.is_back, pause=0.02)
    later: dict[str, set[str | None]] = {
        "kept": {"old kept", None},
        "deleted": {None},
        "set": {"new", None},
        "tagged": {None},
        "expired": {None},
    }
    if others_can:
        later |= {"by another": {None}, "set by another": {"new", None}, "tagged by another": {None}}

    def is_right() -> bool:
        return all(each.get(key) in values for each in (cache, other) for key, values in later.items())

    until(is_right)
    for _ in range(3):
        assert is_right()
    assert cache.get("again", load("loaded")) == "loaded"
    cache.flush()
    assert other.get("again", load("not loaded")) == "loaded"
    other.delete("again")
    until(lambda: cache.get("again") is None)


@pytest.mark.slow
@pytest.mark.parametrize("outage", OUTAGES)
def test_the_same_on_a_loop(site: Site, outage: str) -> None:
    """With the twins of these calls."""
    cache = site.cache

    async def new() -> str:
        return "loaded"

    async def calls() -> None:
        for number in range(4):
            assert await cache.get_async(f"new {number}", new) == "loaded"
        assert await cache.get_async("kept", new) == "old kept"
        assert await cache.delete_async("deleted") is True
        await cache.set_async("set", "new")
        await cache.invalidate_tag_async("tag")
        assert (await cache.get_async("deleted"), await cache.get_async("set")) == (None, "new")
        await cache.flush_async()

    with OUTAGES[outage](site):
        site.in_time(run, calls())
    until(lambda: site.is_back, pause=0.02)
    for each in (site.cache, site.other):
        until(lambda each=each: (each.get("deleted"), each.get("tagged")) == (None, None))  # type: ignore[misc]
        assert each.get("set") in ("new", None)


def test_an_outage_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Errors are counted, the breaker is open, and both stop without that anybody asks."""
    name = {"name": "outage", "tier": "redis"}
    caplog.set_level("INFO")
    with capture() as seen:
        with OUTAGES["closed"](site):
            for number in range(10):
                site.cache.get(f"new {number}", load(number))
            assert seen.metric("perfopt.cache.breaker.open", **name) == 1
            assert 3 <= seen.metric("perfopt.cache.tier.errors", **name) < 10
        until(lambda: site.is_back, pause=0.02)
        assert seen.metric("perfopt.cache.breaker.open", **name) == 0
    told = [record.message for record in caplog.records if "tier of a cache" in record.message]
    assert ["fails" in told[0], "works again" in told[-1], len(told)] == [True, True, 2]


def test_stale_values_during_an_outage(site: Site) -> None:
    """If the load fails as well, what memory has is served, though it is stale; what was deleted is not."""

    def fail() -> Any:
        raise ConnectionError

    with OUTAGES["silent"](site):
        site.cache.expire("kept")
        assert site.in_time(site.cache.get, "kept", fail) == "old kept"
        site.cache.delete("kept")
        with pytest.raises(ConnectionError):
            site.cache.get("kept", fail)


def test_a_load_that_an_outage_overtakes(site: Site) -> None:
    """What another process changes while this one is cut off, and loads, is not served by anybody afterwards."""

    def slow() -> str:
        site.wire.is_closed = True
        site.wire.cut()
        site.other.delete("raced")
        return "old"

    site.other.set("raced", "older")
    site.other.flush()
    site.other.delete("raced")
    assert site.cache.get("raced", slow) == "old"
    site.wire.is_closed = False
    until(lambda: site.is_back, pause=0.02)
    until(lambda: site.cache.get("raced") is None)
    assert site.other.get("raced") is None


@pytest.mark.slow
def test_a_cache_that_begins_during_an_outage(site: Site) -> None:
    """What it has loaded before it could listen is dropped when it can."""
    with OUTAGES["closed"](site):
        tier = RedisTier(site.wire.url, namespace=site.tier.namespace, timeout=LIMIT)
        late: Any = Cache("outage of another", tiers=[tier], ttl=None, clock=site.clock)
        assert late.get("key", load("old")) == "old"
        site.other.delete("key")
    until(lambda: site.is_back and late.get("key") is None, pause=0.02)
    site.other.set("key", "new")
    site.other.flush()
    assert late.get("key") == "new"
    late.close()


def test_closing_during_an_outage(site: Site) -> None:
    """It ends in time, and what was owed is tried once more."""
    with OUTAGES["silent"](site):
        site.cache.delete("deleted")
        site.in_time(site.cache.close)
    site.cache.close()
