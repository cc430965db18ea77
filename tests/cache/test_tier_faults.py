"""Tiers that fail: the cache goes on with its memory and its loaders, and makes up for what it could not do."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from otel_perfopt.errors import TierError
from otel_perfopt.telemetry import background
from otel_perfopt.testing import DictTier, Faults, FaultyTier, capture
from otel_perfopt.tiers import Codec, Record, encode_key
from tests.cache.callers import Callers, Source
from tests.cache.support import TIMEOUT, Gate, passed, run, spawn
from tests.cache.tier_support import Site, Stops

KEY = encode_key("key")


@pytest.fixture
def site() -> Site:
    """Where caches share a tier."""
    return Site(ttl=None)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of, without its details."""
    return [record.message.split("'")[1] for record in caplog.records if record.levelno >= logging.WARNING]


def until_back(site: Site, *caches: Any) -> None:
    """Let time pass until the tiers are tried again, and let somebody try."""
    site.advance(60)
    for cache in caches:
        cache.get("nothing")
    site.settle()


# the cache goes on ------------------------------------------------------------------------------------------


def test_with_its_tier_away_a_cache_does_all_that_a_cache_does(site: Site, callers: Callers) -> None:
    """From memory and loaders; nothing raises."""
    cache, tier = site.cache()
    tier.is_away = True
    for _ in range(2):
        assert callers.get(cache, Source("loaded")) == "loaded"
    cache.set("set", 1, tags=["tag"])
    assert cache.get("set") == 1
    assert cache.get_many([1, 2], lambda keys: dict.fromkeys(keys, 0)) == {1: 0, 2: 0}
    assert (cache.expire("set"), cache.delete("key"), cache.delete("key")) == (True, True, False)
    cache.invalidate_tag("tag")
    cache.clear()
    assert len(cache) == 0
    run(cache.set_async("key", 1))
    assert run(cache.delete_async("key")) is True
    cache.flush()
    assert cache.stats().lifetime == {}
    cache.close()


@pytest.mark.parametrize("error", [TierError("away"), OSError("disk"), ValueError("whatever"), ZeroDivisionError()])
def test_any_error_of_a_tier_is_forgiven(site: Site, callers: Callers, error: Exception) -> None:
    """It is the tier's, whatever it is."""
    cache, tier = site.cache()
    tier.is_away, tier.error = True, error
    assert callers.get(cache, Source("loaded")) == "loaded"


def test_an_interruption_is_not(site: Site) -> None:
    """Ctrl-C during a call of the tier reaches the caller, and nothing is left in the air."""
    cache, tier = site.cache()
    cache.get("other")
    tier.before["read"] = gate = Gate(KeyboardInterrupt())
    gate.opened.set()
    with pytest.raises(KeyboardInterrupt):
        cache.get("key", Source())
    assert spawn(cache.get, "key", Source("loaded")).result(TIMEOUT) == "loaded"


def test_each_failure_counts_and_one_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """With the tier and the type of the error; also when it works again, once."""
    cache, tier = site.cache(name="troubled")
    caplog.set_level(logging.INFO)
    with capture() as captured:
        tier.is_away = True
        for number in range(5):
            cache.get(number, Source())
        assert captured.metric("perfopt.cache.breaker.open", name="troubled", tier="dict") == 1
        tier.is_away = False
        until_back(site, cache)
        assert captured.metric("perfopt.cache.breaker.open", name="troubled", tier="dict") == 0
        cache.get("one more")
    # Watching fails, and then twice more; from then on the tier is left alone.
    assert captured.metric("perfopt.cache.tier.errors", name="troubled", tier="dict", type="otel_perfopt.errors.TierError") == 3
    assert [record.message.split("'")[1] for record in caplog.records] == [
        "a tier of a cache fails; the cache goes on without it",
        "a tier of a cache works again",
    ]


def test_an_open_breaker_leaves_the_tier_alone(site: Site) -> None:
    """After three failures nothing is asked for a second, at most; then one call tries."""
    cache, tier = site.cache()
    cache.get("first")
    tier.is_away = True
    for number in range(20):
        cache.get(number, Source())
    assert tier.calls["read"] == 1 + 3
    site.advance(1)
    for number in range(20, 40):
        cache.get(number, Source())
    assert tier.calls["read"] == 1 + 4


def test_a_log_that_fails_is_nobodys_trouble(site: Site) -> None:
    """Nor is an error that cannot even be shown."""

    class Unspeakable(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    cache, tier = site.cache()
    tier.is_away, tier.error = True, Unspeakable()
    assert cache.get("key", Source("loaded")) == "loaded"


def test_bug_a_write_that_fails_is_not_logged_under_the_lock(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A log handler may use the cache, from another thread, too, and may wait for that."""
    cache, tier = site.cache()
    cache.get("other")
    seen: list[Any] = []

    class Curious(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(spawn(cache.delete, "another").result(TIMEOUT))

    tier.broken.add("write")
    handler = Curious()
    logging.getLogger("otel_perfopt").addHandler(handler)
    try:
        cache.set("key", "value")
        assert background.wait(TIMEOUT)
    finally:
        logging.getLogger("otel_perfopt").removeHandler(handler)
    assert seen == [False]
    assert cache.get("key") == "value"


def test_one_tier_away_the_other_one_works(site: Site) -> None:
    """Each has its own breaker."""
    near, far = Stops(DictTier(clock=site.wall)), Stops(site.shared.peer())
    cache, _ = site.cache(tiers=[near, far], max_size=0)
    near.is_away = True
    cache.set("key", "value")
    assert [cache.get("key") for _ in range(5)] == ["value"] * 5
    near.is_away = False
    until_back(site, cache)
    assert cache.get("key") == "value"
    assert near.tier.read([KEY]).records.keys() == {KEY}


# what is owed ------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete("key"),
    "expire": lambda cache: cache.expire("key"),
    "set": lambda cache: cache.set("key", "set"),
    "tag": lambda cache: cache.invalidate_tag("tag"),
    "clear": lambda cache: cache.clear(),
    "set what has no bytes": lambda cache: cache.set("key", object()),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("is_open", [False, True])
def test_after_an_outage_nothing_older_is_served(site: Site, name: str, is_open: bool) -> None:
    """What was invalidated meanwhile is invalidated in the tier before anything is read from it, and peers are told."""
    (ours, tier), (theirs, _) = site.cache(unencodable="memory"), site.cache()
    ours.set("key", "old", tags=["tag"])
    assert theirs.get("key") == "old"
    tier.is_away = True
    for number in range(5 if is_open else 0):
        ours.get(number)
    CHANGES[name](ours)
    assert ours.get("key") != "old"
    tier.is_away = False
    until_back(site, ours)
    assert ours.get("key") != "old"
    assert theirs.get("key") != "old"
    assert site.cache()[0].get("key") != "old"


@pytest.mark.parametrize("name", list(CHANGES)[:5])
def test_a_load_that_began_before_an_outage_does_not_bring_back_what_was_invalidated_in_it(site: Site, name: str) -> None:
    """Its mark is older than what is owed."""
    ours, tier = site.cache()
    gate = Gate("old")
    load = spawn(lambda: ours.get("key", gate, tags=["tag"]))
    passed(gate.entered)
    if name == "expire":
        ours.set("key", "old")
    tier.is_away = True
    CHANGES[name](ours)
    tier.is_away = False
    gate.opened.set()
    assert load.result(TIMEOUT) == "old"
    until_back(site, ours)
    assert ours.get("key") in (None, "set")
    assert site.cache()[0].get("key") is None


def test_bug_a_set_whose_write_fails_takes_the_older_value_away(site: Site) -> None:
    """The tier was there a moment before, and kept what it had; a restart brought that back."""
    ours, tier = site.cache()
    ours.set("key", "old")
    tier.broken.add("write")
    ours.set("key", "new")
    assert ours.get("key") == "new"
    tier.broken.clear()
    ours.get("nothing")
    assert site.cache()[0].get("key") is None


def test_a_load_whose_write_fails_is_in_memory_only(site: Site) -> None:
    """Nothing is owed for it."""
    ours, tier = site.cache()
    tier.broken.add("write")
    assert ours.get("key", Source("loaded")) == "loaded"
    tier.broken.clear()
    assert (ours.get("key"), ours.get("nothing"), tier.calls["delete"]) == ("loaded", None, 0)


def test_bug_each_owed_tag_is_invalidated(site: Site) -> None:
    """Of several, one could be ticked off in the place of another."""
    ours, tier = site.cache()
    tags = [f"tag {number}" for number in range(50)]
    for tag in tags:
        ours.set(tag, "old", tags=[tag])
    tier.is_away = True
    for tag in tags[:40]:
        ours.invalidate_tag(tag)
    tier.is_away = False
    tier.broken.add("invalidate_tag")
    until_back(site, ours)
    for tag in tags[40:]:
        ours.invalidate_tag(tag)
    tier.broken.clear()
    for _ in range(3):
        until_back(site, ours)
    peer = site.cache()[0]
    assert [peer.get(tag) for tag in tags] == [None] * 50


def test_paying_that_fails_in_the_middle_goes_on_later(site: Site) -> None:
    """What is done is done; the rest is still owed, and nothing is read before."""
    ours, tier = site.cache(max_size=0)
    ours.set_many({"key": "old", "tagged": "old"}, tags=["tag"])
    tier.is_away = True
    ours.invalidate_tag("tag")
    ours.delete("key")
    tier.is_away = False
    tier.broken.add("delete")
    for _ in range(6):
        assert (ours.get("key"), ours.get("tagged")) == (None, None)
        site.advance(60)
    tier.broken.clear()
    until_back(site, ours)
    assert (ours.get("key"), site.records()) == (None, {})


def test_too_much_that_is_owed_becomes_everything(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory for it is limited."""
    monkeypatch.setattr("otel_perfopt.cache.guard.MAX_OWED", 10)
    ours, tier = site.cache()
    ours.set_many(dict.fromkeys(range(30), "old"))
    tier.is_away = True
    for number in range(11):
        ours.delete(number)
    tier.is_away = False
    until_back(site, ours)
    assert (site.records(), tier.calls["clear"]) == ({}, 1)


def test_nobody_reads_while_it_is_made_up_for(site: Site) -> None:
    """Another thread that wants something waits."""
    ours, tier = site.cache(max_size=0)
    ours.set("key", "old")
    tier.is_away = True
    ours.delete("key")
    tier.is_away = False
    tier.before["delete"] = gate = Gate()
    first = spawn(ours.get, "nothing")
    passed(gate.entered)
    second = spawn(ours.get, "key")
    assert not second.done()
    gate.opened.set()
    assert (first.result(TIMEOUT), second.result(TIMEOUT)) == (None, None)


def test_bug_closing_makes_a_last_attempt_and_closes_what_is_away(site: Site) -> None:
    """Whether it was away was not tried again: files stayed open, and a restart found what was invalidated."""
    ours, tier = site.cache()
    ours.set("key", "old")
    tier.is_away = True
    for _ in range(5):
        ours.delete("key")
    tier.is_away = False
    ours.close()
    assert (tier.calls["close"], site.records()) == (1, {})
    tier.is_away = True
    ours.close()
    assert tier.calls["close"] == 2


# watching ------------------------------------------------------------------------------------------------------


def test_bug_a_tier_that_is_away_at_first_is_watched_later(site: Site) -> None:
    """And what peers have invalidated before is taken into account, as nobody can tell what that was."""
    (ours, tier), (theirs, _) = site.cache(), site.cache()
    tier.is_away = True
    ours.get("key", Source("old"))
    theirs.set("key", "new")
    assert ours.get("key") == "old"  # nobody could tell us
    tier.is_away = False
    until_back(site, ours)
    assert ours.get("key") == "new"
    theirs.delete("key")
    site.settle()
    assert ours.get("key") is None


def test_a_tier_is_watched_once_however_many_begin_together(site: Site) -> None:
    """Threads that come first, all at once."""
    cache, tier = site.cache()
    barrier = threading.Barrier(8)

    def begin() -> None:
        barrier.wait(TIMEOUT)
        cache.get("key", Source())

    for future in [spawn(begin) for _ in range(8)]:
        future.result(TIMEOUT)
    assert tier.calls["watch"] == 1


# what comes back wrong ---------------------------------------------------------------------------------------


def spoil(site: Site, value: bytes) -> None:
    """Put something else into the record of the key."""
    tier = site.shared.peer()
    tier.write({KEY: Record(value, 0.0, 4e9, 4e9)}, tier.mark(), replaces=True)
    site.settle()


@pytest.mark.parametrize(
    ("value", "is_told"),
    [
        (b"", True),
        (b"garbage", True),
        (Codec().encode("ours")[:-1] + b"?", True),
        (Codec(pickle_key=b"k" * 16).encode("ours"), True),
        (Codec(version=2).encode("ours"), False),
        (Codec(int).encode(7), False),
    ],
    ids=["empty", "garbage", "damaged", "signed", "other version", "other type"],
)
def test_records_that_cannot_be_used_are_misses(
    site: Site, callers: Callers, caplog: pytest.LogCaptureFixture, value: bytes, is_told: bool
) -> None:
    """Replaced by the load; one warning, unless it is just another version."""
    cache, _ = site.cache()
    for _ in range(2):
        spoil(site, value)
        assert callers.get(cache, Source("loaded")) == "loaded"
    assert len(warnings(caplog)) == is_told
    assert site.cache()[0].get("key") == "loaded"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(b"k" * 16, b"x" * 16), (b"k" * 16, None)],
    ids=["another key", "no key"],
)
def test_a_wrong_signature_is_a_miss_and_a_warning(
    site: Site, callers: Callers, caplog: pytest.LogCaptureFixture, ours: bytes, theirs: bytes | None
) -> None:
    """Never a value."""
    site.cache(codec=Codec(pickle_key=theirs))[0].set("key", "theirs")
    cache, _ = site.cache(codec=Codec(pickle_key=ours))
    assert callers.get(cache, Source("loaded")) == "loaded"
    assert warnings(caplog) == ["records of a tier cannot be used (signature), and count as missing"]


def test_a_far_tier_answers_for_a_near_one_that_has_rubbish(site: Site) -> None:
    """What cannot be used counts as missing, in each tier."""
    near = DictTier(clock=site.wall)
    near.write({KEY: Record(b"rubbish", 0.0, 4e9, 4e9)}, near.mark())
    site.cache()[0].set("key", "value")
    assert site.cache(tiers=[near, site.shared.peer()])[0].get("key") == "value"
    assert Codec().decode(near.read([KEY]).records[KEY].value) == "value"


@pytest.mark.parametrize("seed", range(10))
def test_faults_at_random(seed: int) -> None:
    """A third of all calls fail: loads answer, and what was invalidated is gone when all is quiet."""
    site = Site(ttl=None)
    faulty = [FaultyTier(site.shared.peer(), Faults(seed=seed * 2 + each, failure_rate=0.3, errors=TierError)) for each in (0, 1)]
    caches = [site.cache(tiers=[tier])[0] for tier in faulty]
    truth = dict.fromkeys(range(5), 0)
    for step in range(300):
        cache, key = caches[step % 2], (step * 7 + seed) % 5
        if step % 3 == 0:
            truth[key] = step
            ways: list[Callable[[], Any]] = [
                partial(cache.delete, key),
                partial(cache.expire, key),
                partial(cache.set, key, step),
                cache.clear,
            ]
            ways[step // 3 % 4]()
            site.settle()
        cache.get(key, lambda key=key: truth[key])
        site.advance(0.1)
    for tier in faulty:
        tier.faults.stop()
    for _ in range(3):
        until_back(site, *caches)
    for cache in caches:
        assert [cache.get(key, lambda key=key: truth[key]) for key in truth] == list(truth.values()), f"seed={seed}"
