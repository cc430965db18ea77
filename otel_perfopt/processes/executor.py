"""The executor: the service's side of a worker process."""

import errno
import math
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial

from otel_perfopt.durations import Duration
from otel_perfopt.errors import ConfigurationError, PerfOptError
from otel_perfopt.processes import worker
from otel_perfopt.processes.errors import CommandError, CommandNotStarted, CommandTimeout, ExecutorBroken, OutputTooLarge
from otel_perfopt.processes.request import Argument, make_request, seconds
from otel_perfopt.processes.result import Command, CommandResult, in_words
from otel_perfopt.processes.session import kill_session
from otel_perfopt.processes.worker import LINGER, Answer, Request
from otel_perfopt.telemetry import instruments

__all__ = ("ProcessExecutor",)

_START_TIMEOUT = 30.0
_MARGIN = 5.0
"""How many seconds later than it has to a worker may answer, before it is taken for stuck."""
_LIVENESS_CHECK = 1.0
_LONGEST = 24 * 3600.0
"""How many seconds a worker may take to read its input at most; sockets know no infinite number."""


class ProcessExecutor:
    r"""A long-lived worker process that executes commands, one at a time.

    The commands are children of that small process and not of the service: they inherit nothing of it, share no signal with
    it, and do not outlive it. Threads that use one executor take turns; a forked child has to make its own. POSIX only.

    Args:
        max_output: the most bytes that a command may print, on both outputs together; None for no limit.
        grace: seconds between SIGTERM and SIGKILL for a command that has to end; 0 kills at once.

    Raises:
        ConfigurationError: an option has a value that cannot work, or this is no POSIX system.
        ExecutorBroken: the worker did not start.

    >>> executor = ProcessExecutor()
    >>> executor.execute(["echo", "two  words"], timeout="10s").check().text
    'two  words\n'
    >>> executor.destroy()
    """

    def __init__(self, *, max_output: int | None = 64 * 1024 * 1024, grace: Duration = 2.0) -> None:
        if not hasattr(os, "killpg"):
            raise ConfigurationError("a ProcessExecutor needs process groups, which only POSIX systems have")
        if max_output is not None and (type(max_output) is not int or max_output < 0):
            raise ConfigurationError(f"max_output={max_output!r} must be a number of bytes, or None for no limit")
        self._max_output = max_output
        self._grace = seconds("grace", grace, allow_zero=True)
        self._owner = os.getpid()
        self._turn = threading.RLock()
        self._is_exchanging = self._is_destroyed = False
        self._channel, theirs = socket.socketpair()
        _live.add(self)
        try:
            with theirs:
                self._process = _start_worker(theirs)
            self._expect_worker()
        except BaseException:
            self._channel.close()
            raise

    def __repr__(self) -> str:
        return f"<ProcessExecutor with worker {self._process.pid}{'' if self.is_alive() else ', broken'}>"

    def execute(
        self,
        command: str | Sequence[Argument],
        *,
        timeout: Duration | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
        input: bytes | None = None,  # noqa: A002 - as in subprocess.run
        shell: bool = False,
    ) -> CommandResult:
        """Run a command until it ends, and return what it printed. Whatever its exit code is: see `CommandResult.check`.

        When the command has ended, what is left of its process group is ended, too.

        Args:
            command: the program and its arguments; with ``shell=True`` a line for ``/bin/sh``.
            timeout: in seconds; then its whole process group is ended. None for no limit.
            env: all of its environment; None for that of the service as it is now.
            cwd: its working directory; None for that of the service as it is now.
            input: what it can read; None for nothing.
            shell: whether a shell interprets the command.

        Raises:
            TypeError: the command is a string without ``shell=True``, or something else has the wrong type.
            CommandNotStarted: there is no such program or working directory, or it must not be used.
            CommandTimeout: it took too long; the error has what it printed so far.
            OutputTooLarge: it printed more than `max_output`; the error has what it printed so far.
            ExecutorBroken: the worker is gone, or an earlier call was interrupted.
        """
        shown, request = make_request(command, timeout, env, cwd, shell=shell, grace=self._grace, max_output=self._max_output)
        if not isinstance(input, bytes | None):
            raise TypeError(f"input must be bytes, not {type(input).__name__}")
        self._check_owner()
        with self._turn:
            answer, stdout, stderr = self._exchange(shown, request, input or b"")
        return _result(shown, request, answer, stdout, stderr)

    def is_alive(self) -> bool:
        """Whether it can be used: its worker runs, and no command was interrupted halfway. For ``validate=`` of a pool."""
        if self._is_destroyed or self._owner != os.getpid() or self._process.poll() is not None:
            return False
        if not self._turn.acquire(blocking=False):
            return True  # at work
        try:
            return not self._is_exchanging
        finally:
            self._turn.release()

    def destroy(self) -> None:
        """End the worker and what it executes, which gets `grace` seconds for that; may be called again."""
        if self._owner != os.getpid():
            return
        self._is_destroyed = True
        self._process.terminate()
        self._await_end(self._grace + LINGER)
        # Somebody who waits for an answer sees now that there will be none, and lets go of the channel.
        if self._turn.acquire(timeout=2 * _LIVENESS_CHECK):
            self._channel.close()
            self._turn.release()

    def _exchange(self, shown: Command, request: Request, data: bytes) -> tuple[Answer, bytearray, bytearray]:
        if self._is_exchanging or self._is_destroyed:
            why = "was destroyed" if self._is_destroyed else "is in the middle of another command, or was interrupted there"
            raise ExecutorBroken(f"the executor {why}: take another one", context={"command": shown})
        # Unless an answer comes, this stays so: whatever happens here, no later caller gets the answer to this request.
        self._is_exchanging = True
        limit = math.inf if request.timeout is None else request.timeout + request.grace + 2 * LINGER + _MARGIN
        try:
            answer = self._talk(request, data, time.monotonic() + limit)
        except BaseException as error:
            self._channel.close()
            if not isinstance(error, EOFError | OSError):  # we were interrupted; the worker ends its command, and itself
                self._process.terminate()
                raise
            self._await_end(0 if isinstance(error, TimeoutError) else _LIVENESS_CHECK)
            raise _broken(shown, request, error, self._process) from error
        self._is_exchanging = False
        return answer

    def _talk(self, request: Request, data: bytes, deadline: float) -> tuple[Answer, bytearray, bytearray]:
        self._channel.settimeout(min(deadline - time.monotonic(), _LONGEST))
        worker.send(self._channel, request, data)
        content, stdout, stderr = worker.receive(partial(self._recv_into, deadline))
        return Answer(*content), stdout, stderr

    def _recv_into(self, deadline: float, buffer: memoryview) -> int:
        while True:
            rest = max(deadline - time.monotonic(), 0.001)
            self._channel.settimeout(min(rest, _LIVENESS_CHECK))
            try:
                return self._channel.recv_into(buffer)
            except TimeoutError:
                if rest <= _LIVENESS_CHECK:
                    raise
                # A process forked in a bad moment may have the worker's end of the channel, and keep it open.
                if self._process.poll() is not None:
                    return 0

    def _await_end(self, patience: float) -> None:
        """Wait until the worker has ended, and see to it if that takes longer; what it was executing ends, too."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if self._process.returncode != 0:
            kill_session(self._process.pid)
            self._process.wait()

    def _expect_worker(self) -> None:
        try:
            worker.receive(partial(self._recv_into, time.monotonic() + _START_TIMEOUT))
        except BaseException as error:
            self._await_end(_LIVENESS_CHECK if isinstance(error, EOFError) else 0)
            if not isinstance(error, EOFError | OSError):
                raise
            context = {"python": sys.executable, "returncode": self._process.returncode}
            raise ExecutorBroken(
                f"the worker did not start; see what {sys.executable} wrote to stderr", context=context
            ) from error

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            message = f"this executor belongs to process {self._owner}; a forked child makes its own"
            raise ExecutorBroken(message, context={"owner": self._owner})

    def _leave_to_parent(self) -> None:
        self._turn = threading.RLock()
        # A copy held by the child would keep the worker alive when the parent dies.
        self._channel.close()


def _start_worker(channel: socket.socket) -> "subprocess.Popen[bytes]":
    if not sys.executable:
        raise ConfigurationError("sys.executable is empty: a worker cannot be started without knowing the interpreter")
    # Isolated and without site, it starts fast and finds nothing but the standard library. It has a session of its own: Ctrl-C
    # in the service's terminal is for the service, which decides what becomes of the command.
    command = [sys.executable, "-I", "-S", os.path.abspath(worker.__file__)]
    try:
        return subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=channel.fileno(), stdout=subprocess.DEVNULL, cwd="/", start_new_session=True
        )
    except OSError as error:
        raise ExecutorBroken(f"the worker did not start: {error}", context={"python": sys.executable}) from error


def _result(shown: Command, request: Request, answer: Answer, stdout: bytearray, stderr: bytearray) -> CommandResult:
    error: CommandError
    if answer.errno is not None:
        name = errno.errorcode.get(answer.errno, "invalid")
        where = os.fsdecode(answer.where.encode("latin-1"))
        message = f"cannot run {in_words(shown)}: {answer.problem}{f': {where!r}' if where else ''} ({name})"
        raise CommandNotStarted(message, context={"command": shown, "errno": name, "where": where})
    if answer.ended_for == "timeout":
        error = _timeout(shown, request, "was ended with its process group")
    elif answer.ended_for == "output" or answer.returncode is None:
        message = f"{in_words(shown)} printed more than max_output={request.max_output} bytes and was ended"
        error = OutputTooLarge(message, context={"command": shown, "max_output": request.max_output})
    else:
        return CommandResult(shown, answer.returncode, bytes(stdout), bytes(stderr), answer.seconds)
    error.stdout, error.stderr = bytes(stdout), bytes(stderr)
    raise error


def _broken(shown: Command, request: Request, error: BaseException, process: "subprocess.Popen[bytes]") -> PerfOptError:
    if isinstance(error, TimeoutError):
        return _timeout(shown, request, "was ended with its worker, which did not answer")
    context = {"command": shown, "worker": process.pid, "returncode": process.returncode}
    return ExecutorBroken(f"the worker has ended; what became of {in_words(shown)} is not known", context=context)


def _timeout(shown: Command, request: Request, end: str) -> CommandTimeout:
    message = f"{in_words(shown)} took longer than {request.timeout:g} s and {end}"
    return CommandTimeout(message, context={"command": shown, "timeout": request.timeout})


_live: "weakref.WeakSet[ProcessExecutor]" = weakref.WeakSet()


def _after_fork() -> None:
    for executor in list(_live):
        executor._leave_to_parent()


instruments.on_fork(_after_fork)
