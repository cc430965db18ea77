"""What the tests of the demo share."""

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import otel_perfopt

__all__ = ("CACHES", "COMMAND", "PYTHONPATH", "assert_consistent", "everything_in", "run_git", "wait_until")

CACHES = Path(".worktrees/.cache")
PYTHONPATH = str(Path(otel_perfopt.__file__).parents[1])
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the test's own parent ignores
from otel_perfopt.cli import main
sys.exit(main())
"""


def run_git(folder: Path, *arguments: str) -> None:
    """Run git, as somebody."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.invalid")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def everything_in(root: Path) -> dict[str, bytes]:
    """Return all files and folders, with the content of the files."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return when something is so, or the process has ended."""
    while not condition() and process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)


def assert_consistent(here: Path) -> None:
    """Check every file that a demo in this folder has left."""
    for path in here.glob(f"{CACHES}/*.db"):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not list(here.glob(f"{CACHES}/*damaged*"))
