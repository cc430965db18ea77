"""Ctrl-C anywhere in a cache with all options: nobody hangs afterwards, and nothing invalid is served."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.cache.callers import Clock
from tests.cache.support import TIMEOUT, new_cache, no_collection, spawn, until
from tests.interruptions import interrupted_at
from tests.sync.test_interruptions import PARTS

OPTIONS: dict[str, dict[str, Any]] = {
    "errors": {"error_ttl": None, "stale_for": 3600},
    "timeouts": {"hard_timeout": 5, "soft_timeout": 1, "stale_for": 3600},
    "refresh": {"refresh_after": 10, "stale_for": 3600},
}


def fail() -> None:
    """Be a loader that fails."""
    raise ConnectionError


def caught(cache: Any, loader: Callable[[], Any]) -> None:
    """Ask, and let the load fail."""
    try:
        cache.get("key", loader, tags=["tag"])
    except ConnectionError:
        pass


STEPS: dict[str, Callable[[Any], Any]] = {
    "load": lambda cache: cache.get("key", lambda: "loaded", tags=["tag"]),
    "fail": lambda cache: caught(cache, fail),
    "set": lambda cache: cache.set("key", "set", tags=["tag", "more"]),
    "invalidate_tag": lambda cache: cache.invalidate_tag("tag"),
    "expire": lambda cache: cache.expire("key"),
    "clear": lambda cache: cache.clear(),
}


def check(cache: Any, clock: Clock) -> None:
    """The cache works for others, and what is invalidated now is not served any more."""
    until(lambda: cache.stats().loads_in_flight == 0)
    for invalidate in (lambda: cache.invalidate_tag("tag"), cache.clear):
        spawn(invalidate).result(TIMEOUT)
        clock.advance(60)
        spawn(cache.delete, "key").result(TIMEOUT)
        assert spawn(cache.get, "key", lambda: "mine").result(TIMEOUT) == "mine"
    for number in range(3):
        spawn(cache.set, number, number).result(TIMEOUT)
    store = cache._store
    assert len(store.policy) == len(store.entries) == store.weight <= 2
    assert cache.stats().loads_in_flight == 0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_step_may_be_interrupted_anywhere(options: str, step: str) -> None:
    """With an old value that is stale, or due for a refresh, beforehand."""
    line, more = 0, True
    with no_collection():
        while more:
            line += 1
            clock = Clock()
            cache = new_cache(max_size=2, ttl=60, clock=clock, **OPTIONS[options])
            cache.set("key", "old", tags=["tag"])
            clock.advance(30 if options == "refresh" else 61)
            more = bool(interrupted_at(line, partial(STEPS[step], cache), PARTS))
            check(cache, clock)
    assert line > 5, "nothing was interrupted"
