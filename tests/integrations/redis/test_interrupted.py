"""Ctrl-C before any line of a tier's calls, and many threads: no answer goes to the wrong question, and nobody hangs."""

import random
import threading
from collections.abc import Callable

import otel_perfopt_redis
import pytest
from otel_perfopt_redis import RedisTier

from otel_perfopt.errors import TierError
from otel_perfopt.telemetry import background
from otel_perfopt.tiers import Change
from tests import interruptions
from tests.cache.support import spawn
from tests.integrations.redis.support import TIMEOUT, Server, Told, put, record, values

NewTier = Callable[..., RedisTier]
PARTS = ("",)


def write(tier: RedisTier) -> None:
    """Set a value."""
    tier.write({b"key": record(b"new")}, tier._connection.latest, replaces=True)


def write_and_flush(tier: RedisTier) -> None:
    """Set a value, and wait."""
    write(tier)
    tier.flush()


def read_what_waits(tier: RedisTier) -> None:
    """Set a value, and have it written by reading it."""
    write(tier)
    tier.read([b"key"])


STEPS: dict[str, Callable[[RedisTier], object]] = {
    "read": lambda tier: tier.read([b"key", b"another"]),
    "read what waits": read_what_waits,
    "write": write_and_flush,
    "delete": lambda tier: tier.delete([b"key"]),
    "expire": lambda tier: tier.expire([b"key"]),
    "tag": lambda tier: tier.invalidate_tag("tag"),
    "clear": lambda tier: tier.clear(),
    "counts": lambda tier: tier.add_counts({"hits": 1}),
    "close": lambda tier: tier.close(),
}


@pytest.fixture
def _whole_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the tier count."""
    folder = (otel_perfopt_redis.__file__ or "").removesuffix("__init__.py")
    monkeypatch.setattr(interruptions, "LIBRARY", folder)


@pytest.mark.slow
@pytest.mark.usefixtures("_whole_library")
@pytest.mark.parametrize("is_new", [False, True], ids=["", "with a new connection"])
@pytest.mark.parametrize("step", STEPS)
def test_a_call_may_be_interrupted_anywhere(new_tier: NewTier, step: str, is_new: bool) -> None:
    """Afterwards every answer is that to its question, for this thread and for others, and what waits is written."""
    tier, other = new_tier(), new_tier()
    told = Told(other)
    line, more = 0, True
    while more:
        line += 1
        put(tier, b"key", b"another", value=b"old", tags=("tag",))
        if is_new:
            tier._connection.close()
        more = bool(interruptions.interrupted_at(line, lambda: STEPS[step](tier), PARTS))
        number = b"%d" % line
        assert background.wait(TIMEOUT)
        _check(tier, number)
        spawn(_check, tier, number).result(TIMEOUT)
        other.mark()
    assert line > 5, "nothing was interrupted"
    tier.delete([b"last"])
    told.until(Change(b"last"))


def _check(tier: RedisTier, number: bytes) -> None:
    put(tier, b"key", value=number, replaces=True)
    assert values(tier, b"key") == {b"key": number}
    assert tier.add_counts({}) is not None
    assert tier.delete([b"key"])
    assert not tier.delete([b"key"])
    tier.write({b"behind": record(number)}, tier.mark(), replaces=True)
    assert background.wait(TIMEOUT)
    assert not tier._writer._waiting, "it is not written behind any more"
    assert values(tier, b"behind") == {b"behind": number}


@pytest.mark.usefixtures("_whole_library")
def test_a_watcher_that_is_interrupted_is_told_again(new_tier: NewTier) -> None:
    """Ctrl-C while a read tells what was missed: the next one does."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    line, more = 0, True
    while more:
        line += 1
        tier._listener.stop()
        name = b"%d" % line
        other.delete([name])
        more = bool(interruptions.interrupted_at(line, lambda: tier.read([b"key"]), PARTS))
        tier.read([b"key"])
        assert {Change(name), Change()} & set(told.changes), f"line {line}"
        told.changes.clear()
    assert line > 20


@pytest.mark.slow
def test_many_threads(new_tier: NewTier) -> None:
    """Sixteen of them use one tier; each has keys of its own, which nobody else may spoil, and one that all share."""
    tier, other = new_tier(), new_tier()
    told = Told(other)
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    go_on = threading.Barrier(16)

    def work(who: int) -> None:
        draw = random.Random(f"{seed}/{who}")
        mine: dict[bytes, bytes | None] = {}
        go_on.wait(TIMEOUT)
        for number in range(150):
            key = b"%d/%d" % (who, draw.randrange(4))
            what = draw.random()
            if what < 0.3:
                mine[key] = value = b"%d/%d" % (who, number) + bytes(draw.randrange(2000))
                tier.write({key: record(value)}, tier.mark(), replaces=True)
            elif what < 0.4:
                assert tier.delete([key]) is (mine.get(key) is not None)
                mine[key] = None
            elif what < 0.45:
                tier.delete([b"shared"])
            elif what < 0.5:
                tier.write({b"shared": record(b"x" * 500, "tag")}, tier.mark())
            elif what < 0.55:
                tier.invalidate_tag("tag")
            elif what < 0.6:
                tier.flush()
            elif what < 0.62:
                tier.close()
            else:
                keys = [key, b"shared", b"%d/nothing" % who]
                found = {name: each.value for name, each in tier.read(keys).records.items()}
                assert found.get(key) == mine.get(key)
                assert found.get(b"shared") in (None, b"x" * 500)
                assert keys[2] not in found

    for each in [spawn(work, who) for who in range(16)]:
        each.result(60)
    tier.delete([b"last"])
    told.until(Change(b"last"))
    assert background.wait(TIMEOUT)
    assert not tier._connection._pool._in_use_connections


@pytest.mark.slow
def test_many_threads_while_connections_are_killed(new_tier: NewTier, server: Server) -> None:
    """A call works or raises TierError; no answer goes to another question."""
    tier = new_tier()
    is_over = threading.Event()
    lost: set[bytes] = set()
    tier.on_loss = lambda keys, _: lost.update(keys)

    def work(who: int) -> int:
        done = 0
        for number in range(300):
            key, value = b"%d" % who, b"%d/%d" % (who, number)
            try:
                tier.write({key: record(value)}, tier.mark(), replaces=True)
                found = tier.read([key]).records
                assert {name: each.value for name, each in found.items()} == {key: value} or key in lost
                lost.discard(key)
                tier.delete([key])  # it may be done twice, and then there was nothing the second time
                assert tier.read([key]).records == {}
                done += 1
            except TierError:
                pass
        return done

    def kill() -> None:
        while not is_over.wait(0.005):
            server.kill_connections()

    killer = spawn(kill)
    workers = [spawn(work, who) for who in range(8)]
    try:
        assert sum(each.result(60) for each in workers) > 100
    finally:
        is_over.set()
        killer.result(TIMEOUT)
