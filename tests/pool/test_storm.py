"""Storms over both pools: whatever happens to whom, at the end nothing is lost, and nobody waits for ever.

The dice come from seeds: OTEL_PERFOPT_STORM_SEEDS="5 6 7" throws others. Time is that of a manual clock, but for forks.
"""

import os
import random
from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.dummies import Dummy
from benchmarks.storm import SIZE, Outcome, TaskStorm, ThreadStorm
from benchmarks.storm.ours import Ours, OursAsync
from otel_perfopt.testing import ManualClock

SEEDS = [int(seed) for seed in os.environ.get("OTEL_PERFOPT_STORM_SEEDS", "1 2 3").split()]

pytestmark = pytest.mark.slow
each_seed = pytest.mark.parametrize("seed", SEEDS)
each_kind = pytest.mark.parametrize("hooks", [True, False], ids=["validated and reset", "bare"])


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Resources that are forgotten, and factories that fail, are told in the log; thousands of them here."""
    caplog.set_level("CRITICAL", "otel_perfopt")


def raging(seed: int, rage: Callable[[], Outcome]) -> Outcome:
    """Let a storm rage; the seed decides about the pool's own dice as well."""
    random.seed(seed)
    outcome = rage()
    print(f"seed {seed}: {outcome.operations} operations, {dict(outcome.met)}")
    return outcome


@each_kind
@each_seed
def test_threads(seed: int, hooks: bool) -> None:
    """Threads lease, destroy, forget, resize and drain, and the pool is closed in the middle of it."""
    storm = ThreadStorm(seed, 20_000, clock=ManualClock())
    outcome = raging(seed, lambda: storm.run(partial(Ours, hooks=hooks)))
    assert outcome.losses() == []
    assert outcome.operations >= 20_000
    assert {"lease", "by hand", "destroy", "forget", "PoolTimeout", "PoolClosed", "Trouble"} <= set(outcome.met)


@each_kind
@each_seed
def test_tasks(seed: int, hooks: bool) -> None:
    """Tasks do the same, and are cancelled at any point, once or twice, also on their way out."""
    storm = TaskStorm(seed, 20_000, clock=ManualClock())
    outcome = raging(seed, lambda: storm.run(partial(OursAsync, hooks=hooks)))
    assert outcome.losses() == []
    assert outcome.operations >= 20_000
    assert {"lease", "by hand", "destroy", "forget", "PoolTimeout", "PoolClosed", "cancelled"} <= set(outcome.met)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@each_kind
def test_forks(hooks: bool) -> None:
    """Children that are forked at any moment have an empty pool that works; the parents' pool does not notice."""
    outcome = raging(SEEDS[0], lambda: ThreadStorm(SEEDS[0], 3_000).run(partial(Ours, hooks=hooks)))
    assert outcome.losses() == []
    assert outcome.met["fork"] > 0


# a storm that finds nothing must be able to find something ------------------------------------------


class Forgetful(OursAsync):
    """Now and then forgets to return something, but not the thing itself."""

    def __init__(self, storm: TaskStorm) -> None:
        super().__init__(storm)
        self.dice, self.kept = storm.dice, list[Dummy]()

    async def release(self, held: Dummy) -> None:
        """Return it, mostly."""
        if self.dice.random() < 0.05:
            self.kept.append(held)
        else:
            await super().release(held)


class Generous(OursAsync):
    """Lends its resources twice."""

    last: Dummy | None = None

    async def acquire(self, timeout: float) -> Dummy:
        """Return what the last one has got, while there is one."""
        last, self.last = self.last, None
        if last is None:
            last = self.last = await super().acquire(timeout)
        return last

    async def release(self, held: Dummy) -> None:
        """Return it if nobody has done so yet."""
        if held in {slot.find() for slot in self.pool._core.lent.values()}:
            await super().release(held)

    destroy = release


def test_a_storm_notices_what_is_lost() -> None:
    outcome = TaskStorm(1, 2_000, clock=ManualClock(), patience=1.0).run(Forgetful)
    assert outcome.capacity < SIZE
    assert "close() hangs" in outcome.losses()


def test_a_storm_notices_what_is_lent_twice() -> None:
    outcome = TaskStorm(1, 2_000, clock=ManualClock(), patience=1.0).run(Generous)
    assert outcome.faults["two users"] > 0
