"""What came of a command."""

import shlex
import signal
from typing import NamedTuple

from otel_perfopt.processes.errors import CommandFailed

__all__ = ("Command", "CommandResult", "in_words")

Command = str | tuple[str | bytes, ...]
"""A line for the shell, or the arguments of a program."""

_TAIL = 500


class CommandResult(NamedTuple):
    r"""How a command ended, and what it printed.

    Attributes:
        args: the command, as it was given.
        returncode: its exit code; minus the number of the signal that ended it.
        stdout: what it printed.
        stderr: what it wrote to its standard error.
        seconds: how long it took.

    >>> result = CommandResult(("false",), 1, b"", b"no luck\n", 0.01)
    >>> result.check()
    Traceback (most recent call last):
    ...
    otel_perfopt.processes.errors.CommandFailed: 'false' ended with exit code 1: no luck
    """

    args: Command
    returncode: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """What it printed, as UTF-8; what is no UTF-8 is replaced, and line ends stay what they are."""
        return self.stdout.decode("utf-8", "replace")

    def check(self) -> "CommandResult":
        """Return the result if the command succeeded.

        Raises:
            CommandFailed: its exit code is not 0; the message has the end of its standard error.
        """
        if self.returncode == 0:
            return self
        end = self.stderr.decode("utf-8", "replace").strip()
        end = f"...{end[-_TAIL:]}" if len(end) > _TAIL else end
        message = f"{in_words(self.args)} ended with {_exit(self.returncode)}" + (f": {end}" if end else "")
        error = CommandFailed(message, context={"command": self.args, "returncode": self.returncode})
        error.stdout, error.stderr = self.stdout, self.stderr
        raise error


def in_words(command: Command) -> str:
    """Return a command as it would be typed, in quotes, and not longer than a line.

    >>> print(in_words(("git", "commit", "-m", "two words")))
    "git commit -m 'two words'"
    """
    arguments = (command,) if isinstance(command, str) else command
    texts = [part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in arguments]
    line = texts[0] if isinstance(command, str) else shlex.join(texts)
    return repr(line if len(line) <= 200 else f"{line[:197]}...")


def _exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
