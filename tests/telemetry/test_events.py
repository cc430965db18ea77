"""Events: who hears what, and that nothing of it reaches whoever emitted."""

import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord

from otel_perfopt import ConfigurationError, Event, EventBus, Subscription, emit, subscribe
from otel_perfopt.telemetry import events, instruments, names


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """Everything under ``test.`` that is emitted while the test runs."""
    collected: list[Event] = []
    with subscribe("test.*", collected.append):
        yield collected


def counted(name: str) -> dict[str, float]:
    """Return what was counted for the events of one name."""
    rows = {"emitted": names.EVENTS_EMITTED, "delivered": names.EVENTS_DELIVERED, "failed": names.EVENTS_FAILED}
    return {
        what: reading.value
        for what, row in rows.items()
        for reading in instruments.observe(row)
        if reading.attributes[names.EVENT_NAME] == name
    }


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [("a.b", {"a.b"}), ("a.*", {"a.b", "a.c"}), ("*", {"a.b", "a.c", "ab.c"}), ("a*", {"a.b", "a.c", "ab.c"}), ("x", set())],
)
def test_a_pattern_is_a_name_a_beginning_or_everything(pattern: str, matching: set[str]) -> None:
    """Only a star at the end is a wildcard."""
    seen: list[str] = []
    with subscribe(f"pattern.{pattern}", lambda event: seen.append(event.name)):
        for name in ("a.b", "a.c", "ab.c"):
            emit(f"pattern.{name}")
    assert {name.removeprefix("pattern.") for name in seen} == matching


@pytest.mark.parametrize("pattern", ["", "a.*.b", "*a"])
def test_a_pattern_that_cannot_match_is_refused(pattern: str) -> None:
    """The message has the pattern."""
    with pytest.raises(ConfigurationError, match="pattern="):
        subscribe(pattern, print)


def test_an_event_has_its_attributes_and_a_timestamp(heard: list[Event]) -> None:
    """The attributes are a copy: changing the emitter's dict later changes no event."""
    attributes = {"amount": 3}
    emit("test.paid", attributes)
    attributes["amount"] = 4
    assert heard[0].attributes == {"amount": 3}
    assert heard[0].timestamp > 0


def test_a_raising_subscriber_stops_nobody(heard: list[Event], caplog: pytest.LogCaptureFixture) -> None:
    """The emitter does not notice, the others hear, it is logged once and counted each time."""

    def fail(_: Event) -> None:
        raise ValueError("no")

    with subscribe("test.failing", fail):
        emit("test.failing")
        emit("test.failing")
    assert len(heard) == 2
    assert counted("test.failing") == {"emitted": 2, "delivered": 2, "failed": 2}
    assert sum("a subscriber raised" in record.getMessage() for record in caplog.records) == 1


def test_a_subscriber_may_emit_to_a_depth_of_eight() -> None:
    """Deeper events are counted as failed instead of recursing for ever."""
    depths: list[int] = []

    def again(event: Event) -> None:
        depths.append(event.attributes["depth"])
        emit("deep.event", {"depth": event.attributes["depth"] + 1})

    with subscribe("deep.event", again):
        emit("deep.event", {"depth": 1})
    assert depths == [1, 2, 3, 4, 5, 6, 7, 8]
    assert counted("deep.event")["failed"] == 1


def test_a_subscriber_may_cancel_itself_and_others() -> None:
    """A cancelled subscription hears nothing more, not even the event that is being delivered."""
    seen: list[str] = []
    second: list[Subscription] = []

    def first(_: Event) -> None:
        seen.append("first")
        subscription.cancel()
        second[0].cancel()

    subscription = subscribe("test.cancel", first)
    second.append(subscribe("test.cancel", lambda _: seen.append("second")))
    emit("test.cancel")
    emit("test.cancel")
    assert seen == ["first"]
    subscription.cancel()  # a second time does nothing


def test_a_subscriber_may_subscribe() -> None:
    """The new subscription holds from the next event on."""
    seen: list[Event] = []
    added: list[Subscription] = []

    def add(_: Event) -> None:
        if not added:
            added.append(subscribe("test.add", seen.append))

    with subscribe("test.add", add):
        emit("test.add")
        assert seen == []
        emit("test.add")
    assert len(seen) == 1
    added[0].cancel()


def test_an_interrupt_goes_through() -> None:
    """Ctrl-C during a callback is not a subscriber's failure."""

    def interrupt(_: Event) -> None:
        raise KeyboardInterrupt

    with subscribe("test.interrupt", interrupt), pytest.raises(KeyboardInterrupt):
        emit("test.interrupt")


def test_events_from_eight_threads_are_counted_exactly(heard: list[Event]) -> None:
    """Nothing is lost and nothing arrives twice."""
    before = counted("test.threads").get("emitted", 0)

    def work() -> None:
        for _ in range(500):
            emit("test.threads")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 4000
    assert counted("test.threads")["emitted"] - before == 4000


class Failing(LogRecordProcessor):
    """A processor that raises."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        raise RuntimeError("no")

    def shutdown(self) -> None:
        """Nothing to do."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def test_a_raising_processor_does_not_reach_the_emitter(heard: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK lets processors raise through emit(); the library does not."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(Failing())
    monkeypatch.setattr(events, "_logger", provider.get_logger(names.SCOPE))
    emit("test.processor")
    assert len(heard) == 1
    assert counted("test.processor")["failed"] == 1


def test_the_bus_delivers_other_libraries_events_and_nothing_twice(heard: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own events come directly; log records that are no events are passed over."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(EventBus())
    monkeypatch.setattr(events, "_logger", provider.get_logger(names.SCOPE))
    emit("test.own")
    other = provider.get_logger("other")
    other.emit(event_name="test.other", attributes={"n": 1}, timestamp=5)
    other.emit(body="a plain line")
    assert [(event.name, event.scope) for event in heard] == [("test.own", names.SCOPE), ("test.other", "other")]
    assert (heard[1].attributes, heard[1].timestamp) == ({"n": 1}, 5)


def test_the_bus_says_which_events_are_wanted(heard: list[Event]) -> None:
    """Other libraries can skip the work for events that nobody hears."""
    bus = EventBus()
    assert bus.enabled(event_name="test.anything")
    assert not bus.enabled(event_name="unheard.of")
    assert not bus.enabled()


def test_names_beyond_the_limit_count_as_other(heard: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of too many names are still delivered."""
    monkeypatch.setattr(events, "MAX_TOPICS", 0)
    emit("test.beyond")
    assert [event.name for event in heard] == ["test.beyond"]
