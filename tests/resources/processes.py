"""Witnesses of processes: what tells for certain that somebody has begun, and that everybody is gone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Witness:
    """A named pipe that processes hold open for writing; the end of file comes when the last of them is gone.

    Attributes:
        path: its name; a command takes part with ``exec 9>PATH; echo started >&9``.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._pipe, True)

    def shell(self, rest: str) -> list[str]:
        """A command that takes part, says so, and goes on."""
        return ["sh", "-c", f"exec 9>'{self.path}'; echo started >&9; {rest}"]

    def wait_for_start(self) -> None:
        """Wait until somebody has said so."""
        with open(self.path, "rb", buffering=0) as pipe:
            assert pipe.read(8) == b"started\n"

    def wait_for_end(self) -> None:
        """Wait until all who took part are gone; hangs if they stay."""
        while os.read(self._pipe, 4096):
            pass

    def close(self) -> None:
        """Give it up."""
        os.close(self._pipe)


def python(code: str, *arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
    """Start Python code in a process of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def run_python(code: str, *arguments: object) -> bytes:
    """Run Python code in a process of its own, that must succeed and complain about nothing, and return what it printed."""
    process = python(code, *arguments)
    printed, complaints = process.communicate(timeout=50)
    assert (process.returncode, complaints) == (0, b""), complaints.decode()
    return printed
