"""Faults: the same ones with the same seed, as many as was asked for, and they say that they are on purpose."""

import asyncio
import functools
import inspect
import threading
from collections import Counter
from typing import Any

import pytest

from otel_perfopt import Cache, cached
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.testing import Fault, Faults, ManualClock
from tests.cache.support import passed, results, run, spawn, spawn_many, until, until_async
from tests.testing.support import exit_code_of_child, forks

NEVER: dict[str, Any] = {"failure_rate": 0.0}
ALWAYS: dict[str, Any] = {"failure_rate": 1.0}


def outcomes(faults: Faults, calls: int) -> list[str]:
    """What became of some calls of a function that answers."""

    @faults.wrap
    def answer() -> str:
        return "answer"

    found = []
    for _ in range(calls):
        try:
            found.append(answer())
        except Exception as error:
            found.append(type(error).__name__)
    return found


# what is decided ---------------------------------------------------------------------------------------


def test_a_seed_decides() -> None:
    """The same faults in every run, and others with another seed."""
    options: dict[str, Any] = {"failure_rate": 0.3, "errors": (OSError, ValueError)}
    assert outcomes(Faults(seed=1, **options), 50) == outcomes(Faults(seed=1, **options), 50)
    assert outcomes(Faults(seed=1, **options), 50) != outcomes(Faults(seed=2, **options), 50)


def test_a_run_can_be_repeated_from_its_repr() -> None:
    """Without a seed there is a new one, and it is told."""
    first, second = Faults(failure_rate=0.5), Faults(failure_rate=0.5)
    assert first.seed != second.seed
    assert f"seed={first.seed} " in repr(first)
    assert outcomes(Faults(seed=first.seed, failure_rate=0.5), 30) == outcomes(first, 30)


def test_faults_come_at_their_rates() -> None:
    """None at 0, all at 1, and about as many as was asked for between."""
    number = 4000
    decided = [Faults(seed=1, failure_rate=0.2, delay=(1, 3), delay_rate=0.5, lie_rate=0.1).decide(n) for n in range(number)]
    counts = Counter(
        {
            "fails": sum(fault.error is not None for fault in decided),
            "waits": sum(fault.delay > 0 for fault in decided),
            "lies": sum(fault.lies for fault in decided),
        }
    )
    assert [round(counts[what] / number, 1) for what in ("fails", "waits", "lies")] == [0.2, 0.5, 0.1]
    delays = [fault.delay for fault in decided if fault.delay]
    assert 1 <= min(delays) < 1.1 < 2.9 < max(delays) <= 3
    assert set(outcomes(Faults(**NEVER), 20)) == {"answer"}
    assert set(outcomes(Faults(**ALWAYS), 20)) == {"OSError"}


def test_one_option_does_not_change_the_faults_of_another() -> None:
    """A test that is made harder keeps the faults that it had."""
    calls = range(1, 200)
    few, many = (
        Faults(seed=3, failure_rate=0.1),
        Faults(seed=3, failure_rate=0.3, delay="1s", errors=(OSError, ValueError, KeyError)),
    )
    assert {n for n in calls if few.decide(n).error} < {n for n in calls if many.decide(n).error}


def test_a_decision_can_be_asked_for_in_advance() -> None:
    """By the number of the call, however often; which does not count as a call."""
    faults = Faults(seed=4, failure_rate=0.4)
    expected = ["OSError" if faults.decide(n).error else "answer" for n in range(1, 31)]
    assert faults.calls == 0
    assert outcomes(faults, 30) == expected
    assert (faults.calls, faults.failures) == (30, expected.count("OSError"))


def test_threads_share_the_numbers() -> None:
    """No number is given twice, and none is lost."""
    faults = Faults(seed=5, failure_rate=0.5)
    found = [result for each in results(spawn_many(8, lambda: outcomes(faults, 100))) for result in each]
    expected = sum(faults.decide(n).error is not None for n in range(1, 801))
    assert (faults.calls, faults.failures, found.count("OSError")) == (800, expected, expected)


# errors ------------------------------------------------------------------------------------------------


def test_an_error_says_that_it_is_on_purpose() -> None:
    """With the call, the function and the seed."""

    def load_user() -> None:
        """Never reached."""

    with pytest.raises(ConnectionError, match=r"^fault in call 1 of .*load_user \(seed=6\)$"):
        Faults(seed=6, **ALWAYS, errors=ConnectionError).wrap(load_user)()


def test_all_errors_come() -> None:
    """Those that cannot be made of a message are made by a function."""

    def undecodable(message: str) -> UnicodeDecodeError:
        return UnicodeDecodeError("utf-8", b"", 0, 1, message)

    faults = Faults(seed=7, **ALWAYS, errors=(OSError, KeyError, undecodable))
    assert Counter(outcomes(faults, 60)).keys() == {"OSError", "KeyError", "UnicodeDecodeError"}


def test_a_failure_does_not_reach_the_function() -> None:
    """What fails here has not happened."""
    happened = []
    faults = Faults(seed=8, failure_rate=0.5)

    @faults.wrap
    def function() -> None:
        happened.append(1)

    for _ in range(40):
        try:
            function()
        except OSError:
            pass
    assert len(happened) == 40 - faults.failures


def test_errors_of_the_function_are_its_own() -> None:
    """They come through, and are no failures of ours."""
    faults = Faults(**NEVER)
    with pytest.raises(ZeroDivisionError):
        faults.wrap(lambda: 1 // 0)()
    assert (faults.calls, faults.failures) == (1, 0)


# outages -----------------------------------------------------------------------------------------------


def test_an_outage_begins_and_ends() -> None:
    """All calls fail in it, at once, with the first of the errors; the rest goes on as it was decided."""
    faults = Faults(seed=9, failure_rate=0.0, errors=(ConnectionError, OSError), delay="1h", clock=ManualClock(), delay_rate=0.0)
    assert outcomes(faults, 2) == ["answer"] * 2
    with faults.outage():
        assert outcomes(faults, 2) == ["ConnectionError"] * 2
        with faults.outage():
            assert outcomes(faults, 1) == ["ConnectionError"]
        assert outcomes(faults, 1) == ["ConnectionError"]
    assert outcomes(faults, 2) == ["answer"] * 2
    assert (faults.calls, faults.failures) == (8, 4)


def test_an_outage_does_not_wait() -> None:
    """Nobody has to advance a clock to be refused."""
    with pytest.raises(OSError, match="fault"), (faults := Faults(**NEVER, delay="1h", clock=ManualClock())).outage():
        faults.strike("anything")


def test_stop_and_start() -> None:
    """What comes meanwhile goes through, and is counted: the next faults are those of their numbers."""
    faults, same = Faults(seed=10, failure_rate=0.5), Faults(seed=10, failure_rate=0.5)
    expected = outcomes(same, 30)
    assert outcomes(faults, 10) == expected[:10]
    faults.stop()
    assert outcomes(faults, 10) == ["answer"] * 10
    faults.start()
    assert outcomes(faults, 10) == expected[20:]


# delays ------------------------------------------------------------------------------------------------


def test_a_delayed_call_waits_for_the_manual_clock() -> None:
    """And goes on when the time has come, not before."""
    clock = ManualClock()
    faults = Faults(**NEVER, delay=5, clock=clock)
    call = spawn(faults.wrap(lambda: clock()))
    until(lambda: faults.delayed == 1)
    clock.advance(4)
    assert not call.done()
    clock.advance(1)
    assert results([call]) == [5.0]
    assert faults.delayed == 0


def test_a_delayed_coroutine_waits_for_the_manual_clock() -> None:
    """Others go on meanwhile."""

    async def main() -> None:
        clock = ManualClock()
        faults = Faults(**NEVER, delay=5, clock=clock)

        @faults.wrap
        async def now() -> float:
            return clock()

        calls = [asyncio.create_task(now()) for _ in range(3)]
        await until_async(lambda: faults.delayed == 3)
        clock.advance(4)
        await asyncio.sleep(0)
        assert not any(call.done() for call in calls)
        clock.advance(1)
        assert await asyncio.gather(*calls) == [5.0] * 3
        assert faults.delayed == 0

    run(main())


def test_a_delayed_coroutine_can_be_cancelled() -> None:
    """It does not wait on, and the clock does not stumble over it."""

    async def main() -> None:
        clock = ManualClock()
        faults = Faults(**NEVER, delay=5, clock=clock)
        call = asyncio.create_task(faults.strike_async("anything"))
        await until_async(lambda: faults.delayed == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert faults.delayed == 0
        clock.advance(10)

    run(main())


@pytest.mark.parametrize("by", ["thread", "loop"])
def test_a_delay_by_the_real_clock_ends(by: str) -> None:
    """In threads and on loops."""
    faults = Faults(**NEVER, delay=0.001)
    if by == "thread":
        faults.strike("anything")
    else:
        run(faults.strike_async("anything"))
    assert (faults.calls, faults.delayed) == (1, 0)


def test_delays_can_be_noted_instead() -> None:
    """By a function that is given the seconds; what it returns is awaited where that can be done."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        slept.append(-seconds)

    Faults(**NEVER, delay="2s", sleep=slept.append).strike("anything")
    run(Faults(**NEVER, delay="3s", sleep=slept.append).strike_async("anything"))
    run(Faults(**NEVER, delay="4s", sleep=sleep).strike_async("anything"))
    assert slept == [2.0, 3.0, -4.0]


def test_a_failure_comes_after_its_delay() -> None:
    """As that of a server that does not answer."""
    slept: list[float] = []
    with pytest.raises(OSError, match="fault"):
        Faults(**ALWAYS, delay=1, sleep=slept.append).strike("anything")
    assert slept == [1.0]


# lies --------------------------------------------------------------------------------------------------


def test_lies() -> None:
    """As often as was decided, and counted."""
    faults = Faults(seed=11, **NEVER, lie=str.upper, lie_rate=0.5)
    expected = ["ANSWER" if faults.decide(n).lies else "answer" for n in range(1, 31)]
    assert outcomes(faults, 30) == expected
    assert faults.lies == expected.count("ANSWER") > 5


# what can be wrapped -----------------------------------------------------------------------------------


def test_a_wrapped_function_looks_like_itself() -> None:
    """Name, docs and parameters; a coroutine function stays one."""
    faults = Faults(**NEVER)

    @faults.wrap
    def add(first: int, *, second: int = 2) -> int:
        """Add."""
        return first + second

    @faults.wrap
    async def wait() -> int:
        return 3

    assert (add.__name__, add.__doc__, list(inspect.signature(add).parameters)) == ("add", "Add.", ["first", "second"])
    assert inspect.iscoroutinefunction(wait)
    assert not inspect.iscoroutinefunction(add)
    assert (add(1), run(wait()), faults.calls) == (3, 3, 2)


class Doubler:
    """Can be called."""

    def __call__(self, number: int) -> int:
        return 2 * number

    async def triple(self, number: int) -> int:
        """A method."""
        return 3 * number


def test_anything_can_be_wrapped() -> None:
    """Methods, partial functions, and objects that can be called."""
    faults = Faults(**NEVER)
    assert faults.wrap(Doubler())(2) == 4
    assert faults.wrap(functools.partial(Doubler(), 3))() == 6
    assert run(faults.wrap(Doubler().triple)(2)) == 6
    assert run(faults.wrap(functools.partial(Doubler().triple, 3))()) == 9
    assert faults.calls == 4


class Bank:
    """Has faults in its methods."""

    faults = Faults(**NEVER)

    @faults.wrap
    def rate(self, currency: str) -> tuple["Bank", str]:
        """A method."""
        return self, currency

    @faults.wrap
    async def rate_async(self, currency: str) -> tuple["Bank", str]:
        """One with await."""
        return self, currency


def test_methods_can_be_wrapped_in_their_class() -> None:
    """They are called with their instance."""
    bank = Bank()
    assert bank.rate("USD") == run(bank.rate_async("USD")) == (bank, "USD")
    assert Bank.faults.calls == 2


def test_a_cached_function_knows_its_parameters() -> None:
    """However it is called, it is one entry."""
    faults = Faults(**NEVER)

    @cached(name="cached and faulty")
    @faults.wrap
    def double(number: int, times: int = 2) -> int:
        return number * times

    assert double(1) == double(number=1) == double(1, 2) == 2
    assert faults.calls == 1


def test_a_cache_survives_its_loader() -> None:
    """The use that they are made for: an outage that a cache hides."""
    clock = ManualClock()
    faults = Faults(seed=12, **NEVER)
    rates: Cache[str, float] = Cache("rates of a faulty bank", ttl="5m", clock=clock)
    load = faults.wrap(lambda: 1.1)
    assert rates.get("USD", load) == 1.1
    with faults.outage():
        assert rates.get("USD", load) == 1.1
        clock.advance("6m")
        with pytest.raises(OSError, match="seed=12"):
            rates.get("USD", load)
    assert rates.get("USD", load) == 1.1
    assert faults.calls == 3


@forks
def test_a_forked_child_goes_on() -> None:
    """With the next number, also if another thread was at it; and nobody waits there."""
    clock = ManualClock()
    faults = Faults(seed=13, failure_rate=0.0, delay=1, clock=clock)
    waiting = spawn(faults.strike, "anything")
    until(lambda: faults.delayed == 1)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with faults._lock:
            held.set()
            passed(let_go)

    def check() -> bool:
        with pytest.raises(OSError, match=r"call 2 .*seed=13"), faults.outage():
            faults.strike("anything")
        return faults.delayed == 0

    holding = spawn(hold)
    passed(held)
    code = exit_code_of_child(check)
    let_go.set()
    clock.advance(1)
    results([holding])
    results([waiting])
    assert code == 0


# options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"failure_rate": 1.5}, "failure_rate=1.5"),
        ({"failure_rate": True}, "failure_rate=True"),
        ({"delay_rate": -0.1}, "delay_rate=-0.1"),
        ({"lie_rate": "often"}, "lie_rate='often'"),
        ({"errors": ()}, "errors=()"),
        ({"errors": (OSError, UnicodeDecodeError)}, "UnicodeDecodeError"),
        ({"errors": (str,)}, "cannot be raised"),
        ({"delay": (2, 1)}, "shortest"),
        ({"delay": (1, 2, 3)}, "shortest"),
        ({"delay": "soon"}, "delay='soon'"),
        ({"delay": (None, 1)}, "delay"),
        ({"lie": str.upper}, "lie_rate"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    """With the option, its value, and what to do."""
    with pytest.raises(ConfigurationError) as caught:
        Faults(**options)
    assert says in str(caught.value)


def test_nobody_has_said_how_to_lie() -> None:
    """A function needs to be told; a tier knows by itself."""
    with pytest.raises(ConfigurationError, match="needs lie="):
        Faults(lie_rate=0.1).wrap(len)


def test_a_fault_of_a_fake_of_ones_own() -> None:
    """It is told what was decided."""
    assert Faults(seed=1, **NEVER, lie_rate=1.0).strike("fake") == Fault(1, lies=True)


def test_interrupted_while_it_waits() -> None:
    """A call that is given up does not count as delayed, and its timer does no harm."""

    class Interrupted(BaseException):
        """Ctrl-C, say."""

    class Clock(ManualClock):
        """Interrupts whoever sets a timer."""

        def after(self, seconds: float, callback: Any) -> None:
            super().after(seconds, callback)
            raise Interrupted

    clock = Clock()
    faults = Faults(**NEVER, delay=1, clock=clock)
    with pytest.raises(Interrupted):
        faults.strike("anything")
    assert faults.delayed == 0
    clock.advance(2)
