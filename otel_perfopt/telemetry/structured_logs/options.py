"""The options of structured logs."""

import io
import logging
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TextIO

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.telemetry.settings import refuse

__all__ = ("PRESETS", "LogOptions", "PresetName")

PresetName = Literal["json", "ecs", "datadog", "gcp", "console"]
PRESETS: tuple[PresetName, ...] = ("json", "ecs", "datadog", "gcp", "console")
SHORTEST = 64
_BINARY = (io.RawIOBase, io.BufferedIOBase)  # each line would fail there, and be lost without a word


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How records are written; for ``configure(logs=...)``, where the name of a preset alone stands for the other defaults.

    Args:
        preset: ``"json"`` (the names of OpenTelemetry), ``"ecs"`` (Elastic), ``"datadog"``, ``"gcp"`` (Google Cloud), or
            ``"console"`` for people.
        level: the level of the root logger, as a name or a number.
        stream: where lines go; None for whatever ``sys.stderr`` is at the time.
        secrets: further names of keys whose values are masked; None masks nothing.
        max_length: the most characters of one value; what is longer loses its middle, and says how long it was.
        repeat_limit: how often the same warning or error is written in an interval; None for no limit.
        repeat_interval: seconds of that interval.
        otlp: whether records also go to OpenTelemetry's logger provider, where there is one.

    Raises:
        ConfigurationError: an option has a value that cannot work.

    >>> LogOptions("ecs", level="DEBUG", secrets=["iban"], repeat_interval="5m").repeat_interval
    300.0
    """

    preset: PresetName = "json"
    _: KW_ONLY
    level: int | str = "INFO"
    stream: TextIO | None = None
    secrets: Iterable[str] | None = ()
    max_length: int = 8192
    repeat_limit: int | None = 5
    repeat_interval: Duration = 60.0
    otlp: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise refuse("logs", self.preset, f"use {', '.join(PRESETS)}, or None")
        if not _is_level(self.level):
            raise refuse("level", self.level, 'use a level of logging, such as "INFO" or 20')
        if self.stream is not None and (not callable(getattr(self.stream, "write", None)) or isinstance(self.stream, _BINARY)):
            raise refuse("stream", self.stream, "use an open text file, or None for sys.stderr")
        if self.secrets is not None:
            is_list = isinstance(self.secrets, Iterable) and not isinstance(self.secrets, str)
            names = tuple(self.secrets) if is_list else ()
            if not is_list or not all(isinstance(name, str) and name.strip() for name in names):
                raise refuse("secrets", self.secrets, "use a list of names of keys, or None to mask nothing")
            object.__setattr__(self, "secrets", names)
        if not _is_whole(self.max_length) or self.max_length < SHORTEST:
            raise refuse("max_length", self.max_length, f"use a number of characters from {SHORTEST}")
        if self.repeat_limit is not None and (not _is_whole(self.repeat_limit) or self.repeat_limit < 1):
            raise refuse("repeat_limit", self.repeat_limit, "use a number from 1, or None for no limit")
        object.__setattr__(self, "repeat_interval", to_seconds(self.repeat_interval, option="repeat_interval"))

    @property
    def seconds(self) -> float:
        """The interval of repetitions in seconds."""
        return to_seconds(self.repeat_interval)

    @classmethod
    def of(cls, logs: "PresetName | LogOptions") -> "LogOptions":
        """Return the options that `configure` was given.

        Raises:
            ConfigurationError: that is neither a preset nor options.
        """
        if isinstance(logs, LogOptions):
            return logs
        if not isinstance(logs, str):
            raise refuse("logs", logs, f"use {', '.join(PRESETS)}, a LogOptions, or None")
        return cls(logs)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_level(level: object) -> bool:
    try:
        logging.Handler().setLevel(level)  # type: ignore[arg-type]  # knows the names that were added, too
    except (TypeError, ValueError):
        return False
    return not isinstance(level, bool)
