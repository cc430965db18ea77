"""What every tier promises, by one that is a Redis: nothing is found that was invalidated after its value was made."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from otel_perfopt_redis import RedisTier

from otel_perfopt.errors import TierError
from otel_perfopt.tiers import TierUsage
from tests.integrations.redis.support import Server, Told, put, record, until, values

NewTier = Callable[..., RedisTier]


def test_what_is_written_is_found_by_others(new_tier: NewTier) -> None:
    """With its dates and tags, by whoever shares the namespace."""
    tier, other = new_tier(), new_tier()
    written = record(b"value", "one", "two")
    tier.write({b"key": written}, tier.mark())
    tier.flush()
    (found,) = other.read([b"key", b"another"]).records.values()
    assert (found.value, found.tags) == (written.value, written.tags)
    for one, two in zip(found[1:4], written[1:4], strict=True):
        assert one == pytest.approx(two, abs=1)
    assert other.read([]).records == {}


def test_a_record_that_waits_is_found_by_its_writer(new_tier: NewTier) -> None:
    """Who reads it has it written first."""
    tier = new_tier()
    tier.write({b"key": record()}, tier.mark())
    assert values(tier, b"key") == {b"key": b"value"}


def test_namespaces_are_strangers(new_tier: NewTier, namespace: str) -> None:
    """Whatever signs they have in them."""
    names = [namespace, namespace + ":", namespace + "*", namespace + " [a-z]?\\", namespace + "\0\r\n", namespace + "ü🙂"]
    tiers = [new_tier(namespace=name) for name in names]
    for number, tier in enumerate(tiers):
        put(tier, b"key", value=b"%d" % number)
    for number, tier in enumerate(tiers):
        assert values(tier, b"key") == {b"key": b"%d" % number}
        assert tier.usage().entries == 1
    tiers[2].clear()
    assert [len(values(tier, b"key")) for tier in tiers] == [1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("key", [b"", b"key", b"k:load", bytes(range(256)), b"\r\n$1\r\n", b"{tag}", b"x" * 100_000])
@pytest.mark.parametrize("value", [b"", b"value", bytes(range(256)), b"\0" * 1000], ids=["empty", "short", "any", "zeros"])
def test_any_bytes(new_tier: NewTier, key: bytes, value: bytes) -> None:
    """Keys and values are bytes, whatever they are."""
    tier = new_tier()
    put(tier, key, value=value)
    assert values(tier, key, key + b"x") == {key: value}
    assert tier.delete([key])
    assert values(tier, key) == {}


def test_a_large_value(new_tier: NewTier) -> None:
    """Of five megabytes."""
    tier, value = new_tier(), bytes(5 * 2**20)
    put(tier, b"key", value=value, tags=("tag",))
    assert values(tier, b"key") == {b"key": value}
    assert tier.expire([b"key"])
    assert tier.read([b"key"]).records[b"key"].value == value


@pytest.mark.parametrize(
    "tags",
    [("",), ("a", "b", "a"), ("ü🙂\0\r\n", "\ud800"), ("t" * 70_000,), tuple(map(str, range(70_000)))],
    ids=["empty", "twice", "any", "long", "many"],
)
def test_any_tags(new_tier: NewTier, tags: tuple[str, ...]) -> None:
    """Of any text, length and number; each of them invalidates."""
    tier = new_tier()
    put(tier, b"key", tags=tags)
    assert tier.read([b"key"]).records[b"key"].tags == tags
    tier.invalidate_tag(tags[-1] + "x")
    assert values(tier, b"key") == {b"key": b"value"}
    tier.invalidate_tag(tags[-1])
    assert values(tier, b"key") == {}
    put(tier, b"key", tags=tags)
    assert values(tier, b"key") == {b"key": b"value"}


def test_what_changes_tell(new_tier: NewTier) -> None:
    """Whether there was anything fresh; also if it is not written yet, and not if somebody else has deleted it."""
    tier, other = new_tier(), new_tier()
    assert (tier.delete([b"key"]), tier.expire([b"key"])) == (False, False)
    put(tier, b"key", b"another")
    assert other.delete([b"nothing", b"key"])
    assert not tier.delete([b"key"])
    assert other.expire([b"another"])
    assert not other.expire([b"another"])
    assert not other.delete([b"another"])
    tier.write({b"key": record()}, tier.mark())
    assert tier.delete([b"key"])
    tier.write({b"key": record()}, tier.mark())
    assert tier.expire([b"key"])
    tier.write({b"key": record(fresh=-1)}, tier.mark())
    assert not tier.delete([b"key"])
    for change in (tier.clear, lambda: tier.invalidate_tag("tag")):
        put(tier, b"key", tags=("tag",))
        change()
        assert not other.delete([b"key"])


def test_what_has_expired_is_stale(new_tier: NewTier) -> None:
    """It is there, with all that it had, as long as it was to be kept."""
    tier = new_tier()
    put(tier, b"key", tags=("tag",))
    before = tier.read([b"key"]).records[b"key"]
    tier.expire([b"key"])
    after = tier.read([b"key"]).records[b"key"]
    assert after.fresh_until < time.time()
    assert (after.value, after.tags) == (before.value, before.tags)
    assert after.kept_until == pytest.approx(before.kept_until, abs=0.5)


# time ----------------------------------------------------------------------------------------------------------


def test_clocks_may_differ(new_tier: NewTier) -> None:
    """Redis's clock counts; each process has its dates by its own."""
    slow, fast = new_tier(clock=lambda: time.time() - 10_000), new_tier(clock=lambda: time.time() + 10_000)
    now = time.time() - 10_000
    slow.write({b"key": record(now=now, fresh=60, kept=120)}, slow.mark())
    slow.flush()
    for _ in range(2):  # by a script, and by a plain command
        found = fast.read([b"key"]).records[b"key"]
        assert [at - time.time() - 10_000 for at in found[1:4]] == pytest.approx([0, 60, 120], abs=2)


def test_what_is_over_is_gone(new_tier: NewTier, server: Server) -> None:
    """For all, and out of Redis."""
    tier = new_tier()
    put(tier, b"kept")
    tier.write({b"short": record(fresh=0.02, kept=0.05), b"over": record(fresh=-2, kept=-1)}, tier.mark(), replaces=True)
    tier.flush()
    until(lambda: not tier.read([b"short"]).records)
    assert tier.usage().entries <= 2
    assert values(tier, b"over", b"short", b"kept") == {b"kept": b"value"}


def test_what_is_over_before_it_is_written_replaces_all_the_same(new_tier: NewTier) -> None:
    """It was set, and the value before it was replaced."""
    tier = new_tier()
    put(tier, b"key", value=b"old")
    tier.write({b"key": record(b"new", kept=-1)}, tier.mark(), replaces=True)
    tier.flush()
    assert values(tier, b"key") == {}


@pytest.mark.parametrize("end", [float("inf"), 1e300, 1e12])
def test_what_never_ends_is_kept_for_a_while(new_tier: NewTier, server: Server, end: float) -> None:
    """As long as `max_ttl` says, which is not more than Redis can count."""
    for max_ttl in ("10s", "36500d"):
        tier = new_tier(max_ttl=max_ttl)
        tier.write({b"key": record(fresh=end, kept=end)}, tier.mark())
        assert values(tier, b"key") == {b"key": b"value"}
        left = server.admin.ttl(tier._prefix + b"key")
        assert 0 < left <= (10 if max_ttl == "10s" else 36_500 * 86_400)


@pytest.mark.parametrize("odd", [float("nan"), float("-inf"), -1e300])
def test_dates_that_are_none(new_tier: NewTier, odd: float) -> None:
    """They spoil nothing."""
    tier = new_tier()
    now = time.time()
    for number in range(1, 4):
        dates = [now, now + 60, now + 120]
        dates[number - 1] = odd
        tier.write(
            {b"odd %d" % number: record()._replace(created=dates[0], fresh_until=dates[1], kept_until=dates[2])}, tier.mark()
        )
        with suppress(TierError):
            tier.flush()
    put(tier, b"key")
    assert values(tier, b"key") == {b"key": b"value"}
    assert tier.delete([b"odd 1", b"odd 2", b"odd 3"]) in (True, False)


# what it costs -------------------------------------------------------------------------------------------------


def test_one_command_for_one_key_or_many(new_tier: NewTier, server: Server) -> None:
    """Whether a script or a plain command asks."""
    tier = new_tier()
    keys = [b"%d" % number for number in range(500)]
    put(tier, *keys)
    for some in ([b"0"], keys):
        with server.counted() as calls:
            assert len(tier.read(some).records) == len(some)
        assert (calls.get("mget", 0) + calls.get("evalsha", 0), set(calls) - {"get", "hget", "time"}) in (
            (1, {"mget"}),
            (1, {"evalsha"}),
        )
        assert "mget" in calls, "it was asked a moment ago"


def test_a_tag_that_was_invalidated_costs_no_command_more(new_tier: NewTier, server: Server) -> None:
    """But for once."""
    tier = new_tier()
    put(tier, b"key", tags=("tag",))
    tier.invalidate_tag("other")
    assert values(tier, b"key") == {b"key": b"value"}
    with server.counted() as calls:
        tier.read([b"key"])
    assert (calls.get("mget", 0), calls.get("evalsha", 0)) == (0, 1)


def test_many_records_are_written_in_few_round_trips(new_tier: NewTier, server: Server) -> None:
    """And all of them."""
    tier = new_tier()
    mark = tier.mark()
    packets = server.admin.info("stats")["total_reads_processed"]
    tier.write({b"%d" % number: record() for number in range(1000)}, mark)
    tier.flush()
    assert server.admin.info("stats")["total_reads_processed"] - packets < 100
    assert len(tier.read([b"%d" % number for number in range(1000)]).records) == 1000


# the rest ------------------------------------------------------------------------------------------------------


def test_figures_add_up(new_tier: NewTier) -> None:
    """Those of all processes."""
    tier, other = new_tier(), new_tier()
    assert tier.add_counts({}) == {}
    tier.add_counts({"hits": 3, "misses": 1})
    assert other.add_counts({"hits": 2}) == {"hits": 5, "misses": 1}
    tier.clear()
    assert tier.add_counts({}) == {"hits": 5, "misses": 1}


def test_usage_counts_records_only(new_tier: NewTier) -> None:
    """Neither what is deleted, nor what belongs to the tier, nor locks."""
    tier = new_tier(single_flight="10s")
    assert tier.usage() == TierUsage(0, 0, None)
    put(tier, b"a", b"b", value=b"x" * 1000)
    tier.read([b"locked"])
    tier.delete([b"a"])
    tier.invalidate_tag("tag")
    used = tier.usage()
    assert used.entries == 1
    assert 1000 < used.size < 1100
    assert used.max_size is None


def test_close_and_go_on(new_tier: NewTier, server: Server) -> None:
    """What waits is written, connections are closed, and the next call makes new ones."""
    tier, other = new_tier(), new_tier()
    tier.write({b"key": record()}, tier.mark())
    tier.close()
    assert values(other, b"key") == {b"key": b"value"}
    tier.close()
    assert values(tier, b"key") == {b"key": b"value"}
    put(tier, b"key", value=b"new", replaces=True)
    assert values(other, b"key") == {b"key": b"new"}


def test_close_closes_connections(new_tier: NewTier, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the tier has made; the server sees it."""
    monkeypatch.setattr("otel_perfopt_redis.tier.LISTEN", 0.1)
    before = {client["id"] for client in server.admin.client_list()}  # some may be about to go

    def its_own() -> set[str]:
        return {client["id"] for client in server.admin.client_list()} - before

    tier = new_tier()
    Told(tier)
    put(tier, b"key")
    assert len(its_own()) >= 2
    tier.close()
    until(lambda: not its_own())


def test_garbage_in_redis_is_a_miss(new_tier: NewTier, server: Server) -> None:
    """Whoever has put it there: nothing is found, everything else works, and it can be overwritten and deleted."""
    tier = new_tier()
    put(tier, b"good")
    for garbage in (b"", b"x", b"x" * 40, b"x" * 44, b"\xff" * 1000):
        server.admin.set(tier._prefix + b"key", garbage)
        assert values(tier, b"good", b"key") == {b"good": b"value"}
        assert not tier.delete([b"key"])
        server.admin.set(tier._prefix + b"key", garbage)
        assert not tier.expire([b"key"])
        server.admin.set(tier._prefix + b"key", garbage)
        put(tier, b"key")
        assert values(tier, b"key") == {b"key": b"value"}


def test_keys_are_versioned_and_in_one_slot(new_tier: NewTier, server: Server, namespace: str) -> None:
    """Every key that the tier makes begins alike, with the hash tag of a cluster."""
    tier = new_tier(single_flight="10s")
    before = set(server.admin.keys())
    put(tier, b"{other}")
    tier.read([b"{locked}"])
    tier.invalidate_tag("tag")
    tier.delete([b"key"])
    tier.add_counts({"hits": 1})
    made = set(server.admin.keys()) - before
    assert len(made) >= 5
    assert all(key.startswith(f"perfopt:1:{{{namespace}}}:".encode()) for key in made)


def test_repr(new_tier: NewTier, namespace: str) -> None:
    """It says which one it is."""
    assert repr(new_tier()) == f"<RedisTier '{namespace}'>"
