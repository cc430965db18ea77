"""What changes between a mark and a write: by whomever, of whatever kind, nothing is found that was made before it."""

import time
from collections.abc import Callable

import pytest
from otel_perfopt_redis import RedisTier
from otel_perfopt_redis.scripts import HISTORY

from otel_perfopt.tiers import Change
from tests.integrations.redis.support import Server, Told, put, record, until, values

NewTier = Callable[..., RedisTier]

CHANGES: dict[str, Callable[[RedisTier], object]] = {
    "delete": lambda tier: tier.delete([b"key"]),
    "tag": lambda tier: tier.invalidate_tag("tag"),
    "clear": lambda tier: tier.clear(),
}


@pytest.mark.parametrize("replaces", [False, True], ids=["loaded", "set"])
@pytest.mark.parametrize("has_old", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_the_mark_wins(new_tier: NewTier, change: str, by: str, has_old: bool, replaces: bool) -> None:
    """What was made before it is not kept, nor is what was there before."""
    tier = new_tier()
    changes = tier if by == "itself" else new_tier()
    if has_old:
        put(tier, b"key", value=b"old", tags=("tag",))
    mark = tier.mark()
    CHANGES[change](changes)
    tier.write({b"key": record(b"new", "tag")}, mark, replaces=replaces)
    tier.flush()
    assert values(tier, b"key") == {}


@pytest.mark.parametrize("replaces", [False, True], ids=["loaded", "set"])
@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_the_write_wins_too(new_tier: NewTier, change: str, by: str, replaces: bool) -> None:
    """Whether or not it has waited meanwhile."""
    tier = new_tier()
    changes = tier if by == "itself" else new_tier()
    tier.write({b"key": record(b"new", "tag")}, tier.mark(), replaces=replaces)
    CHANGES[change](changes)
    tier.flush()
    if by == "itself":
        assert values(tier, b"key") == {}
    CHANGES[change](changes)
    assert values(tier, b"key") == {}


@pytest.mark.parametrize("by", ["itself", "another"])
def test_bug_a_tag_of_what_was_set_and_not_kept(new_tier: NewTier, by: str) -> None:
    """The value before, which has no such tag, was replaced all the same."""
    tier = new_tier()
    put(tier, b"key", value=b"old")
    mark = tier.mark()
    (tier if by == "itself" else new_tier()).invalidate_tag("tag")
    tier.write({b"key": record(b"new", "tag")}, mark, replaces=True)
    tier.flush()
    assert values(tier, b"key") == {}


@pytest.mark.parametrize("replaces", [False, True], ids=["loaded", "set"])
def test_what_expires_meanwhile_is_kept_as_stale(new_tier: NewTier, replaces: bool) -> None:
    """The load began before it."""
    tier, other = new_tier(), new_tier()
    mark = tier.mark()
    other.expire([b"key"])
    tier.write({b"key": record()}, mark, replaces=replaces)
    tier.flush()
    assert tier.read([b"key"]).records[b"key"].fresh_until < time.time()
    put(tier, b"key")
    assert tier.read([b"key"]).records[b"key"].fresh_until > time.time()


def test_what_is_loaded_never_replaces_what_was_set_meanwhile(new_tier: NewTier) -> None:
    """In Redis, and while both wait."""
    tier, other = new_tier(), new_tier()
    mark = tier.mark()
    put(other, b"key", value=b"set", replaces=True)
    tier.write({b"key": record(b"loaded")}, mark)
    tier.flush()
    assert values(tier, b"key") == {b"key": b"set"}
    mark = tier.mark()
    tier.write({b"key": record(b"set again")}, mark, replaces=True)
    tier.write({b"key": record(b"loaded")}, mark)
    assert values(tier, b"key") == {b"key": b"set again"}


def test_of_two_that_are_set_the_last_one_stays(new_tier: NewTier) -> None:
    """As they are written."""
    tier, other = new_tier(), new_tier()
    mark = tier.mark()
    put(other, b"key", value=b"first", replaces=True)
    tier.write({b"key": record(b"second")}, mark, replaces=True)
    tier.flush()
    assert values(other, b"key") == {b"key": b"second"}


def test_other_changes_do_not_matter(new_tier: NewTier) -> None:
    """Those of other keys and tags, however many."""
    tier, other = new_tier(), new_tier()
    mark = tier.mark()
    other.delete([b"%d" % number for number in range(2000)])
    other.invalidate_tag("other")
    for replaces in (False, True):
        tier.write({b"key %d" % replaces: record(b"new", "tag")}, mark, replaces=replaces)
    tier.flush()
    assert len(values(tier, b"key 0", b"key 1")) == 2


def test_a_short_life_hides_no_deletion(new_tier: NewTier) -> None:
    """Of two loads the one that began after the deletion is over in a moment; the other one is not kept all the same."""
    tier = new_tier()
    early = tier.mark()
    tier.delete([b"key"])
    tier.write({b"key": record(b"late", fresh=0.01, kept=0.02)}, tier.mark())
    tier.flush()
    until(lambda: not tier._connection.call(("EXISTS", tier._prefix + b"key")))
    tier.write({b"key": record(b"early")}, early)
    tier.flush()
    assert values(tier, b"key") == {}


def test_changes_that_are_too_many_to_remember(new_tier: NewTier, server: Server) -> None:
    """What was made before them is not kept, whether or not it was concerned; what is made later, is."""
    tier = new_tier()
    early = tier.mark()
    tier.delete([b"key"])
    for start in range(0, 12_000, 3000):
        tier.delete([b"%d" % number for number in range(start, start + 3000)])
    late = tier.mark()
    tier.delete([b"another"])
    for number, mark in enumerate([early, late]):
        for key in (b"key", b"fresh %d" % number):
            tier.write({key: record()}, mark)
            tier.flush()
            assert values(tier, key) == ({key: b"value"} if mark is late else {})
    assert server.admin.zcard(tier._keys[2]) < 11_000
    assert server.admin.xlen(tier._keys[3]) < 11_000


@pytest.mark.parametrize("replaces", [False, True], ids=["loaded", "set"])
def test_what_took_too_long_to_make(new_tier: NewTier, replaces: bool) -> None:
    """Nobody remembers what was invalidated meanwhile; what was set replaces what was there, all the same."""
    tier = new_tier()
    put(tier, b"key", value=b"old")
    mark = tier.mark()
    for age, value in ((HISTORY - 10, b"new"), (HISTORY + 1, b"too late")):
        tier.write({b"key": record(value)}, mark._replace(time=mark.time - age), replaces=replaces)
        tier.flush()
    assert values(tier, b"key") == ({} if replaces else {b"key": b"new"})


@pytest.mark.parametrize("age", [0, 10_000])
def test_so_many_tags(new_tier: NewTier, server: Server, age: int) -> None:
    """Those that no record can have are forgotten; if it is not enough, all records are."""
    tier, other = new_tier(), new_tier()
    told = Told(other)
    put(tier, b"key", tags=("tag",))
    early = tier.mark()
    head, facts = tier._keys[:2]
    count = 11_000 if age else 110_000
    server.admin.hset(facts, mapping={f"t:{number}": f"{early.seq} {early.time - age:.0f}" for number in range(count)})
    tier.invalidate_tag("other")
    if age:
        assert values(tier, b"key") == {b"key": b"value"}
        told.until(Change(tag="other"))
    else:
        assert values(tier, b"key") == {}
        told.until(Change(tag="other"), Change())
    assert server.admin.hlen(facts) < 10
    tier.invalidate_tag("tag")
    tier.write({b"key": record(b"early", "tag")}, early)
    assert values(tier, b"key") == {}
    assert server.admin.exists(head)
