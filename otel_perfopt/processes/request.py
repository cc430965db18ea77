"""What a worker is asked for: a command and its circumstances, checked before anything is sent."""

import os
from collections.abc import Mapping, Sequence

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.processes.errors import CommandNotStarted
from otel_perfopt.processes.result import Command, in_words
from otel_perfopt.processes.worker import Request

__all__ = ("Argument", "make_request", "seconds")

Argument = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def make_request(
    command: str | Sequence[Argument],
    timeout: Duration | None,
    env: Mapping[str, str] | None,
    cwd: Argument | None,
    *,
    shell: bool,
    grace: float,
    max_output: int | None,
) -> tuple[Command, Request]:
    """Return the command as its result will show it, and what to send to a worker."""
    shown = _checked(command, shell=shell)
    arguments = ("/bin/sh", "-c", shown) if isinstance(shown, str) else shown
    return shown, Request(
        command=[_text(argument) for argument in arguments],
        cwd=_folder(shown, cwd),
        env={_text(name): _text(value) for name, value in (os.environ if env is None else env).items()},
        timeout=None if timeout is None else seconds("timeout", timeout),
        grace=grace,
        max_output=max_output,
    )


def _checked(command: str | Sequence[Argument], *, shell: bool) -> Command:
    if shell:
        if isinstance(command, str):
            return command
        raise TypeError(f"command={command!r}: with shell=True it is one line of text; without, a list of arguments")
    if isinstance(command, str | bytes):
        words = command.split()
        raise TypeError(
            f"command={command!r} must be a list of arguments, such as {words!r}; a line for the shell needs shell=True"
        )
    arguments = tuple(os.fspath(argument) for argument in command)
    if not arguments:
        raise ValueError("command=[] must at least name a program")
    return arguments


def _folder(command: Command, cwd: Argument | None) -> str:
    # The worker has a working directory of its own, so it is told that of the service.
    try:
        return _text(os.getcwdb() if cwd is None else os.path.abspath(os.fsencode(cwd)))
    except OSError as error:
        context = {"command": command, "errno": "ENOENT"}
        message = f"cannot run {in_words(command)}: the working directory of this process is gone (ENOENT)"
        raise CommandNotStarted(message, context=context) from error


def _text(name: Argument) -> str:
    return os.fsencode(name).decode("latin-1")


def seconds(option: str, value: Duration, *, allow_zero: bool = False) -> float:
    """Return an option in seconds.

    Raises:
        ConfigurationError: it is no duration that has a meaning here.
    """
    try:
        return to_seconds(value, option=option, allow_zero=allow_zero)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
