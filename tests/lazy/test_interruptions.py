"""Ctrl-C anywhere: whatever line it interrupts, nobody hangs afterwards."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from otel_perfopt.lazy import LazyLoader, lazy
from tests.cache.support import TIMEOUT, no_collection, spawn
from tests.interruptions import interrupted_at
from tests.lazy.support import in_progress
from tests.sync.test_interruptions import PARTS


class Service:
    """Has a lazy method."""

    @lazy
    def value(self) -> str:
        """Return something."""
        return "value"


def loaded() -> LazyLoader[str]:
    """Return a loader that has its value."""
    loader = LazyLoader(lambda: "value")
    loader.get()
    return loader


def get(loader: LazyLoader[str]) -> None:
    """Load, for the first time or again."""
    loader.reset()
    loader.get()


@pytest.mark.parametrize(
    ("make", "step"),
    [
        (lambda: LazyLoader(lambda: "value"), LazyLoader.get),
        (lambda: LazyLoader(lambda: "value", ttl=5), LazyLoader.get),
        (loaded, LazyLoader.reset),
        (loaded, get),
        (Service, lambda service: service.value()),
    ],
)
def test_a_step_may_be_interrupted_anywhere(make: Callable[[], Any], step: Callable[[Any], Any]) -> None:
    """The load that was interrupted does not stay behind, where everybody would wait for it for ever."""
    line, more = 0, True
    with no_collection():  # or a finalizer of other tests' garbage would be interrupted
        while more:
            line += 1
            made = make()
            more = bool(interrupted_at(line, partial(step, made), PARTS))
            loader = made.value if isinstance(made, Service) else made
            assert spawn(loader.get).result(TIMEOUT) == "value"
            assert in_progress(loader) == 0
    assert line > 3, "nothing was interrupted"
