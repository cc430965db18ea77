"""A tier behind faults: it fails as tiers fail, and its lies are of the kinds that were asked for."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt.errors import ConfigurationError, TierError
from otel_perfopt.testing import DictTier, Faults, FaultyTier, ManualClock
from otel_perfopt.tiers.base import Record, Tier
from tests.cache.support import results, spawn, until

FOREVER = 4e9

CALLS: dict[str, Callable[[Tier, Any], object]] = {
    "read": lambda tier, mark: tier.read([b"k"]),
    "mark": lambda tier, mark: tier.mark(),
    "write": lambda tier, mark: tier.write({b"k": record(b"v")}, mark),
    "delete": lambda tier, mark: tier.delete([b"k"]),
    "expire": lambda tier, mark: tier.expire([b"k"]),
    "invalidate_tag": lambda tier, mark: tier.invalidate_tag("tag"),
    "clear": lambda tier, mark: tier.clear(),
    "watch": lambda tier, mark: tier.watch(print),
    "add_counts": lambda tier, mark: tier.add_counts({"hits": 1}),
    "usage": lambda tier, mark: tier.usage(),
    "flush": lambda tier, mark: tier.flush(),
    "close": lambda tier, mark: tier.close(),
}


def record(value: bytes) -> Record:
    """A record that is always fresh."""
    return Record(value, 0.0, FOREVER, FOREVER, ("tag",))


def put(tier: Tier, key: bytes, value: bytes) -> None:
    """Write a record."""
    tier.write({key: record(value)}, tier.mark())


def liar(*lies: Any, rate: float = 1.0) -> FaultyTier:
    """A tier that lies, and does nothing else wrong."""
    return FaultyTier(DictTier(), Faults(seed=1, failure_rate=0.0, lie_rate=rate), lies=lies)


def read(tier: Tier, key: bytes) -> bytes | None:
    """The value of a key."""
    found = tier.read([key]).records.get(key)
    return None if found is None else found.value


def test_every_method_of_a_tier_is_tried() -> None:
    """So that no new one goes without faults."""
    assert set(CALLS) == Tier.__abstractmethods__


@pytest.mark.parametrize("method", CALLS)
def test_every_method_fails_as_tiers_do(method: str) -> None:
    """With `TierError`, whatever the faults are made of; what was to be done is not done."""
    tier = FaultyTier(DictTier(), Faults(seed=2, failure_rate=0.0, errors=ConnectionError))
    put(tier, b"k", b"old")
    mark = tier.mark()
    with tier.faults.outage(), pytest.raises(TierError, match=rf"call 4 of {method} \(seed=2\)") as caught:
        CALLS[method](tier, mark)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert read(tier.tier, b"k") == b"old"
    assert tier.tier.add_counts({}) == {}


@pytest.mark.parametrize("method", CALLS)
def test_every_method_goes_through(method: str) -> None:
    """And gives what the tier behind gives."""
    honest, tier = DictTier(), FaultyTier(DictTier(), Faults(failure_rate=0.0))
    for each in (honest, tier):
        put(each, b"k", b"old")
    expected, given = CALLS[method](honest, honest.mark()), CALLS[method](tier, tier.mark())
    if method in {"read", "mark"}:  # of two stores
        given = given._replace(**{name: getattr(expected, name) for name in ("mark", "store") if hasattr(expected, name)})  # type: ignore[attr-defined]
    assert given == expected
    assert read(tier.tier, b"k") == read(honest, b"k")
    assert tier.tier.usage() == honest.usage()
    assert tier.tier.add_counts({}) == honest.add_counts({})


def test_errors_of_tiers_stay_as_they_are() -> None:
    """They need no other one around them."""
    tier = FaultyTier(DictTier(), Faults(failure_rate=1.0, errors=TierError))
    with pytest.raises(TierError) as caught:
        tier.mark()
    assert caught.value.__cause__ is None


def test_what_is_not_a_failure_of_a_tier_comes_through() -> None:
    """Such as Ctrl-C in the middle."""
    with pytest.raises(KeyboardInterrupt):
        FaultyTier(DictTier(), Faults(failure_rate=1.0, errors=KeyboardInterrupt)).mark()


def test_the_tier_behind_is_closed_even_if_the_call_fails() -> None:
    """Nothing of a test stays open."""
    closed = []

    class Closing(DictTier):
        """Notes it."""

        def close(self) -> None:
            closed.append(self)

    with pytest.raises(TierError):
        FaultyTier(Closing(), Faults(failure_rate=1.0)).close()
    assert len(closed) == 1


def test_a_slow_tier() -> None:
    """It waits for the clock."""
    clock = ManualClock()
    tier = FaultyTier(DictTier(), Faults(failure_rate=0.0, delay=5, clock=clock))
    call = spawn(tier.delete, [b"k"])
    until(lambda: tier.faults.delayed == 1)
    clock.advance(5)
    assert results([call]) == [False]


def test_metrics_know_it_as_the_tier_behind() -> None:
    """Its kind, and whether it is remote."""

    class Remote(DictTier):
        """A server, say."""

        kind = "server"
        is_remote = True

    tier = FaultyTier(Remote(), Faults())
    assert (tier.kind, tier.is_remote, FaultyTier.kind, FaultyTier.is_remote) == ("server", True, "faulty", False)
    assert "DictTier" in repr(tier)
    assert "seed=" in repr(tier)


def test_old_records_come_back() -> None:
    """Those that were replaced, and those that were deleted; there has to be one."""
    tier = liar("old")
    put(tier, b"k", b"1")
    assert read(tier, b"k") == b"1"
    put(tier, b"k", b"2")
    assert read(tier, b"k") == b"1"
    tier.delete([b"k"])
    assert {read(tier, b"k") for _ in range(20)} == {b"1", b"2"}
    assert read(tier, b"never there") is None


def test_what_others_have_written_can_come_back() -> None:
    """If it was read here."""
    tier = liar("old")
    put(tier.tier, b"k", b"by another")
    assert read(tier, b"k") == b"by another"
    tier.tier.clear()
    assert read(tier, b"k") == b"by another"


def test_foreign_records() -> None:
    """Of another key, also where there is none."""
    tier = liar("foreign")
    put(tier, b"k", b"mine")
    assert read(tier, b"k") == b"mine"
    put(tier, b"other", b"foreign")
    assert read(tier, b"k") == b"foreign"
    assert read(tier, b"missing") in {b"mine", b"foreign"}


def test_damaged_records() -> None:
    """Cut short, or with a bit the other way round; nothing is made of nothing."""
    tier = liar("damaged")
    value = bytes(range(100))
    put(tier, b"k", value)
    put(tier, b"empty", b"")
    damaged = [read(tier, b"k") or b"" for _ in range(50)]
    kinds = Counter("cut" if len(each) < 100 else "bit" for each in damaged)
    assert min(kinds["cut"], kinds["bit"]) > 10
    for each in damaged:
        if len(each) == 100:
            assert sum((a ^ b).bit_count() for a, b in zip(each, value, strict=True)) == 1
        else:
            assert value.startswith(each)
    assert read(tier, b"empty") == b"\0"
    assert read(tier, b"missing") is None
    assert read(tier.tier, b"k") == value


def test_all_lies_come_as_often_as_was_asked_for() -> None:
    """Each about as often, whatever other faults there are; and the same ones with the same seed."""

    def told() -> list[bytes | None]:
        tier = FaultyTier(DictTier(), Faults(seed=1, failure_rate=0.5, lie_rate=0.6))
        tier.faults.stop()
        for value in (b"old value", b"new value"):
            put(tier, b"k", value)
        put(tier, b"other", b"foreign")
        tier.faults.start()
        return [answer(tier) for _ in range(1000)]

    def answer(tier: FaultyTier) -> bytes | None:
        try:
            return read(tier, b"k")
        except TierError:
            return None

    known = {b"old value", b"new value", b"foreign", None}
    kinds = Counter(value if value in known else b"damaged" for value in told())
    assert kinds[None] == pytest.approx(500, abs=50)
    assert kinds[b"new value"] == pytest.approx(200, abs=40)
    for lie in (b"old value", b"foreign", b"damaged"):
        assert kinds[lie] == pytest.approx(100, abs=30)
    assert told() == told()


def test_lies_are_counted() -> None:
    """Reads only."""
    tier = liar("damaged")
    put(tier, b"k", b"v")
    tier.delete([b"k"])
    tier.read([b"k"])
    assert tier.faults.lies == 1


@pytest.mark.parametrize("lies", [(), ("white",), ("old", "white")])
def test_lies_that_nobody_knows_are_refused(lies: Any) -> None:
    """With those that there are."""
    with pytest.raises(ConfigurationError, match="'old', 'foreign', 'damaged'"):
        FaultyTier(DictTier(), Faults(), lies=lies)
