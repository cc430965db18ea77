"""Ctrl-C anywhere: whatever line it interrupts, nobody hangs afterwards and the cache stays in order."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.cache.support import TIMEOUT, new_cache, no_collection, spawn
from tests.interruptions import interrupted_at

PARTS = ("cache/", "lazy/", "single_flight/", "_core/")


def check(cache: Any) -> None:
    """The cache works for others, and its parts agree with each other."""
    assert spawn(cache.get, "key", lambda: "mine").result(TIMEOUT) in ("mine", "loaded", "set")
    for number in range(3):
        spawn(cache.set, number, number).result(TIMEOUT)
    store = cache._store
    assert len(store.entries) <= 2
    assert len(store.policy) == len(store.entries)
    assert store.weight == len(store.entries)
    assert all(entry.queue for entry in store.entries.values())
    assert cache._flights.find("key") is None


def everywhere(prepare: Callable[[Any], None], step: Callable[[Any], Any], policy: str) -> None:
    """Interrupt a step at each of its lines in turn."""
    line, more = 0, True
    with no_collection():  # or a finalizer of other tests' garbage would be interrupted
        while more:
            line += 1
            cache = new_cache(max_size=2, policy=policy)
            prepare(cache)
            more = bool(interrupted_at(line, partial(step, cache), PARTS))
            check(cache)
    assert line > 5, "nothing was interrupted"


def fill(cache: Any) -> None:
    """Put in as much as there is room for."""
    cache.set_many({"old": 1, "older": 2})


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_a_load_may_be_interrupted_anywhere(policy: str) -> None:
    """The flight of an interrupted load does not stay behind, where everybody would wait for it for ever."""
    everywhere(fill, lambda cache: cache.get("key", lambda: "loaded"), policy)


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_a_set_may_be_interrupted_anywhere(policy: str) -> None:
    """An entry is in the store and in its policy, or in neither."""
    everywhere(fill, lambda cache: cache.set("key", "set"), policy)


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_a_delete_may_be_interrupted_anywhere(policy: str) -> None:
    """The same for deletions."""
    everywhere(fill, lambda cache: cache.delete("old"), policy)


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_a_clear_may_be_interrupted_anywhere(policy: str) -> None:
    """The same for clearing."""
    everywhere(fill, lambda cache: cache.clear(), policy)
