"""The one place of this package that starts git: without prompts, without hooks, and not for longer than it may take."""

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

from otel_perfopt.errors import ConfigurationError, PerfOptError

__all__ = ("WorktreeError", "complaint", "git", "try_git")

_SETTINGS = (f"core.hooksPath={os.devnull}", "core.fsmonitor=false", "advice.detachedHead=false")
_KEPT = ("GIT_CONFIG", "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES")
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "LC_ALL": "C"}
_GRACE = 2.0


class WorktreeError(PerfOptError):
    """Git, or the file system, refused something; the message has its words, and the context the ``"command"``."""

    default_code = "WORKTREE_ERROR"


def git(*arguments: str | Path, timeout: float | None) -> str:
    """Run git, and return what it printed, without the last line end.

    Args:
        *arguments: what comes after ``git``.
        timeout: in seconds; None for no limit.

    Raises:
        ConfigurationError: git is not installed.
        WorktreeError: it failed, or took too long.
    """
    done = try_git(*arguments, timeout=timeout)
    if done.returncode:
        message = f"{shlex.join(done.args)} failed: {complaint(done)}"
        raise WorktreeError(message, context={"command": done.args, "returncode": done.returncode})
    return os.fsdecode(done.stdout).removesuffix("\n")


def try_git(*arguments: str | Path, timeout: float | None) -> CompletedProcess[bytes]:
    """Run git, and return how it ended; its arguments are without our settings.

    Raises:
        ConfigurationError: git is not installed.
        WorktreeError: it took too long.
    """
    command = ["git", *map(str, arguments)]
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    process = None
    try:
        process = subprocess.Popen(  # noqa: S603 - arguments of our own, and paths
            ["git", "--no-pager", *settings, *command[1:]],  # noqa: S607 - which git is the user's choice
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the terminal is for us, and git cannot ask the terminal for a password.
            start_new_session=True,
        )
        stdout, stderr = process.communicate(timeout=timeout)
    except FileNotFoundError:
        raise ConfigurationError("git was not found on PATH: install git, worktrees are made by it") from None
    except subprocess.TimeoutExpired:
        _end(process)
        message = f"{shlex.join(command)} took longer than timeout={timeout} s"
        raise WorktreeError(message, context={"command": command}) from None
    except BaseException:
        _end(process)
        raise
    return CompletedProcess(command, process.returncode, stdout, stderr)


def complaint(done: CompletedProcess[bytes]) -> str:
    """Return what git complained about, on one line."""
    lines = [line.strip() for line in os.fsdecode(done.stderr).splitlines()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return "; ".join(fatal or lines[:1]) or f"exit code {done.returncode}"


def _environment() -> dict[str, str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(_KEPT)}
    return outer | _QUIET


def _end(process: "subprocess.Popen[bytes] | None") -> None:
    """End git and what it has started: politely at first, because it then takes its lock files away."""
    if process is None or process.returncode is not None:
        return
    with process:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
