"""The handler never raises into who logs, writes whole lines to whatever stream, and holds no lock while it shows values."""

import io
import json
import logging
import os
import sys
import threading
from typing import Any

import pytest

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry.structured_logs.handler import LineHandler
from otel_perfopt.telemetry.structured_logs.options import PRESETS, LogOptions
from otel_perfopt.telemetry.structured_logs.record import Service


def logger(stream: Any, preset: Any = "json", **options: Any) -> logging.Logger:
    """A logger that nobody else has."""
    made = logging.Logger("shop")  # noqa: LOG001 - nobody else has it
    made.addHandler(LineHandler(LogOptions(preset, stream=stream, otlp=False, **options), Service("shop")))
    return made


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Broken(io.StringIO):
    """A stream whose every method raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, _: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "error", [BrokenPipeError(), ValueError("closed"), UnicodeEncodeError("ascii", "ä", 0, 1, "no"), OSError(28, "")]
)
def test_a_broken_stream(preset: str, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is raised, and nothing is said elsewhere."""
    logger(Broken(error), preset).error("hello %s", "there")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_that_nobody_reads() -> None:
    """Also a real one, and a closed file."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = open(writing, "w", encoding="utf-8")  # noqa: SIM115 - closed below, and written to afterwards
    logger(stream).error("hello")
    with pytest.raises(BrokenPipeError):
        stream.close()
    logger(stream).error("hello")


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, as in a windowed program, nothing happens; with a new one, lines go there."""
    log = logger(None)
    monkeypatch.setattr(sys, "stderr", None)
    log.error("nowhere")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.error("here")
    assert [line["body"] for line in written(stream)] == ["here"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
@pytest.mark.parametrize("preset", ["json", "console"])
def test_encodings(encoding: str, preset: str) -> None:
    """What an encoding does not have is escaped."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    logger(stream, preset).error("Ω é \u2028 \ud800", extra={"who": "Ω"})
    text = raw.getvalue().decode(encoding)
    assert text.count("\n") == 1
    if preset == "json":
        assert json.loads(text)["body"] == "Ω é \u2028 \\ud800"


def test_lines_of_threads() -> None:
    """Each is written in one call, so that none is torn."""
    calls: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            calls.append(text)
            return len(text)

    log = logger(Stream())
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for index in range(50):
            log.info("line", extra={"number": number, "index": index, "text": "x" * 5000})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(call) for call in calls]
    assert all(call.endswith("\n") for call in calls)
    assert sorted((line["number"], line["index"]) for line in found) == [(a, b) for a in range(8) for b in range(50)]


class Logs:
    """Its text is only to be had by logging, at worst itself."""

    def __init__(self, log: logging.Logger, *, itself: bool) -> None:
        self._log, self._itself = log, itself

    def __repr__(self) -> str:
        self._log.warning("shown", extra={"again": self} if self._itself else {})
        return "<Logs>"


def test_values_that_log() -> None:
    """What they log is written, too; if they log themselves, it comes to an end."""
    stream = io.StringIO()
    log = logger(stream)
    log.warning("hello", extra={"value": Logs(log, itself=False)})
    assert [line["body"] for line in written(stream)] == ["shown", "hello"]
    log.warning("hello", extra={"value": Logs(log, itself=True)})
    assert written(stream)[-1]["value"] == "<Logs>"


def test_values_are_shown_without_a_lock() -> None:
    """A value that waits for another thread which logs does not wait for ever."""
    stream = io.StringIO()
    log = logger(stream)

    class Waits:
        def __repr__(self) -> str:
            thread = threading.Thread(target=log.warning, args=("from the thread",))
            thread.start()
            thread.join()
            return "<Waits>"

    log.warning("hello", extra={"value": Waits()})
    assert [line["body"] for line in written(stream)] == ["from the thread", "hello"]


def test_a_record_that_cannot_be_written() -> None:
    """It is told that there was one."""
    stream = io.StringIO()
    log = logger(stream)
    log.handlers[0].addFilter(lambda record: 1 / 0)  # type: ignore[arg-type, return-value]
    log.info("hello")
    (line,) = written(stream)
    assert line["body"] == "a record is lost: ZeroDivisionError"


def test_filters() -> None:
    """They keep records away; where a filter may replace a record, the new one is written."""
    stream = io.StringIO()
    log = logger(stream)
    log.handlers[0].addFilter(lambda record: record.getMessage() != "secret")
    log.info("secret")
    log.info("public")
    assert [line["body"] for line in written(stream)] == ["public"]


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for terminals only, and not for people who do not want them."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    on, off, unwanted = Terminal(), io.StringIO(), Terminal()
    logger(on, "console").info("hello")
    logger(off, "console").info("hello")
    monkeypatch.setenv("NO_COLOR", "1")
    logger(unwanted, "console").info("hello")
    assert ["\x1b[" in stream.getvalue() for stream in (on, off, unwanted)] == [True, False, False]


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"preset": "xml"}, "logs='xml'"),
        ({"level": "LOUD"}, "level='LOUD'"),
        ({"level": True}, "level=True"),
        ({"level": None}, "level=None"),
        ({"stream": "stderr"}, "stream='stderr'"),
        ({"secrets": "password"}, "secrets='password'"),
        ({"secrets": [7]}, "secrets="),
        ({"secrets": 7}, "secrets=7"),
        ({"stream": io.BytesIO()}, "stream="),
        ({"stream": sys.__stderr__.buffer}, "stream="),  # type: ignore[union-attr]
        ({"max_length": 3}, "max_length=3"),
    ],
)
def test_wrong_options(options: dict[str, Any], setting: str) -> None:
    """The error names the option and its value."""
    with pytest.raises(ConfigurationError) as caught:
        LogOptions(**options)
    assert setting in str(caught.value)


def test_secrets_of_an_application() -> None:
    """Its own names are masked beside the usual ones; with None nothing is."""
    stream = io.StringIO()
    about = {"user": {"iban": "DE1", "password": "x"}}
    logger(stream, secrets=["IBAN"]).info("a", extra=about)
    logger(stream, secrets=None).info("b", extra=about)
    assert [line["user"] for line in written(stream)] == [{"iban": "***", "password": "***"}, {"iban": "DE1", "password": "x"}]
