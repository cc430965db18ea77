"""What others change is told: all of it, in order, once; also what was missed, whatever became of the connection."""

import faulthandler
import gc
import os
import threading
import traceback
import weakref
from collections.abc import Callable

import pytest
from otel_perfopt_redis import RedisTier
from otel_perfopt_redis import tier as tier_module

from otel_perfopt.telemetry import background
from otel_perfopt.tiers import Change
from tests.integrations.redis.support import TIMEOUT, Server, Told, Wire, put, record, until, values

NewTier = Callable[..., RedisTier]


def threads() -> list[threading.Thread]:
    """Those that listen."""
    return [thread for thread in threading.enumerate() if thread.name == "otel-perfopt-redis"]


@pytest.fixture(autouse=True)
def _no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of earlier tests have ended, which does not take long here."""
    monkeypatch.setattr(tier_module, "LISTEN", 0.1)
    until(lambda: not threads())


def key(number: int) -> bytes:
    """A key."""
    return b"key %d" % number


def test_changes_of_others_are_told_in_order(new_tier: NewTier) -> None:
    """Of each kind; what was loaded is none."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    put(other, b"loaded")
    put(other, b"set", replaces=True)
    other.delete([b"deleted", b"deleted too"])
    other.expire([b"expired"])
    other.invalidate_tag("täg\ud800")
    other.clear()
    keys = [Change(name) for name in (b"set", b"deleted", b"deleted too", b"expired")]
    until(lambda: told.changes == [*keys, Change(tag="täg\ud800"), Change()])


def test_own_changes_are_not(new_tier: NewTier) -> None:
    """But those of another tier of the same process are."""
    tier, other = new_tier(), new_tier()
    told, others_told = Told(tier), Told(other)
    put(tier, b"set", replaces=True)
    tier.delete([b"deleted"])
    tier.invalidate_tag("tag")
    tier.clear()
    other.delete([b"last"])
    told.until(Change(b"last"))
    assert told.changes == [Change(b"last")]
    until(lambda: others_told.changes == [Change(b"set"), Change(b"deleted"), Change(tag="tag"), Change()])


def test_all_watchers_are_told(new_tier: NewTier) -> None:
    """Also if one of them fails."""
    tier, other = new_tier(), new_tier()

    def fail(_: Change) -> None:
        raise RuntimeError("whatever")

    tier.watch(fail)
    told = [Told(tier), Told(tier)]
    assert len(threads()) == 1
    for name in (b"a", b"b"):
        other.delete([name])
    for each in told:
        each.until(Change(b"a"), Change(b"b"))
    assert background.wait(TIMEOUT)


def test_thousands_at_once(new_tier: NewTier) -> None:
    """None is missing, and none is told twice."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    for start in range(0, 5000, 500):
        other.delete([key(number) for number in range(start, start + 500)])
    until(lambda: len(told.changes) >= 5000)
    assert told.changes == [Change(key(number)) for number in range(5000)]


def test_a_lost_connection_misses_nothing(new_tier: NewTier, server: Server) -> None:
    """Changes go on while connections are closed: each is told once, in order."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    for number in range(200):
        if number % 20 == 0:
            server.kill_connections()
        other.delete([key(number)])
    told.until(Change(key(199)))
    assert told.changes == [Change(key(number)) for number in range(200)]


@pytest.mark.parametrize("how", ["cut", "silent", "closed"])
def test_what_was_changed_meanwhile_is_told_before_anything_is_read(new_tier: NewTier, wire: Wire, how: str) -> None:
    """A tier that was away does not answer before it has told what it has missed."""
    tier, other = new_tier(wire, timeout=1.0), new_tier()  # of a wire that is silent it takes this long to be sure
    told = Told(tier)
    tier.mark()
    if how == "silent":
        wire.is_silent = True
    elif how == "closed":
        wire.is_closed = True
    wire.cut()
    if how != "cut":
        until(lambda: tier._listener.is_behind)
    other.delete([b"key"])
    wire.is_silent = wire.is_closed = False
    wire.cut()
    while True:
        try:
            tier.read([b"key"])
        except Exception:
            continue
        break
    assert Change(b"key") in told.changes or how == "cut"
    told.until(Change(b"key"))


def test_what_the_stream_does_not_tell_any_more(new_tier: NewTier, server: Server) -> None:
    """Then everything may have changed; afterwards single changes are told again."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    tier._listener.stop()
    until(lambda: not threads())
    other.delete([b"missed", b"missed too"])
    server.admin.xtrim(tier._keys[3], maxlen=1, approximate=False)
    tier.mark()
    assert told.changes == [Change()]
    other.delete([b"later"])
    told.until(Change(), Change(b"later"))


@pytest.mark.parametrize("loss", ["flush", "stream", "restart"])
def test_a_loss_is_told_without_anybody_reading(new_tier: NewTier, own_server: Server, loss: str) -> None:
    """Within about a second."""
    tier = new_tier()
    told = Told(tier)
    other = new_tier()
    other.mark()
    if loss == "flush":
        own_server.admin.flushall()
    elif loss == "stream":
        own_server.admin.delete(tier._keys[3])
    else:
        own_server.restart()
    until(lambda: _deletes(other, b"key"))
    until(lambda: Change() in told.changes or (loss == "stream" and Change(b"key") in told.changes))
    other.delete([b"later"])
    told.until(Change(b"later"))


def _deletes(tier: RedisTier, name: bytes) -> bool:
    tier.delete([name])
    return True


def test_a_loss_is_told_also_if_nobody_does_anything(new_tier: NewTier, own_server: Server) -> None:
    """It is asked for, every second."""
    told = Told(new_tier())
    own_server.admin.flushall()
    until(lambda: told.changes == [Change()])


def test_a_loss_that_others_have_noticed_is_told_before_anything_is_read(
    new_tier: NewTier, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis goes on by then, and answers plain commands."""
    tier, other = new_tier(), new_tier()
    put(tier, b"key")
    told = Told(tier)
    tier.mark()
    tier._listener.stop()
    until(lambda: not threads())
    monkeypatch.setattr(tier._listener, "_thread", object())  # one that hears nothing
    own_server.admin.flushall()
    put(other, b"another")
    with own_server.counted() as calls:
        tier.read([b"another"])
    assert calls["mget"] == 1
    assert told.changes == [Change()]


def test_paused(new_tier: NewTier, own_server: Server) -> None:
    """It goes on when Redis does."""
    tier, other = new_tier(timeout=0.1), new_tier()
    told = Told(tier)
    with own_server.paused():
        until(lambda: tier._listener.is_behind)
    other.delete([b"key"])
    told.until(Change(b"key"))


# the thread ----------------------------------------------------------------------------------------------------


def test_nothing_starts_before_somebody_wants_to_know(new_tier: NewTier, server: Server) -> None:
    """Neither a thread nor a connection."""
    before = len(server.admin.client_list())
    tier = new_tier()
    assert (threads(), len(server.admin.client_list())) == ([], before)
    put(tier, b"key")
    assert threads() == []


def test_close_ends_the_thread_and_the_next_call_starts_it(new_tier: NewTier) -> None:
    """What was changed meanwhile is told at once."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    tier.close()
    other.delete([b"meanwhile"])
    until(lambda: not threads())
    assert told.changes == []
    tier.mark()
    assert told.changes == [Change(b"meanwhile")]
    assert len(threads()) == 1
    other.delete([b"later"])
    told.until(Change(b"later"))


def test_closed_and_opened_again_and_again(new_tier: NewTier) -> None:
    """At most one thread listens; each change is told once."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    for number in range(20):
        tier.close()
        tier.mark()
        other.delete([key(number)])
    told.until(Change(key(19)))
    assert told.changes == [Change(key(number)) for number in range(20)]
    until(lambda: len(threads()) == 1)


def test_a_tier_that_is_collected_ends_its_thread(server: Server, namespace: str) -> None:
    """And its connections."""
    before = len(server.admin.client_list())
    tier = RedisTier(server.url, namespace=namespace)
    Told(tier)
    put(tier, b"key")
    assert background.wait(TIMEOUT)
    gone = weakref.ref(tier)
    del tier
    gc.collect()
    assert gone() is None
    until(lambda: not threads())
    gc.collect()
    until(lambda: len(server.admin.client_list()) <= before)


# fork ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(new_tier: NewTier) -> None:
    """The child hears of what the parent does and the parent of what the child does, over connections of their own."""
    tier, other = new_tier(), new_tier()
    told = Told(tier)
    put(tier, b"key")
    tier._writer._is_asked = True  # nobody writes behind
    tier.write({b"waits": record()}, tier.mark())
    begun, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        faulthandler.dump_traceback_later(TIMEOUT / 2, exit=True)
        try:
            told.changes.clear()
            assert not tier._writer._waiting
            assert values(tier, b"key") == {b"key": b"value"}
            os.write(begun[1], b".")
            os.read(go_on[0], 1)
            told.until(Change(b"by the parent"))
            tier.delete([b"by the child"])
            assert Change(b"by the child") not in told.changes
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.read(begun[0], 1)
    assert values(tier, b"key", b"waits") == {b"key": b"value", b"waits": b"value"}
    tier.delete([b"by the parent"])
    os.write(go_on[1], b".")
    told.until(Change(b"by the child"))
    other.delete([b"by another"])
    told.until(Change(b"by another"))
    _, status = os.waitpid(child, 0)
    for end in (*begun, *go_on):
        os.close(end)
    assert status == 0
    assert told.changes == [Change(b"by the child"), Change(b"by another")]
