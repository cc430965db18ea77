"""What the tests of the SQLite tier share."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from otel_perfopt.telemetry import background
from otel_perfopt.testing import ManualClock
from otel_perfopt.tiers.base import Record
from otel_perfopt.tiers.sqlite import SQLiteTier

ROOT = Path(__file__).parents[2]
NOW = 1_000_000.0
TIMEOUT = 20.0


def record(value: bytes = b"value", *tags: str, fresh: float = 60.0, kept: float = 120.0, now: float = NOW) -> Record:
    """A record that is fresh for a minute, and kept for another one."""
    return Record(value, now, now + fresh, now + kept, tags)


def put(tier: SQLiteTier, *keys: bytes, value: bytes = b"value", tags: tuple[str, ...] = (), replaces: bool = False) -> None:
    """Write a value for some keys, and wait until it is in the file."""
    tier.write({key: record(value, *tags) for key in keys}, tier.mark(), replaces=replaces)
    tier.flush()


def values(tier: SQLiteTier, *keys: bytes) -> dict[bytes, bytes]:
    """What a tier has for some keys, asked together; the same must come one by one."""
    together = {key: found.value for key, found in tier.read(keys).records.items()}
    single = {key: found.value for each in keys for key, found in tier.read([each]).records.items()}
    assert single == together
    return together


def let_write(clock: ManualClock, seconds: float = 0.05) -> None:
    """Let time pass, and what is due then be done."""
    clock.advance(seconds)
    assert background.wait(TIMEOUT)


def process(code: str, *arguments: object, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Run code in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), **(env or {})}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finished(child: "subprocess.Popen[str]") -> str:
    """What a process has printed until its good end."""
    out, _ = child.communicate(timeout=40)
    assert child.returncode == 0
    return out
