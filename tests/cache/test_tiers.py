"""A cache with tiers behind it: what is found where, for how long, and that no change is ever lost between them."""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otel_perfopt import Cache, cached, entry_options
from otel_perfopt.errors import ConfigurationError, ReentrantLoad
from otel_perfopt.telemetry import background
from otel_perfopt.testing import DictTier, capture
from otel_perfopt.tiers import Codec, Record, Unencodable, encode_key
from tests.cache.callers import Callers, Source
from tests.cache.support import (
    TIMEOUT,
    Gate,
    new_cache,
    no_collection,
    passed,
    results,
    run,
    spawn,
    spawn_many,
    until,
    until_async,
)
from tests.cache.tier_support import NOW, Site, Stops

BROKEN = ConnectionError("the source is down")


@pytest.fixture
def site() -> Site:
    """Where caches share a tier."""
    return Site(ttl=100)


# what is found where ----------------------------------------------------------------------------------------


def test_what_one_process_sets_another_one_finds(site: Site, callers: Callers) -> None:
    """Without its loader, and as a hit of that tier; from then on it is in memory."""
    ours, theirs, source = site.cache()[0], site.cache()[0], Source()
    ours.set("key", "value")
    assert [callers.get(theirs, source) for _ in range(2)] == ["value", "value"]
    stats = theirs.stats()
    assert source.calls == 0
    assert (stats.hits_by_tier, stats.hit_count, stats.miss_count) == ({"memory": 1, "dict": 1}, 2, 0)


def test_what_one_process_loads_another_one_finds(site: Site, callers: Callers) -> None:
    """The same for loads; None is a value."""
    ours, theirs = site.cache()[0], site.cache()[0]
    assert callers.get(ours, Source(None)) is None
    assert callers.get(theirs, Source(BROKEN)) is None
    assert (ours.stats().miss_count, ours.stats().hit_count) == (1, 0)


def test_what_has_left_memory_is_found_behind_it(site: Site) -> None:
    """The memory is small, the tier is not."""
    cache, _ = site.cache(max_size=2)
    cache.set_many({number: number * 10 for number in range(50)})
    assert len(cache) <= 2
    assert [cache.get(number) for number in range(50)] == [number * 10 for number in range(50)]


def test_a_memory_of_no_size_leaves_everything_to_the_tier(site: Site) -> None:
    """`max_size=0` keeps nothing in memory."""
    cache, tier = site.cache(max_size=0)
    cache.set("key", "value")
    assert [cache.get("key") for _ in range(3)] == ["value"] * 3
    assert (len(cache), tier.calls["read"]) == (0, 3)


def test_a_record_is_as_old_in_memory_as_in_its_tier(site: Site) -> None:
    """What is found behind the memory has the rest of its time, not all of it, whatever the finder's ttl is."""
    ours, theirs = site.cache()[0], site.cache(ttl=1000)[0]
    ours.set("key", "value")
    site.advance(60)
    assert theirs.get("key", Source()) == "value"
    site.advance(39)
    assert theirs.get("key", Source()) == "value"
    site.advance(1)
    assert theirs.get("key", Source("new")) == "new"


def test_an_entry_for_ever_is_for_ever_in_the_tier(site: Site) -> None:
    """No limit stays no limit."""
    ours, theirs = site.cache()[0], site.cache()[0]
    ours.set("key", "value", ttl=None)
    site.advance(10**9)
    assert theirs.get("key") == "value"
    assert next(iter(site.records().values())).fresh_until == math.inf


def test_tags_come_with_the_record(site: Site) -> None:
    """An entry that was found behind the memory goes with the tags that another process gave it."""
    ours, theirs = site.cache()[0], site.cache()[0]
    ours.set("key", "old", tags=["tag"])
    assert theirs.get("key") == "old"
    theirs.invalidate_tag("tag")
    site.settle()
    for cache in (ours, theirs):
        assert cache.get("key") is None


def test_what_is_in_the_second_tier_is_copied_to_the_first(site: Site) -> None:
    """The nearest one first; and it is found there the next time."""
    near, far = Stops(DictTier(clock=site.wall)), Stops(site.shared.peer())
    far.kind = "far"  # type: ignore[misc]
    site.cache()[0].set("key", "value", tags=["tag"])
    site.advance(10)
    cache, _ = site.cache(tiers=[near, far], max_size=0)
    assert [cache.get("key") for _ in range(3)] == ["value"] * 3
    assert (near.calls["read"], far.calls["read"]) == (3, 1)
    assert cache.stats().hits_by_tier == {"memory": 0, "dict": 2, "far": 1}
    assert near.tier._store.records == site.shared._store.records | {key: (record, 0) for key, record in site.records().items()}


def test_bug_a_copy_in_a_nearer_tier_is_as_old_as_its_value(site: Site) -> None:
    """Its date was that of the copying, so that a refresh came too late."""
    near = DictTier(clock=site.wall)
    site.cache()[0].set("key", "value")
    site.advance(40)
    site.cache(tiers=[near, site.shared.peer()])[0].get("key")
    assert [record.created for record, _ in near._store.records.values()] == [NOW]


def test_a_set_goes_to_all_tiers_and_a_delete_too(site: Site) -> None:
    """Every tier is told of every change."""
    near, far = Stops(DictTier(clock=site.wall)), Stops(site.shared.peer())
    cache, _ = site.cache(tiers=[near, far])
    cache.set("key", "value", tags=["tag"])
    assert (near.calls["write"], far.calls["write"]) == (1, 1)
    assert cache.expire("key")
    assert cache.delete("key") is False  # it was not fresh any more
    cache.invalidate_tag("tag")
    cache.clear()
    for method in ("delete", "expire", "invalidate_tag", "clear"):
        assert (near.calls[method], far.calls[method]) == (1, 1)


def test_delete_and_expire_tell_whether_a_tier_had_the_key(site: Site) -> None:
    """Also if it is not in memory."""
    ours, theirs = site.cache()[0], site.cache()[0]
    ours.set_many({"a": 1, "b": 2})
    assert (theirs.expire("a"), theirs.delete("b"), theirs.delete("c")) == (True, True, False)


def test_closing_and_flushing_reach_every_tier(site: Site) -> None:
    """And the cache can be used afterwards."""
    tiers = [Stops(DictTier(clock=site.wall)), Stops(site.shared.peer())]
    cache, _ = site.cache(tiers=tiers)
    cache.set("key", "value")
    cache.flush()
    cache.close()
    assert [(tier.calls["flush"], tier.calls["close"]) for tier in tiers] == [(1, 1)] * 2
    assert cache.get("key") == "value"


def test_nothing_is_asked_of_a_tier_before_the_first_use(site: Site) -> None:
    """A cache that is only made opens no file."""
    cache, tier = site.cache()
    assert not tier.calls
    cache.close()
    assert set(tier.calls) == {"close"}


# changes meet loads ----------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete("key"),
    "set": lambda cache: cache.set("key", "set"),
    "tag": lambda cache: cache.invalidate_tag("tag"),
    "clear": lambda cache: cache.clear(),
}
CHANGES_ASYNC: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete_async("key"),
    "set": lambda cache: cache.set_async("key", "set"),
    "tag": lambda cache: cache.invalidate_tag_async("tag"),
    "clear": lambda cache: cache.clear_async(),
}
MOMENTS = ("after the read", "during the load")


def stopped(tier: Stops, moment: str) -> tuple[Gate, Callable[[], Any]]:
    """Prepare a stop at a moment of the next load; return its gate, and the loader."""
    gate = Gate("old")
    if moment == "after the read":
        tier.after["read"] = gate
    return gate, gate if moment == "during the load" else Source("old")


def check_all(site: Site, caches: list[Any], name: str) -> None:
    """Nobody serves the old value, now that all is quiet."""
    site.settle()
    expected = "set" if name == "set" else "new"
    assert [cache.get("key", Source("new")) for cache in caches] == [expected] * len(caches)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_change_forbids_a_load_to_store(site: Site, callers: Callers, name: str, moment: str, is_ours: bool) -> None:
    """Whoever makes it, at whichever moment: neither the memory nor the tier has the old value afterwards."""
    (ours, tier), (theirs, _) = site.cache(), site.cache()
    theirs.get("other")
    gate, loader = stopped(tier, moment)
    load = callers.ask(ours, loader, tags=["tag"])
    passed(gate.entered)
    CHANGES[name](ours if is_ours else theirs)
    site.settle()
    gate.opened.set()
    assert load.result(TIMEOUT) == "old"
    check_all(site, [ours, theirs], name)


@pytest.mark.parametrize("name", CHANGES)
def test_a_peers_change_that_is_told_late(site: Site, name: str) -> None:
    """The load has stored its value already; when the change is told, it goes."""
    (ours, tier), (theirs, _) = site.cache(), site.cache()
    theirs.get("other", Source())  # so that they watch
    gate, told = Gate("old"), Gate()
    load = spawn(lambda: ours.get("key", gate, tags=["tag"]))
    passed(gate.entered)
    tier.before["told"] = told
    CHANGES[name](theirs)
    passed(told.entered)
    gate.opened.set()
    assert load.result(TIMEOUT) == "old"
    assert ours.get("key") == "old"
    assert site.shared.peer().read([encode_key("key")]).records.keys() == ({encode_key("key")} if name == "set" else set())
    told.opened.set()
    check_all(site, [ours, theirs], name)


@pytest.mark.parametrize("name", CHANGES)
def test_a_write_that_takes_its_time(site: Site, name: str) -> None:
    """A change comes while a load is being written: it waits its turn, and wins."""
    (ours, tier), (theirs, _) = site.cache(), site.cache()
    tier.before["write"] = gate = Gate()
    load = spawn(lambda: ours.get("key", Source("old"), tags=["tag"]))
    passed(gate.entered)
    change = spawn(lambda: CHANGES[name](ours))
    gate.opened.set()
    load.result(TIMEOUT)
    change.result(TIMEOUT)
    check_all(site, [ours, theirs], name)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_meets_a_load_that_finds_the_value_in_the_tier(site: Site, name: str) -> None:
    """It has read the old record; the change comes before it is kept in memory."""
    (ours, _), (theirs, tier) = site.cache(), site.cache()
    ours.set("key", "old", tags=["tag"])
    theirs.get("other")  # so that they watch
    tier.after["read"] = gate = Gate()
    load = spawn(lambda: theirs.get("key", Source("loaded")))
    passed(gate.entered)
    CHANGES[name](ours)
    site.settle()
    gate.opened.set()
    assert load.result(TIMEOUT) == "old"
    check_all(site, [ours, theirs], name)


@pytest.mark.parametrize("name", CHANGES_ASYNC)
def test_async_changes_do_not_block_the_loop(site: Site, name: str) -> None:
    """While the tier takes its time, the loop goes on."""
    ours, tier = site.cache()
    ours.set("key", "old", tags=["tag"])

    async def main() -> None:
        stops = {"delete": "delete", "set": "mark", "tag": "invalidate_tag", "clear": "clear"}
        tier.before[stops[name]] = gate = Gate()
        change = asyncio.ensure_future(CHANGES_ASYNC[name](ours))
        await until_async(gate.entered.is_set)
        assert not change.done()
        gate.opened.set()
        await change

    run(main())
    check_all(site, [ours], name)


def test_other_async_changes(site: Site) -> None:
    """They do what their synchronous twins do."""
    cache, tier = site.cache()

    async def main() -> None:
        await cache.set_many_async({"a": 1, "b": 2}, tags=["tag"])
        assert await cache.expire_async("a") is True
        assert await cache.delete_async("b") is True
        assert await cache.delete_async("b") is False
        await cache.flush_async()
        await cache.aclose()

    run(main())
    assert (tier.calls["flush"], tier.calls["close"]) == (1, 1)
    assert (cache.get("a"), cache.get("b")) == (None, None)


def test_an_async_change_raises_what_the_change_raises(site: Site) -> None:
    """A value without bytes is an error here, too."""
    cache, _ = site.cache()
    with pytest.raises(Unencodable):
        run(cache.set_async("key", object()))


def test_bug_a_set_that_overlaps_changes_of_a_peer_is_not_kept_against_the_tier(site: Site) -> None:
    """The set has begun before, and ended after them: memory had its value, the tier the peer's, for as long as the ttl."""
    gate = Gate(1.0)
    (ours, _), (theirs, _) = (
        site.cache(max_weight=10, weigher=lambda key, value: gate() if value == "ours" else 1.0),
        site.cache(),
    )
    ours.get("other")
    setting = spawn(ours.set, "key", "ours")
    passed(gate.entered)
    theirs.delete("key")
    theirs.set("key", "theirs")
    site.settle()
    gate.opened.set()
    setting.result(TIMEOUT)
    site.settle()
    assert ours.get("key") == theirs.get("key")


def test_bug_keys_that_are_being_set_are_remembered(site: Site) -> None:
    """When many keys had been seen, that of a set under way was forgotten, and what peers did to it went unnoticed."""
    gate = Gate(1.0)
    (ours, _), (theirs, _) = site.cache(max_weight=10, weigher=lambda key, value: gate() if value == "old" else 1.0), site.cache()
    ours.get("other")
    setting = spawn(ours.set, "key", "old")
    passed(gate.entered)
    for number in range(1100):
        ours.get(number)
    gate.opened.set()
    setting.result(TIMEOUT)
    theirs.delete("key")
    site.settle()
    assert ours.get("key") is None


def test_changes_of_peers_reach_keys_that_are_no_texts(site: Site) -> None:
    """They are known by their bytes."""
    ours, theirs = site.cache()[0], site.cache()[0]
    ours.set((1, "a"), "old")
    assert theirs.get((True, "a")) == "old"
    ours.delete((1.0, "a"))
    site.settle()
    assert theirs.get((1, "a")) is None


def test_bug_what_a_far_tier_tells_is_forgotten_in_the_near_one(site: Site) -> None:
    """Two hosts, each with a tier of its own before the one they share: what one has invalidated, the other's own tier had."""
    caches = [site.cache(tiers=[DictTier(clock=site.wall), site.shared.peer()], max_size=0)[0] for _ in range(2)]
    ours, theirs = caches
    for name, change in CHANGES.items():
        ours.set("key", "old", tags=["tag"])
        site.settle()
        assert theirs.get("key") == "old"
        change(ours)
        check_all(site, caches, name)
        ours.clear()
        site.settle()


def test_bug_a_tag_that_nothing_has_any_more_still_forbids(site: Site) -> None:
    """A load has begun before an invalidation, and comes up with the tag when no entry has it any more."""
    cache, _ = site.cache()

    def load() -> str:
        cache.invalidate_tag("tag")
        cache.delete("other")  # the last one that has it
        entry_options(tags=["tag"])
        return "old"

    cache.set("other", "value", tags=["tag"])
    assert cache.get("key", load) == "old"
    assert "key" not in cache
    assert cache.get("key") is None


# stale values and refreshes ---------------------------------------------------------------------------------


def test_a_stale_record_is_served_after_a_restart(site: Site, callers: Callers) -> None:
    """The load fails, and only the tier has something."""
    options: dict[str, Any] = {"ttl": 10, "stale_for": 100}
    site.cache(**options)[0].set("key", "old")
    site.advance(20)
    cache, _ = site.cache(**options)
    assert callers.get(cache, Source(BROKEN)) == "old"
    stats = cache.stats()
    assert (stats.stale_count, stats.hit_count, stats.miss_count) == (1, 0, 0)


def test_a_stale_record_is_no_answer_without_stale_for_nor_after_it(site: Site, callers: Callers) -> None:
    """Not if the cache does not want it, and not for longer than its writer has said."""
    site.cache(ttl=10, stale_for=100)[0].set("key", "old")
    site.advance(20)
    assert callers.error(site.cache()[0], Source(BROKEN)) is BROKEN
    site.advance(100)
    assert callers.error(site.cache(ttl=10, stale_for=1000)[0], Source(BROKEN)) is BROKEN


@pytest.mark.parametrize("name", CHANGES)
def test_a_stale_record_that_a_peer_has_invalidated_is_no_answer(site: Site, name: str) -> None:
    """While the load that fails is under way."""
    options: dict[str, Any] = {"ttl": 10, "stale_for": 100}
    ours, theirs = site.cache(**options)[0], site.cache(**options)[0]
    ours.set("key", "old", tags=["tag"])
    site.advance(20)
    gate = Gate(BROKEN)
    load = spawn(lambda: theirs.get("key", gate))
    passed(gate.entered)
    CHANGES[name](ours)
    site.settle()
    gate.opened.set()
    assert load.exception(TIMEOUT) is BROKEN


def test_expired_by_a_peer_is_stale_here(site: Site) -> None:
    """It has to be loaded anew, and is served if that fails."""
    options: dict[str, Any] = {"ttl": 100, "stale_for": 100}
    ours, theirs = site.cache(**options)[0], site.cache(**options)[0]
    ours.set("key", "old")
    assert theirs.get("key") == "old"
    assert ours.expire("key")
    site.settle()
    assert theirs.get("key") is None
    assert theirs.get("key", Source(BROKEN)) == "old"
    assert ours.get("key", Source("new")) == "new"


def test_a_refresh_takes_what_a_peer_has_loaded(site: Site) -> None:
    """Instead of loading it again; if the peer's is too old itself, it is loaded."""
    options: dict[str, Any] = {"ttl": 100, "refresh_after": 50}
    ours, theirs = site.cache(**options)[0], site.cache(**options)[0]
    ours.set("key", "old")
    theirs.get("key")
    site.advance(50)
    source = Source("new")
    assert ours.get("key", source) == "old"
    until(lambda: ours.stats().loads_in_flight == 0)
    assert theirs.get("key", source) == "old"
    until(lambda: theirs.stats().loads_in_flight == 0)
    assert (ours.get("key"), theirs.get("key"), source.calls) == ("new", "new", 1)


def test_what_is_found_is_refreshed_at_the_age_of_its_value(site: Site) -> None:
    """Not that much later than it was found."""
    options: dict[str, Any] = {"ttl": 100, "refresh_after": 50}
    site.cache(**options)[0].set("key", "old")
    site.advance(40)
    cache, source = site.cache(**options)[0], Source("new")
    assert cache.get("key", source) == "old"
    site.advance(10)
    assert cache.get("key", source) == "old"
    until(lambda: cache.get("key") == "new")


def test_bug_a_refresh_asks_all_tiers_and_is_written_to_all(site: Site) -> None:
    """The far one was not asked, as the near one had something, so that it kept the older value."""
    near, far = DictTier(clock=site.wall), site.shared.peer()
    cache, _ = site.cache(tiers=[near, far], ttl=100, refresh_after=50)
    cache.set("key", "old")
    site.advance(50)
    cache.get("key", Source("new"))
    until(lambda: cache.get("key") == "new")
    codec: Codec[str] = Codec()
    for tier in (near, far):
        assert codec.decode(tier.read([encode_key("key")]).records[encode_key("key")].value) == "new"


# keys and values that have no bytes --------------------------------------------------------------------------


def test_equal_keys_are_one_key_behind_the_memory(site: Site) -> None:
    """As they are in it."""
    ours, theirs = site.cache()[0], site.cache()[0]
    ours.set(1, "one")
    assert [theirs.get(key) for key in (1.0, True)] == ["one", "one"]
    ours.set("1", "text")
    assert (theirs.get(1), theirs.get("1")) == ("one", "text")


class Odd:
    """A key, or a value, that means nothing to another process."""


@pytest.mark.parametrize("keys", [(Odd(), "value"), ("key", Odd())], ids=["key", "value"])
def test_what_has_no_bytes_is_an_error(site: Site, callers: Callers, keys: tuple[Any, Any]) -> None:
    """At the set or at the end of the load, with a clear message; nothing is kept."""
    cache, (key, value) = site.cache()[0], keys
    with pytest.raises(Unencodable, match="Odd"):
        cache.set(key, value)
    assert isinstance(callers.error(cache, lambda: value, key), Unencodable)
    assert len(cache) == 0
    assert cache.delete(key) is False


@pytest.mark.parametrize("keys", [(Odd(), "value"), ("key", Odd())], ids=["key", "value"])
def test_what_has_no_bytes_is_kept_in_memory_on_request(
    site: Site, callers: Callers, keys: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """With one warning, however often it happens; peers do not see it."""
    (ours, _), (theirs, _), (key, value) = site.cache(unencodable="memory"), site.cache(unencodable="memory"), keys
    for _ in range(2):
        ours.set(key, value)
        assert callers.get(ours, Source(BROKEN), key) is value
    assert callers.get(ours, lambda: value, "other" if key == "key" else Odd()) is value
    assert [record.message.split("'")[1] for record in caplog.records] == [
        "something cannot be encoded, and is kept in memory only"
    ]
    assert theirs.get(key) is None
    assert ours.delete(key) is True


def test_a_set_of_something_without_bytes_takes_the_older_value_away(site: Site) -> None:
    """It is in memory only; peers, and this cache after a restart, must not go on with what was before."""
    ours, theirs = site.cache(unencodable="memory")[0], site.cache()[0]
    ours.set("key", "old")
    assert theirs.get("key") == "old"
    ours.set("key", Odd())
    site.settle()
    assert theirs.get("key") is None
    assert isinstance(ours.get("key"), Odd)


@pytest.mark.parametrize("unencodable", ["ignore", None])
def test_other_choices_are_refused(site: Site, unencodable: Any) -> None:
    """With those that there are."""
    with pytest.raises(ConfigurationError, match="'memory'"):
        site.cache(unencodable=unencodable)


def test_options_that_need_a_tier_or_exclude_each_other() -> None:
    """Are refused with the reason."""
    given: list[dict[str, Any]] = [{"codec": Codec()}, {"value_type": int}]
    for options in given:
        with pytest.raises(ConfigurationError, match="no effect without a tier"):
            Cache("test", **options)
    with pytest.raises(ConfigurationError, match="belongs to the codec"):
        Cache("test", tiers=[DictTier()], codec=Codec(), value_type=int)


def test_methods_need_a_key_that_means_something_elsewhere(site: Site) -> None:
    """An instance is of one process; with `key=` it works, and peers find the entry."""
    ours, theirs = site.cache()[0], site.cache()[0]
    with pytest.raises(ConfigurationError, match="key="):
        cached(cache=ours)(Shop.price)
    calls: list[int] = []

    def price(shop: Shop, article: str) -> int:
        calls.append(shop.number)
        return shop.number * len(article)

    functions = [
        cached(cache=cache, name=None, key=lambda shop, article: (shop.number, article))(price) for cache in (ours, theirs)
    ]
    assert [function(Shop(7), "tea") for function in functions] == [21, 21]
    assert calls == [7]


class Shop:
    """Something with a method."""

    def __init__(self, number: int = 1) -> None:
        self.number = number

    def price(self, article: str) -> int:
        """Return the price of an article."""
        return self.number * len(article)


# get without a loader ----------------------------------------------------------------------------------------


def test_get_without_a_loader_finds_what_a_tier_has(site: Site) -> None:
    """Or returns the default; each request counts once."""
    site.cache()[0].set("key", None)
    cache, _ = site.cache()

    async def main() -> list[Any]:
        return [
            await cache.get_async("key", default=1),
            await cache.get_async("nothing", default=1),
            await cache.get_async("key"),
        ]

    assert [cache.get("nothing", default=1), *run(main())] == [1, None, 1, None]
    stats = cache.stats()
    assert (stats.hits_by_tier, stats.miss_count, stats.stale_count) == ({"memory": 1, "dict": 1}, 2, 0)


def test_get_without_a_loader_joins_the_load_of_others(site: Site, callers: Callers) -> None:
    """And gets its value; if it fails, the default."""
    cache, _ = site.cache()
    for outcome, expected in (("value", "value"), (BROKEN, "default")):
        gate = Gate(outcome)
        load = callers.ask(cache, gate)
        passed(gate.entered)
        plain = spawn(lambda: cache.get("key", default="default"))
        gentle = spawn(lambda: run(cache.get_async("key", default="default")))
        until(lambda: cache.stats().load_waiters == 2)
        gate.opened.set()
        assert results([plain, gentle]) == [expected, expected]
        assert load.exception(TIMEOUT) is (None if outcome == "value" else BROKEN)
        cache.clear()


def test_a_caller_with_a_loader_does_not_take_nothing_for_an_answer(site: Site, callers: Callers) -> None:
    """It joins somebody who only looks, and then loads."""
    cache, tier = site.cache()
    cache.get("other")
    tier.after["read"] = gate = Gate()
    looking = spawn(lambda: cache.get("key", default="nothing"))
    passed(gate.entered)
    load = callers.ask(cache, Source("value"))
    until(lambda: cache.stats().load_waiters == 1)
    gate.opened.set()
    assert (looking.result(TIMEOUT), load.result(TIMEOUT)) == ("nothing", "value")
    assert cache.stats().miss_count == 3


def test_many_who_only_look_get_the_default(site: Site) -> None:
    """None of them waits for ever."""
    cache, _ = site.cache()
    assert results(spawn_many(8, lambda: cache.get("key", default="nothing"))) == ["nothing"] * 8
    assert cache.stats().miss_count == 8


def test_bug_get_without_a_loader_inside_the_load_of_its_key(site: Site) -> None:
    """It gives the default, as without tiers; it was a ReentrantLoad."""
    cache, _ = site.cache()
    assert cache.get("key", lambda: cache.get("key", default="nothing")) == "nothing"

    async def load() -> Any:
        return await cache.get_async("async", default="nothing")

    assert run(cache.get_async("async", load)) == "nothing"
    with pytest.raises(ReentrantLoad):
        cache.get("other", lambda: cache.get("other", Source()))


def test_bug_get_without_a_loader_gives_no_stale_value(site: Site) -> None:
    """As without tiers; it did so after a load had failed."""
    cache, _ = site.cache(ttl=10, stale_for=100)
    cache.set("key", "old")
    site.advance(20)
    assert cache.get("key", Source(BROKEN)) == "old"
    assert cache.get("key", default="nothing") == "nothing"
    assert run(cache.get_async("key", default="nothing")) == "nothing"
    stats = cache.stats()
    assert (stats.stale_count, stats.miss_count) == (1, 2)


def test_bug_a_value_that_has_just_come_into_memory_is_a_hit(site: Site) -> None:
    """Somebody stores it between two looks of a get without a loader; it counted as a miss."""
    cache, _ = site.cache()
    clock, looks = cache.clock, []

    def look_twice() -> float:
        looks.append(1)
        if len(looks) == 1:
            spawn(cache.set, "key", "value").result(TIMEOUT)
        return clock()  # type: ignore[no-any-return]

    cache.set("key", "old", ttl=1)
    site.advance(2)
    cache.clock = look_twice
    assert cache.get("key") == "value"
    assert (cache.stats().hit_count, cache.stats().miss_count) == (1, 0)


# what is told, and who keeps whom ---------------------------------------------------------------------------


def test_a_tier_that_answers_makes_a_span(site: Site, callers: Callers) -> None:
    """`load {cache}` with the tier; a load has its own, without one; and each request counts once."""
    ours, theirs = site.cache(name="spanning")[0], site.cache(name="spanning")[0]
    ours.set("key", "value")
    with capture() as captured:
        assert callers.get(theirs, Source()) == "value"
        assert callers.get(theirs, Source(), "other") == "new"
    assert [(span.name, dict(span.attributes or {}).get("perfopt.cache.tier")) for span in captured.spans] == [
        ("load spanning", "dict"),
        ("load spanning", None),
    ]
    assert captured.metric("perfopt.cache.requests", name="spanning", result="hit", tier="dict") == 1
    assert captured.metric("perfopt.cache.requests", name="spanning") == 2
    assert captured.metric("perfopt.cache.load.duration", name="spanning") == 1


def test_everybody_who_waits_for_a_tier_counts_once(site: Site) -> None:
    """All of them are hits of that tier."""
    site.cache()[0].set("key", "value")
    cache, tier = site.cache()
    cache.get("other")
    tier.after["read"] = gate = Gate()
    first = spawn(lambda: cache.get("key", Source()))
    passed(gate.entered)
    others = spawn_many(3, lambda: cache.get("key", Source()))
    until(lambda: cache.stats().load_waiters == 3)
    gate.opened.set()
    assert results([first, *others]) == ["value"] * 4
    assert (cache.stats().hits_by_tier["dict"], cache.stats().miss_count) == (4, 1)


def test_a_dropped_cache_is_gone_though_its_tier_is_not(site: Site) -> None:
    """Neither the tier, which others share, nor what it tells keeps it."""
    with no_collection():
        cache, tier = site.cache()
        cache.set("key", "value")
        cache.get("bad", Source())
        with pytest.raises(ConnectionError):
            cache.get("worse", Source(BROKEN))
        BROKEN.__traceback__ = None
        assert background.wait(TIMEOUT)
        reference = weakref.ref(cache)
        del cache
        assert reference() is None
    site.shared.clear()
    site.settle()
    assert tier.calls["told"] == 1


def test_a_cache_and_its_own_tier_are_collected_together(site: Site) -> None:
    """Nothing of the library holds on to them."""
    cache, tier = site.cache()
    cache.set("key", "value")
    references = [weakref.ref(cache), weakref.ref(tier)]
    del cache, tier
    gc.collect()
    assert [reference() for reference in references] == [None, None]


# coherence ----------------------------------------------------------------------------------------------------


KINDS = ["set", "set", "delete", "tag", "clear", "expire"]


class Coherence(RuleBasedStateMachine):
    """Three caches, a source that changes, and loads that changes overtake: nobody goes on with what is not true any more."""

    keys = st.integers(0, 3)
    places = st.integers(0, 2)
    changes = st.lists(st.tuples(st.sampled_from(KINDS), places, keys), max_size=3)

    def __init__(self) -> None:
        super().__init__()
        self.site = Site(ttl=None)
        pairs = [self.site.cache(max_size=2), self.site.cache()]
        self.near = Stops(DictTier(clock=self.site.wall))
        self.far = Stops(self.site.shared.peer())
        self.caches = [*(cache for cache, _ in pairs), self.site.cache(tiers=[self.near, self.far])[0]]
        self.tiers = [*(tier for _, tier in pairs), self.far]
        self.truth = dict.fromkeys(range(4), 0)
        self.version = 0

    def _changed(self, keys: list[int]) -> None:
        for key in keys:
            self.version += 1
            self.truth[key] = self.version

    def _change(self, kind: str, place: int, key: int) -> None:
        """Change the source, and then have a cache know it."""
        cache = self.caches[place]
        concerned = {"tag": [each for each in self.truth if each % 2 == key % 2], "clear": list(self.truth)}.get(kind, [key])
        self._changed(concerned)
        if kind == "set":
            cache.set(key, self.truth[key], tags=[f"t{key % 2}"])
        elif kind == "tag":
            cache.invalidate_tag(f"t{key % 2}")
        elif kind == "clear":
            cache.clear()
        else:
            getattr(cache, kind)(key)

    @rule(kind=st.sampled_from(KINDS), place=places, key=keys)
    def change(self, kind: str, place: int, key: int) -> None:
        """Change something."""
        self._change(kind, place, key)

    @rule(place=places, key=keys, changes=changes, tells=st.booleans())
    def load(self, place: int, key: int, changes: list[tuple[str, int, int]], tells: bool) -> None:
        """Load a key, while other things happen, of which this cache is told during the load or after it."""

        def loader() -> int:
            value = self.truth[key]
            for each in changes:
                if each[0] != "expire":  # a load that began before may store its value
                    self._change(*each)
            if tells:
                self.site.settle()
            entry_options(tags=[f"t{key % 2}"])
            return value

        self.caches[place].get(key, loader)

    @rule(place=places, keys=st.lists(keys, max_size=4), changes=changes)
    def load_many(self, place: int, keys: list[int], changes: list[tuple[str, int, int]]) -> None:
        """Load several keys together, while other things happen."""

        def loader(missing: list[int]) -> dict[int, int]:
            values = {key: self.truth[key] for key in missing}
            for each in changes:
                if each[0] != "expire":
                    self._change(*each)
            return values

        self.caches[place].get_many(keys, loader, tags=["t0", "t1"])

    @rule(place=places, changes=changes)
    def miss(self, place: int, changes: list[tuple[str, int, int]]) -> None:
        """Change things while the tier is away for a moment."""
        self.tiers[place].is_away = True
        for kind, _, key in changes:
            self._change(kind, place, key)
        self.tiers[place].is_away = False

    @rule(place=places)
    def lose_touch(self, place: int) -> None:
        """Let a tier be away for one of them."""
        self.tiers[place].is_away = True

    @precondition(lambda self: any(tier.is_away for tier in self.tiers))
    @rule()
    def come_back(self) -> None:
        """Let all tiers be there again."""
        for tier in self.tiers:
            tier.is_away = False

    @rule()
    def pass_time(self) -> None:
        """Let breakers try again, but no entry expire; its time is over much later."""
        self.site.advance(0.5)

    @invariant()
    def nobody_serves_what_was_invalidated(self) -> None:
        """After quiet, if every tier is there."""
        if any(tier.is_away for tier in self.tiers):
            return
        while any(guard.is_open or guard._is_owing for cache in self.caches for guard in cache._guards):
            self.site.advance(60)
            for cache in self.caches:
                cache.get("nothing")
        for _ in range(2):  # what a far tier tells is then told by a near one
            self.site.settle()
        for cache in self.caches:
            for key, value in self.truth.items():
                found = cache.get(key, default=value)
                assert found == value, (cache, key)


Coherence.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestCoherence = Coherence.TestCase


def test_records_are_what_they_should_be(site: Site) -> None:
    """Dates by the wall clock, tags, and the codec's bytes."""
    cache, _ = site.cache(stale_for=50, value_type=int)
    cache.set("key", 7, ttl=10, tags=["a", "b"])
    assert site.records() == {encode_key("key"): Record(Codec(int).encode(7), NOW, NOW + 10, NOW + 60, ("a", "b"))}


def test_a_cache_by_hand(site: Site) -> None:
    """Without any of the helpers above."""
    del site
    tier = DictTier()
    cache = new_cache(tiers=[tier])
    assert cache.get("key", lambda: "value") == "value"
    assert cache.get("key") == "value"
    assert tier.usage().entries == 1
