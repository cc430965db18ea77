"""Which git repository the demo works on: the one given, the one around the working directory, or one made for it.

Nothing here writes into a repository of the user, runs a program that its configuration names, or reaches the network.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple, Protocol
from uuid import uuid4

from otel_perfopt.errors import ConfigurationError

__all__ = (
    "Output",
    "Repository",
    "choose_repository",
    "find_repository",
    "first_line",
    "git",
    "git_command",
    "git_environment",
    "standard_library",
    "temporary_folder",
)

_SETTINGS = ("core.fsmonitor=false", "log.showSignature=false", "log.follow=false")
_KEPT = ("GIT_CONFIG", "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES")
# An empty list of protocols also keeps a partial clone from fetching what it lacks.
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
_NO_CONFIG = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_NEUTRAL = (
    "user.name=otel-perfopt",
    "user.email=demo@otel-perfopt.invalid",
    "commit.gpgSign=false",
    "core.autocrlf=false",
    f"core.attributesFile={os.devnull}",
    "gc.auto=0",
    "maintenance.auto=false",
)
# The same sources give the same commit whenever they are committed, and so the same keys of caches.
_DATE = "2000-01-01T00:00:00Z"
_DATES = {"GIT_AUTHOR_DATE": _DATE, "GIT_COMMITTER_DATE": _DATE}
_REGULAR = (b"100644", b"100755")
_NOT_COPIED = {"__pycache__", "dist-packages", "site-packages", "test", "tests"}


class Output(Protocol):
    """What a command has printed, and its exit code; read only."""

    @property
    def returncode(self) -> int: ...  # noqa: D102
    @property
    def stdout(self) -> bytes: ...  # noqa: D102
    @property
    def stderr(self) -> bytes: ...  # noqa: D102


class Repository(NamedTuple):
    """A working tree to analyse.

    Attributes:
        root: its folder.
        files: the Python files that git tracks, relative to `root`, sorted.
        note: why it is not the one around the working directory; empty when it is, or when it was asked for.
    """

    root: str
    files: tuple[str, ...]
    note: str = ""


def git_command(root: str, *arguments: str, config: Sequence[str] = ()) -> list[str]:
    """Return the command that runs git in `root`, with settings of the form ``"user.name=me"``."""
    settings = [part for setting in (*_SETTINGS, *config) for part in ("-c", setting)]
    return ["git", "--no-optional-locks", "--no-pager", *settings, "-C", root, *arguments]


def git_environment() -> dict[str, str]:
    """Return the environment that git needs, whatever repository that of this process points to."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(_KEPT)}
    return outer | _QUIET


def git(root: str, *arguments: str, config: Sequence[str] = (), **environment: str) -> CompletedProcess[bytes]:
    """Run git in `root`, and return what it printed.

    Args:
        root: the folder to run in.
        *arguments: the command and its arguments.
        config: settings for this run only, such as ``"user.name=me"``.
        **environment: variables for this run only.

    Raises:
        ConfigurationError: git is not installed.
    """
    try:
        return subprocess.run(
            git_command(root, *arguments, config=config),
            env=git_environment() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise ConfigurationError("git was not found on PATH: install git, the demo asks it about every file") from None


def first_line(result: "Output") -> str:
    """Return the first line of what git complained about."""
    lines = os.fsdecode(result.stderr).strip().splitlines()
    return lines[0] if lines else f"git ended with status {result.returncode}"


@contextmanager
def choose_repository(path: str | None) -> Iterator[Repository]:
    """Open the repository to work on, and remove it afterwards if it was made here.

    Args:
        path: a folder in a repository; None for the working directory, or the standard library where that has none.

    Raises:
        ConfigurationError: git is missing, or `path` is nothing to work on; the message says why.
    """
    try:
        repository, reason = find_repository("." if path is None else path), ""
    except _UnusableError as error:
        repository, reason = None, str(error)
    if repository is not None:
        yield repository
    elif path is not None:
        advice = "give the path of a git repository that tracks Python files, or leave the option out"
        raise ConfigurationError(f"--repo {path!r} {reason}: {advice}")
    else:
        with temporary_folder() as folder:
            yield standard_library(folder)._replace(note=f"the working directory {reason}")


class _UnusableError(Exception):
    """There is nothing to work on; the text continues a sentence that begins with the folder."""


def find_repository(path: str) -> Repository:
    """Return the repository around the folder `path`."""
    if not os.path.isdir(path):
        raise _UnusableError("is not a folder")
    found = git(path, "rev-parse", "--is-bare-repository", "--show-toplevel")
    bare, _, root = os.fsdecode(found.stdout).removesuffix("\n").partition("\n")
    if bare == "true":
        raise _UnusableError("is a bare repository, without files to read")
    if b"not a git repository" in found.stderr:
        raise _UnusableError("is not in a git repository")
    if found.returncode:
        raise _UnusableError(f"cannot be read: git says {first_line(found)!r}")
    files = _python_files(root)
    if not files:
        raise _UnusableError("is in a git repository that tracks no Python files")
    return Repository(root, files)


def _python_files(root: str) -> tuple[str, ...]:
    # Without symbolic links, which may lead out of the repository. A conflict lists its file up to three times.
    listed = git(root, "ls-files", "--stage", "-z", "--", "*.py")
    if listed.returncode:
        raise _UnusableError(f"cannot be read: git says {first_line(listed)!r}")
    entries = (entry.partition(b"\t") for entry in listed.stdout.split(b"\0"))
    return tuple(sorted({os.fsdecode(name) for mode, _, name in entries if mode.startswith(_REGULAR)}))


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Make a folder that only its owner can read, and remove it at the end, whatever happens."""
    # The name is known before the folder exists: no signal can come between making it and being able to remove it.
    folder = Path(tempfile.gettempdir(), f"otel-perfopt-{uuid4().hex}")
    try:
        folder.mkdir(mode=0o700)
        yield str(folder)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    # Several times: an interrupted git may need a moment to end, and Ctrl-C may be pressed again.
    for attempt in range(20):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                return
            time.sleep(0.01 * attempt)
        except KeyboardInterrupt:
            continue
    sys.stderr.write(f"could not remove {folder}: please remove it by hand\n")


def standard_library(folder: str) -> Repository:
    """Make a git repository of the installed standard library's sources in an empty folder."""
    source = sysconfig.get_path("stdlib")
    for parent, folders, names in os.walk(source):
        folders[:] = sorted(set(folders) - _NOT_COPIED)
        target = Path(folder, os.path.relpath(parent, source))
        for name in names:
            if name.endswith(".py"):
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(parent, name), target / name)
    for command in (["init", "-q", "--template="], ["add", "--force", "."], ["commit", "-q", "-m", "Standard library"]):
        result = git(folder, *command, config=_NEUTRAL, **_NO_CONFIG, **_DATES)
        if result.returncode:
            raise ConfigurationError(f"git {command[0]} failed on the standard library: {first_line(result)}")
    return find_repository(folder)
