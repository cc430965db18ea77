"""What repeats is told a few times in an interval, and then how often it was not told."""

import io
import json
import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from otel_perfopt.telemetry import background
from otel_perfopt.telemetry.structured_logs.handler import LineHandler
from otel_perfopt.telemetry.structured_logs.options import LogOptions
from otel_perfopt.telemetry.structured_logs.record import Service
from otel_perfopt.telemetry.structured_logs.repeats import MAX_KEYS, Repeats
from otel_perfopt.testing import ManualClock

LIMIT, INTERVAL = 2, 10.0


class RepeatsMachine(RuleBasedStateMachine):
    """Nothing is lost: what came has passed, or is told as suppressed; no interval lets more than the limit pass."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = Repeats[str](LIMIT, INTERVAL)
        self.now = 0.0
        self.came: Counter[str] = Counter()
        self.passed: list[tuple[str, float]] = []
        self.told: Counter[str] = Counter()

    @rule(key=st.sampled_from("abc"))
    def come(self, key: str) -> None:
        self.came[key] += 1
        if self.repeats.admits(key, self.now):
            self.passed.append((key, self.now))

    @rule(seconds=st.floats(0, 2 * INTERVAL))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tell(self) -> None:
        self.told.update(dict(self.repeats.suppressed()))

    @rule()
    def end(self) -> None:
        self.repeats.close_all()
        self.tell()
        assert self.told + Counter(key for key, _ in self.passed) == self.came
        self.passed = []
        self.told, self.came = Counter(), Counter()
        assert not self.repeats.is_counting()

    @invariant()
    def few_pass(self) -> None:
        for key, since in self.passed:
            # An interval begins with the first of its key, so two of them may meet in this one.
            assert sum(1 for other, when in self.passed if other == key and since <= when < since + INTERVAL) <= 2 * LIMIT


TestRepeats = RepeatsMachine.TestCase


def test_memory_is_bounded() -> None:
    """Beyond a thousand different texts at a time nothing is remembered, and everything passes."""
    repeats = Repeats[int](1, INTERVAL)
    assert all(repeats.admits(key, 0.0) for key in range(3 * MAX_KEYS))
    assert repeats.admits(3 * MAX_KEYS - 1, 0.0)
    assert not repeats.admits(0, 0.0)
    assert repeats.admits(3 * MAX_KEYS, INTERVAL)
    assert not repeats.admits(3 * MAX_KEYS, INTERVAL)


class Told:
    """A handler with a clock of its own, and what it wrote."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.stream = io.StringIO()
        options = {"repeat_limit": LIMIT, "repeat_interval": INTERVAL, "otlp": False, **options}
        self.handler = LineHandler(LogOptions("json", stream=self.stream, **options), Service(), clock=self.clock)
        self.logger = logging.Logger("shop")  # noqa: LOG001 - nobody else has it
        self.logger.addHandler(self.handler)

    def lines(self) -> list[dict[str, Any]]:
        """What was written since the last time."""
        assert background.wait(5)
        found = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        self.stream.seek(0)
        self.stream.truncate()
        return found

    def bodies(self) -> list[tuple[str, int | None]]:
        """The text of each line, and what it says of suppressed ones."""
        return [(line["body"], line.get("suppressed")) for line in self.lines()]


def test_warnings_of_one_template() -> None:
    """They are the same whatever is put into them; the interval over, one line says how many more there were."""
    told = Told()
    for number in range(7):
        told.logger.warning("attempt %d failed", number)
    assert told.bodies() == [("attempt 0 failed", None), ("attempt 1 failed", None)]
    told.clock.advance(INTERVAL)
    (line,) = told.lines()
    assert (line["body"], line["suppressed"]) == ("attempt %d failed", 5)
    assert (line["otel.scope.name"], line["severity_text"]) == ("shop", "WARNING")
    told.clock.advance(10 * INTERVAL)
    assert told.bodies() == []
    told.logger.warning("attempt %d failed", 8)
    assert told.bodies() == [("attempt 8 failed", None)]


def test_errors_with_different_text() -> None:
    """They stay apart, even if their template is one, or only their exceptions differ."""
    told = Told(repeat_limit=1)
    for name in ("users", "orders", "users"):
        told.logger.error("%s failed", name)
    for error in (ValueError("a"), ValueError("b"), KeyError("a"), ValueError("a")):
        told.logger.error("no answer", exc_info=error)
    assert [body for body, _ in told.bodies()] == ["users failed", "orders failed", "no answer", "no answer", "no answer"]
    told.clock.advance(INTERVAL)
    assert sorted(told.bodies()) == [("no answer ValueError: a", 1), ("users failed", 1)]


def test_what_is_never_limited() -> None:
    """What is no warning; warnings of other loggers and levels; anything without a limit."""
    told = Told()
    other = logging.Logger("other")  # noqa: LOG001 - nobody else has it
    other.addHandler(told.handler)
    for _ in range(2 * LIMIT):
        told.logger.info("started")
    assert len(told.lines()) == 2 * LIMIT
    for log in (told.logger.warning, other.warning, told.logger.error):
        for _ in range(LIMIT):
            log("slow")
    assert len(told.lines()) == 3 * LIMIT
    unlimited = Told(repeat_limit=None)
    for _ in range(100):
        unlimited.logger.warning("slow")
    assert len(unlimited.lines()) == 100


def test_long_texts_that_differ_at_their_end() -> None:
    """They are not the same."""
    told = Told(repeat_limit=1)
    for end in "ab":
        told.logger.warning(5000 * "x" + end)  # noqa: G003 - the template is what differs
    assert len(told.lines()) == 2


def test_what_ends_while_others_are_told() -> None:
    """An interval that is over before the next timer is set has one, too."""
    told = Told(repeat_limit=1)
    for _ in range(2):
        told.logger.warning("first")
    told.clock.advance(INTERVAL / 2)
    for _ in range(2):
        told.logger.warning("second")
    write = told.stream.write

    def write_slowly(text: str) -> int:
        if "suppressed" in text and "first" in text:
            told.clock.advance(INTERVAL / 2)
            told.logger.warning("third")  # ends the interval of the second
        return write(text)

    told.stream.write = write_slowly  # type: ignore[method-assign]
    told.clock.advance(INTERVAL / 2)
    assert told.bodies() == [("first", None), ("second", None), ("third", None), ("first", 1)]
    told.clock.advance(INTERVAL)
    assert told.bodies() == [("second", 1)]


def test_the_rest_is_told_at_the_end() -> None:
    """Also of intervals that run."""
    told = Told(repeat_limit=1)
    for _ in range(4):
        told.logger.warning("slow")
    told.handler.tell_suppressed()
    assert told.bodies() == [("slow", None)]
    told.handler.tell_suppressed(everything=True)
    assert told.bodies() == [("slow", 3)]


def test_a_limit_that_means_nothing() -> None:
    """It is refused with the option."""
    for option, value in (("repeat_limit", 0), ("repeat_limit", True), ("repeat_interval", 0), ("repeat_interval", "soon")):
        with pytest.raises(ValueError, match=option):
            LogOptions(**{option: value})  # type: ignore[arg-type]
