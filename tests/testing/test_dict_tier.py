"""The tier in memory does what the tier in a file does: one text for both, and one model."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from otel_perfopt.telemetry import background
from otel_perfopt.testing import DictTier, ManualClock
from otel_perfopt.tiers.base import Change, Record, Tier, TierUsage
from otel_perfopt.tiers.sqlite import SQLiteTier
from tests.cache.support import passed, results, spawn_many
from tests.testing.support import exit_code_of_child, forks
from tests.tiers.test_sqlite_model import TwoTiers

NOW = 1_000_000.0
TIMEOUT = 20.0


class Peers:
    """Two tiers with the same records."""

    def __init__(self, one: Any, other: Any, clock: ManualClock) -> None:
        self.one, self.other, self.clock = one, other, clock

    def put(self, key: bytes, value: bytes = b"value", *tags: str, mark: Any = None, replaces: bool = False) -> None:
        """Have the one write a record, which the other can find at once."""
        record = Record(value, self.clock(), self.clock() + 60, self.clock() + 120, tags)
        self.one.write({key: record}, mark or self.one.mark(), replaces=replaces)
        self.one.flush()

    def found(self, key: bytes) -> bytes | None:
        """What both have."""
        records = [tier.read([key]).records.get(key) for tier in (self.one, self.other)]
        assert records[0] == records[1]
        return None if records[0] is None else records[0].value

    def is_fresh(self, key: bytes) -> bool:
        """Whether what both have is fresh."""
        assert self.found(key) is not None
        return bool(self.one.read([key]).records[key].fresh_until > self.clock())

    def tell(self) -> None:
        """Have everybody told of everything."""
        self.clock.advance(1)
        assert background.wait(TIMEOUT)


@pytest.fixture(params=["dict", "sqlite"])
def peers(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Two tiers of a kind."""
    clock = ManualClock(NOW)
    if request.param == "dict":
        tier = DictTier(clock=clock)
        pair: list[Tier] = [tier, tier.peer()]
    else:
        pair = [SQLiteTier(tmp_path / "cache.db", clock=clock, write_delay=0) for _ in range(2)]
    yield Peers(pair[0], pair[1], clock)
    for each in pair:
        each.close()


def test_a_record_is_there_until_it_is_not_kept_any_more(peers: Peers) -> None:
    """Also while it is stale."""
    peers.put(b"k", b"v", "tag")
    assert peers.one.read([b"k", b"other"]).records == {b"k": Record(b"v", NOW, NOW + 60, NOW + 120, ("tag",))}
    peers.clock.advance(119)
    assert not peers.is_fresh(b"k")
    peers.clock.advance(1)
    assert peers.found(b"k") is None


INVALIDATIONS: dict[str, Callable[[Tier], object]] = {
    "delete": lambda tier: tier.delete([b"k"]),
    "tag": lambda tier: tier.invalidate_tag("tag"),
    "clear": lambda tier: tier.clear(),
}


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("by", ["one", "other"])
@pytest.mark.parametrize("how", INVALIDATIONS)
def test_what_was_invalidated_does_not_come_back(peers: Peers, how: str, by: str, replaces: bool) -> None:
    """Neither what was there, nor what was made before and comes after it; what is made later does."""
    peers.put(b"k", b"old", "tag")
    peers.put(b"untouched", b"v")
    before, of_a_read = peers.one.mark(), peers.one.read([b"k"]).mark
    INVALIDATIONS[how](getattr(peers, by))
    assert peers.found(b"k") is None
    for mark in (before, of_a_read):
        peers.put(b"k", b"late", "tag", mark=mark, replaces=replaces)
        assert peers.found(b"k") is None
    peers.put(b"k", b"new", "tag", replaces=replaces)
    assert peers.found(b"k") == b"new"
    assert (peers.found(b"untouched") is None) == (how == "clear")


def test_what_has_expired_is_stale(peers: Peers) -> None:
    """And so is what was made before and comes after it."""
    peers.put(b"k", b"old")
    mark = peers.one.mark()
    assert peers.other.expire([b"k", b"nothing"])
    assert not peers.other.expire([b"k"])
    assert not peers.is_fresh(b"k")
    peers.put(b"k", b"late", mark=mark)
    assert not peers.is_fresh(b"k")
    peers.put(b"k", b"new")
    assert peers.is_fresh(b"k")


@pytest.mark.parametrize("method", ["delete", "expire"])
def test_only_fresh_records_count(peers: Peers, method: str) -> None:
    """Not those that are stale, were invalidated by tag, or never were."""
    peers.put(b"tagged out", b"v", "tag")
    peers.other.invalidate_tag("tag")
    peers.put(b"fresh")
    assert getattr(peers.one, method)([b"nothing"]) is False
    assert getattr(peers.one, method)([b"tagged out"]) is False
    assert getattr(peers.other, method)([b"fresh", b"nothing"]) is True
    peers.put(b"stale")
    peers.clock.advance(60)
    assert getattr(peers.one, method)([b"stale"]) is False


def test_what_was_set_is_not_replaced_by_what_was_loaded_before(peers: Peers) -> None:
    """But a later set replaces it, and so does a later load."""
    mark = peers.one.mark()
    peers.put(b"k", b"set", replaces=True)
    peers.put(b"k", b"loaded", mark=mark)
    assert peers.found(b"k") == b"set"
    peers.put(b"k", b"set again", mark=mark, replaces=True)
    assert peers.found(b"k") == b"set again"
    peers.put(b"k", b"loaded later")
    assert peers.found(b"k") == b"loaded later"


def test_peers_are_told_in_order_and_nobody_of_its_own(peers: Peers) -> None:
    """What was loaded is no change."""
    heard: list[Change] = []
    own: list[Change] = []
    peers.other.watch(heard.append)
    peers.one.watch(own.append)
    peers.put(b"loaded")
    peers.put(b"set", replaces=True)
    peers.one.delete([b"deleted"])
    peers.one.expire([b"expired"])
    peers.one.invalidate_tag("tag")
    peers.one.clear()
    peers.tell()
    assert heard == [Change(b"set"), Change(b"deleted"), Change(b"expired"), Change(tag="tag"), Change()]
    assert own == []
    peers.other.delete([b"back"])
    peers.tell()
    assert own == [Change(b"back")]


def test_counts_are_shared(peers: Peers) -> None:
    """Sums of what all have counted."""
    assert peers.one.add_counts({}) == {}
    assert peers.one.add_counts({"hits": 2}) == {"hits": 2}
    assert peers.other.add_counts({"hits": 3, "misses": 1}) == {"hits": 5, "misses": 1}
    assert peers.one.add_counts({}) == {"hits": 5, "misses": 1}


def test_a_closed_tier_can_be_used_again(peers: Peers) -> None:
    """With what was in it."""
    peers.put(b"k")
    peers.one.close()
    assert peers.found(b"k") == b"value"


class TwoDictTiers(TwoTiers):
    """The model of the tier in a file, for tiers in memory."""

    def open(self) -> Any:
        """One more tier."""
        tiers = getattr(self, "first", None)
        if tiers is None:
            self.first = DictTier(clock=self.clock)
            return self.first
        return self.first.peer()


TestTwoDictTiers = TwoDictTiers.TestCase
TestTwoDictTiers.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


# what only this one does -------------------------------------------------------------------------------


def test_usage() -> None:
    """Keys and values."""
    tier = DictTier()
    tier.write({b"key": Record(b"value", 0, 4e9, 4e9)}, tier.mark())
    assert tier.usage() == TierUsage(1, 8, None)
    assert repr(tier) == "<DictTier with 1 records>"


def test_a_mark_of_another_store_means_nothing() -> None:
    """It says nothing about what was invalidated here."""
    tier, stranger = DictTier(), DictTier()
    tier.write({b"k": Record(b"v", 0, 4e9, 4e9)}, stranger.mark())
    assert not tier.read([b"k"]).records
    assert not stranger.read([b"k"]).records


def test_settle_waits_until_everybody_was_told() -> None:
    """In a background thread; one that takes too long is complained about."""
    tier, let_go = DictTier(), threading.Event()
    heard: list[str] = []

    def listen(change: Change) -> None:
        passed(let_go)
        heard.append(threading.current_thread().name)

    tier.peer()  # nobody's
    peer = tier.peer()
    peer.watch(listen)
    tier.delete([b"k"])
    tier.delete([b"l"])
    with pytest.raises(TimeoutError, match="callback"):
        tier.settle(timeout=0.0)
    assert heard == []
    settling = spawn_many(2, lambda: tier.settle(timeout=3600))
    let_go.set()
    results(settling)
    assert len(heard) == 2
    assert threading.current_thread().name not in heard


def test_one_that_raises_is_the_only_one(caplog: pytest.LogCaptureFixture) -> None:
    """Others are told, and so is it the next time."""

    class Refused(BaseException):
        """Nothing that is usually caught."""

    tier = DictTier()
    heard: list[Change] = []
    peer = tier.peer()

    def refuse(change: Change) -> None:
        raise Refused

    peer.watch(refuse)
    peer.watch(heard.append)
    tier.delete([b"a", b"b"])
    tier.settle()
    assert heard == [Change(b"a"), Change(b"b")]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_callback_may_use_the_tier() -> None:
    """No lock is held while it runs, so two caches may answer each other."""
    tier = DictTier()
    peer = tier.peer()
    heard: list[Change] = []
    tier.watch(heard.append)

    def answer(change: Change) -> None:
        peer.delete([b"answer"])
        results(spawn_many(1, lambda: peer.read([b"k"])))

    peer.watch(answer)
    tier.delete([b"question"])
    tier.settle()
    assert heard == [Change(b"answer")]


def test_a_peer_that_nobody_knows_any_more_is_not_told() -> None:
    """Tiers do not keep each other alive."""
    tier = DictTier()
    heard: list[Change] = []
    tier.peer().watch(heard.append)
    tier.delete([b"k"])
    tier.settle()
    assert heard == []


def test_threads_use_one_tier() -> None:
    """Who has deleted never finds what was made before."""
    tier = DictTier()
    peers = [tier, tier.peer(), tier.peer()]

    def work(number: int) -> int:
        mine = peers[number % 3]
        wrong = 0
        for _ in range(200):
            mark = mine.mark()
            mine.delete([b"%d" % number])
            mine.write({b"%d" % number: Record(b"late", 0, 4e9, 4e9)}, mark)
            wrong += len(mine.read([b"%d" % number]).records)
            mine.invalidate_tag("tag")
        return wrong

    numbers = iter(range(6))
    assert results(spawn_many(6, lambda: work(next(numbers)))) == [0] * 6
    tier.settle()


@forks
@pytest.mark.parametrize("busy", ["locked", "telling"])
def test_a_forked_child_does_not_hang(busy: str) -> None:
    """Whatever other threads were doing, it has a lock and threads of its own; what it changes is its own as well."""
    tier = DictTier()
    peer = tier.peer()
    tier.write({b"k": Record(b"v", 0, 4e9, 4e9)}, tier.mark())
    entered, let_go = threading.Event(), threading.Event()
    heard: list[Change] = []

    def hold(change: Change) -> None:
        heard.append(change)
        if change.key == b"hold":
            entered.set()
            passed(let_go)

    def lock() -> None:
        with tier._store.lock:
            hold(Change(b"hold"))

    def check() -> bool:
        heard.clear()
        tier.delete([b"k"])
        tier.settle()
        return heard == [Change(b"k")] and not tier.read([b"k"]).records

    peer.watch(hold)
    holding = spawn_many(1, lock) if busy == "locked" else []
    if busy == "telling":
        tier.delete([b"hold"])
    passed(entered)
    code = exit_code_of_child(check)
    let_go.set()
    results(holding)
    tier.settle()
    assert code == 0
    assert tier.read([b"k"]).records
