"""One process at a time loads a key: the others wait for its value, and load themselves if it does not come."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from otel_perfopt_redis import RedisTier

from otel_perfopt.telemetry import background
from tests.cache.support import spawn
from tests.integrations.redis.support import TIMEOUT, Calls, Server, put, record, until, values

NewTier = Callable[..., RedisTier]
NewCache = Callable[..., Any]
LONG = "10m"
"""Nobody waits so long; a test that has to fails."""


def test_the_others_wait_for_the_value(new_tier: NewTier) -> None:
    """And have it then."""
    leader, followers = new_tier(single_flight=LONG), [new_tier(single_flight=LONG) for _ in range(3)]
    mark = leader.read([b"key"]).mark
    waiting = [spawn(values, each, b"key") for each in followers]
    assert not any(each.done() for each in waiting)
    leader.write({b"key": record()}, mark)
    assert [each.result(TIMEOUT) for each in waiting] == [{b"key": b"value"}] * 3


def test_one_who_does_not_load_after_all_lets_the_next_one(new_tier: NewTier) -> None:
    """Just one of them."""
    leader, *followers = (new_tier(single_flight=LONG) for _ in range(3))
    leader.read([b"key"])
    waiting = [spawn(each.read, [b"key"]) for each in followers]
    leader.release([b"key", b"another"])
    until(lambda: any(each.done() for each in waiting))
    first = 0 if waiting[0].done() else 1
    assert waiting[first].result().records == {}
    assert not waiting[1 - first].done()
    followers[first].release([b"key"])
    assert waiting[1 - first].result(TIMEOUT).records == {}


def test_one_cannot_release_what_others_load(new_tier: NewTier, server: Server) -> None:
    """Nor does one who writes late, when another one loads already."""
    leader, other = new_tier(single_flight=LONG), new_tier(single_flight=LONG)
    leader.read([b"key"])
    other.release([b"key"])
    put_by_other = other._connection.call(("EXISTS", other._keys[0] + b":load:" + other._prefix + b"key"))
    assert put_by_other == 1


def test_the_time_of_one_who_is_gone_ends(new_tier: NewTier) -> None:
    """Then another one loads."""
    leader, other = new_tier(single_flight=0.05), new_tier(single_flight=0.05)
    leader.read([b"key"])
    begin = time.monotonic()
    assert other.read([b"key"]).records == {}
    assert time.monotonic() - begin < 5, "it is a hundredth of that"


def test_one_does_not_wait_for_oneself(new_tier: NewTier) -> None:
    """Within one process the cache sees to that."""
    tier = new_tier(single_flight=LONG)
    assert tier.read([b"key"]).records == {}
    assert tier.read([b"key"]).records == {}


def test_a_fresh_record_is_nobodys_turn(new_tier: NewTier, server: Server) -> None:
    """It is returned at once, in one command, though somebody loads it anew."""
    tier, other = new_tier(single_flight=LONG), new_tier(single_flight=LONG)
    tier.read([b"key"])
    put(other, b"key")
    assert values(other, b"key") == {b"key": b"value"}
    with server.counted() as calls:
        other.read([b"key"])
    assert calls["evalsha"] == 1


def test_a_stale_record_is_loaded_by_one(new_tier: NewTier) -> None:
    """The others wait, and have the stale one if nothing better comes."""
    leader, other = new_tier(single_flight=LONG), new_tier(single_flight=LONG)
    put(leader, b"key", value=b"old")
    leader.expire([b"key"])
    mark = leader.read([b"key"]).mark
    waiting = spawn(other.read, [b"key"])
    leader.write({b"key": record(b"new")}, mark)
    assert waiting.result(TIMEOUT).records[b"key"].value == b"new"
    leader.expire([b"key"])
    assert leader.read([b"key"]).records[b"key"].value == b"new"
    waiting = spawn(other.read, [b"key"])
    leader.release([b"key"])
    assert waiting.result(TIMEOUT).records[b"key"].value == b"new"


def test_what_is_not_kept_releases_as_well(new_tier: NewTier) -> None:
    """A value that was invalidated meanwhile, say."""
    leader, other = new_tier(single_flight=LONG), new_tier(single_flight=LONG)
    mark = leader.read([b"key"]).mark
    leader.delete([b"key"])
    leader.write({b"key": record()}, mark)
    leader.flush()
    assert other.read([b"key"]).records == {}


def test_bug_two_who_load_many_keys_do_not_wait_for_each_other(new_tier: NewTier) -> None:
    """Whoever holds one key loads all that it lacks."""
    tier, other = new_tier(single_flight=LONG), new_tier(single_flight=LONG)
    tier.read([b"a"])
    other.read([b"b"])
    one = spawn(tier.read, [b"a", b"b"])
    two = spawn(other.read, [b"b", b"a"])
    assert one.result(TIMEOUT).records == two.result(TIMEOUT).records == {}
    other.read([b"c"])
    assert tier.read([b"a", b"b", b"c"]).records == {}


def test_bug_a_key_that_looks_like_a_lock(new_tier: NewTier) -> None:
    """It is another key."""
    tier, other = new_tier(single_flight=LONG), new_tier(single_flight=LONG)
    put(tier, b"key:load", b"load:key", b":load:key")
    assert other.read([b"key"]).records == {}
    put(other, b"key")
    assert set(values(tier, b"key", b"key:load", b"load:key", b":load:key")) == {b"key", b"key:load", b"load:key", b":load:key"}


def test_without_the_option_nobody_waits(new_tier: NewTier) -> None:
    """Neither do tiers without it wait for those with it, nor is releasing anything."""
    tier, other = new_tier(single_flight=LONG), new_tier()
    tier.read([b"key"])
    assert other.read([b"key"]).records == {}
    other.release([b"key"])


@pytest.mark.parametrize("change", ["delete", "clear", "flushall"])
def test_changes_while_one_loads(new_tier: NewTier, own_server: Server, change: str) -> None:
    """They let nobody wait for ever."""
    leader, other = new_tier(single_flight=LONG), new_tier(single_flight=LONG)
    mark = leader.read([b"key"]).mark
    waiting = spawn(other.read, [b"key"])
    if change == "flushall":
        own_server.admin.flushall()
    else:
        leader.delete([b"key"]) if change == "delete" else leader.clear()
    leader.write({b"key": record()}, mark)
    leader.flush()
    assert waiting.result(TIMEOUT).records == {}


# caches ----------------------------------------------------------------------------------------------


def test_one_load_for_all(new_cache: NewCache, do: Calls) -> None:
    """The others wait for its value, wherever they are."""
    caches = [new_cache(single_flight="10m") for _ in range(4)]
    loads: list[int] = []

    def load(number: int) -> str:
        loads.append(number)
        return "value"

    futures = [spawn(cache.get, "key", lambda number=number: load(number)) for number, cache in enumerate(caches)]
    assert [future.result(TIMEOUT) for future in futures] == ["value"] * 4
    assert len(loads) == 1


@pytest.mark.parametrize("how", ["fails", "is not kept", "is asked without a loader", "cannot be encoded"])
def test_one_who_does_not_load_keeps_nobody_waiting(new_cache: NewCache, do: Calls, how: str) -> None:
    """The next one loads at once."""
    one, other = (new_cache(single_flight="10m", unencodable="memory") for _ in range(2))
    other.get("warm")

    def load() -> Any:
        if how == "fails":
            raise ConnectionError
        if how == "is not kept":
            one.delete("key")
        return object()

    if how == "is asked without a loader":
        assert do(one, "get", "key") is None
    else:
        try:
            do(one, "get", "key", do.loader(load))
        except ConnectionError:
            pass
    assert background.wait(TIMEOUT)
    assert spawn(do, other, "get", "key", do.loading("value")).result(TIMEOUT) == "value"
