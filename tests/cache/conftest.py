"""What the tests of caches share."""

from collections.abc import Iterator

import pytest

from otel_perfopt.cache.guard import Guard
from tests.cache.callers import KINDS, Callers, Clock
from tests.cache.support import LoopThread


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture(scope="module")
def loop_thread() -> Iterator[LoopThread]:
    """A loop that runs in a thread of its own."""
    with LoopThread() as loop:
        yield loop


@pytest.fixture(params=KINDS)
def callers(request: pytest.FixtureRequest, loop_thread: LoopThread) -> Callers:
    """Callers of each kind in turn."""
    return Callers(request.param, loop_thread)


@pytest.fixture(params=KINDS)
def others(request: pytest.FixtureRequest, loop_thread: LoopThread) -> Callers:
    """Other callers, of each kind in turn."""
    return Callers(request.param, loop_thread)


@pytest.fixture(autouse=True)
def recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tries a tier that is away at a moment that no test knows; overridden where that is what is tested."""
    monkeypatch.setattr(Guard, "_arm", lambda _: None)
