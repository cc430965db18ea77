"""Python processes of their own, for whatever sets a global provider, forks or ends."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ended:
    """A process that has ended well.

    Attributes:
        out: its standard output.
        errors: its standard error.
        exit_seconds: how long it took to end after its last line of output.
    """

    out: str
    errors: str
    exit_seconds: float

    @property
    def result(self) -> Any:
        """What it printed last, as JSON."""
        return json.loads(self.out.splitlines()[-1])


def environment(backend: Any = None, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a process that finds the package, and a backend."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    if backend is not None:
        env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": backend.protocol}
    return env | dict(variables or {})


def run(
    code: str | Path,
    *arguments: str,
    backend: Any = None,
    timeout: float = 50,
    variables: Mapping[str, str] | None = None,
    **more: str,
) -> Ended:
    """Run code, or a script; it must end well. `more` are variables, too."""
    warnings = "error,ignore::DeprecationWarning" if "fork" in str(code) else "error"  # since 3.12 any fork beside threads warns
    command = [sys.executable, "-u", *(f"-W{warning}" for warning in warnings.split(","))]
    command += [str(code)] if isinstance(code, Path) else ["-c", textwrap.dedent(code)]
    process = subprocess.Popen(
        [*command, *arguments],
        env=environment(backend, {**(variables or {}), **more}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    killer = threading.Timer(timeout, _kill, [process])
    killer.start()
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines, last = [], time.monotonic()
        for line in process.stdout:
            lines.append(line)
            last = time.monotonic()
        errors = process.stderr.read()
        exit_code = process.wait()
    seconds = time.monotonic() - last
    killer.cancel()
    if exit_code != 0:
        pytest.fail(f"exit code {exit_code}\n{''.join(lines)}{errors}", pytrace=False)
    return Ended("".join(lines), errors, seconds)


def _kill(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # its children, too
    except ProcessLookupError:
        pass
