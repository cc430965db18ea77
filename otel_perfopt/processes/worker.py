"""The program of a worker process: executes commands for the service that started it, one after the other.

It runs by itself, from this file, and imports nothing but the standard library. The service talks to it through the socket
that is its standard input; when that closes, the worker ends, and before that what it executes.
"""

import json
import math
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import IO, Any, NamedTuple

__all__ = ("LINGER", "Answer", "Request", "receive", "send")

LINGER = 0.5
"""How many seconds the output of a command is still read when the command has ended, but others keep its pipes open."""

_LENGTHS = struct.Struct("!QQQ")
_CHUNK = 65536


class Request(NamedTuple):
    """What to execute. Paths and variables are bytes written as Latin-1: the two processes may encode names differently."""

    command: list[str]
    cwd: str
    env: dict[str, str]
    timeout: float | None
    grace: float
    max_output: int | None


class Answer(NamedTuple):
    """What came of it.

    Attributes:
        returncode: of the command; minus the number of the signal that ended it, and None if it never ran.
        seconds: how long it took.
        ended_for: why the command was made to end: "timeout", "output", "service"; empty when it ended by itself.
        errno: why it could not be started; 0 if it is no error of the system, and None if it was.
        problem: the same in words.
        where: the file or folder that has the problem, if it is known.
    """

    returncode: int | None
    seconds: float
    ended_for: str = ""
    errno: int | None = None
    problem: str = ""
    where: str = ""


# A message is three lengths, a text in JSON, and two strings of bytes: the input of a command, or its two outputs.


def send(channel: socket.socket, content: object, first: bytes | bytearray = b"", second: bytes | bytearray = b"") -> None:
    """Send one message."""
    text = json.dumps(content).encode()
    channel.sendall(_LENGTHS.pack(len(text), len(first), len(second)) + text)
    channel.sendall(first)
    channel.sendall(second)


def receive(recv_into: Callable[[memoryview], int]) -> tuple[Any, bytearray, bytearray]:
    """Receive one message.

    Raises:
        EOFError: the other side is gone.
    """
    lengths = _LENGTHS.unpack(_read(recv_into, _LENGTHS.size))
    text, first, second = (_read(recv_into, length) for length in lengths)
    return json.loads(text), first, second


def _read(recv_into: Callable[[memoryview], int], size: int) -> bytearray:
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        count = recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return buffer


class Execution:
    """A running command: what it is fed, what it prints, and when it has to end.

    Args:
        process: its process, the leader of a process group of its own.
        request: what was asked for.
        data: what to feed it.

    Attributes:
        stdout: what it printed.
        stderr: what it complained about.
        ended_for: see `Answer`.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", request: Request, data: bytearray) -> None:
        self.stdout, self.stderr, self.ended_for = bytearray(), bytearray(), ""
        self._process = process
        self._grace = request.grace
        self._room = sys.maxsize if request.max_output is None else request.max_output
        self._selector = selectors.DefaultSelector()
        self._outputs = 0
        self._is_given_up = False
        self._then: Callable[[], None] = partial(self.end, "timeout")
        self._due = math.inf if request.timeout is None else time.monotonic() + request.timeout
        for pipe, printed in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            if pipe is not None:
                self._outputs += 1
                self.watch(pipe, partial(self._take, pipe, printed))
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self.watch(process.stdin, partial(self._feed, process.stdin, data), selectors.EVENT_WRITE)

    def watch(self, file: Any, callback: Callable[[], None], event: int = selectors.EVENT_READ) -> None:
        """Call `callback` while the command runs, whenever `file` is ready."""
        self._selector.register(file, event, callback)

    def forget(self, file: Any) -> None:
        """Watch `file` no longer."""
        self._selector.unregister(file)

    def run(self) -> int | None:
        """Wait until it is over, and return its exit code; None if even SIGKILL did not end it."""
        try:
            while not (self._is_given_up or (self._has_exited() and not self._outputs)):
                for key, _ in self._selector.select(min(max(0.0, self._due - time.monotonic()), 3600.0)):
                    key.data()
                if time.monotonic() >= self._due:
                    self._then()
        finally:
            # What it started and left behind is in its group. Not yet waited for, the process keeps the number of the group.
            self._signal(signal.SIGKILL)
            self._selector.close()
        return self._process.poll()

    def end(self, reason: str) -> None:
        """Make it end: politely, and after the time of grace for certain."""
        self.ended_for = reason
        self._signal(signal.SIGTERM)
        self._due, self._then = time.monotonic() + self._grace, self._kill

    def look(self) -> None:
        """See whether the command has ended; its output may still be in the pipes, or in other processes' hands."""
        if self._has_exited():
            self._due, self._then = min(self._due, time.monotonic() + LINGER), self._kill

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._due, self._then = time.monotonic() + LINGER, self._give_up

    def _give_up(self) -> None:
        self._is_given_up = True

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except OSError:
            pass  # nobody is left, or nobody whom this user may end

    def _has_exited(self) -> bool:
        if hasattr(os, "waitid"):
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, options) is not None
        return self._process.poll() is not None

    def _take(self, pipe: IO[bytes], printed: bytearray) -> None:
        data = os.read(pipe.fileno(), _CHUNK)
        if not data:
            self._close(pipe)
            self._outputs -= 1
        elif len(data) > self._room and not self.ended_for:
            self.end("output")
        printed += data[: self._room]
        self._room -= min(self._room, len(data))

    def _feed(self, pipe: IO[bytes], data: bytearray) -> None:
        try:
            del data[: os.write(pipe.fileno(), data[:_CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            data.clear()  # it reads no further, which is its own affair
        if not data:
            self._close(pipe)

    def _close(self, pipe: IO[bytes]) -> None:
        self.forget(pipe)
        pipe.close()


class Worker:
    """Executes what the service asks for, until the service is gone or SIGTERM comes."""

    def __init__(self, service: socket.socket) -> None:
        self._service = service
        self._is_executing = self._is_ending = False
        # Every signal rings it, so that a wait for files also ends when a command ends.
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)  # noqa: FBT003
        signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
        # Whatever the thread that started the worker blocks; commands begin without that, too.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Handlers, because what is merely ignored would be ignored by the commands as well.
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_end)

    def _on_end(self, *_: object) -> None:
        self._is_ending = True
        if not self._is_executing:
            raise SystemExit

    def serve(self) -> None:
        """Say that it is there, and execute."""
        send(self._service, os.getpid())
        while True:
            content, data, _ = receive(self._service.recv_into)
            self._is_executing = True
            answer, stdout, stderr = self._execute(Request(*content), data)
            self._is_executing = False
            if answer.ended_for == "service":
                return
            send(self._service, answer, stdout, stderr)

    def _execute(self, request: Request, data: bytearray) -> tuple[Answer, bytearray, bytearray]:
        started = time.monotonic()
        try:
            process = _start(request, has_input=bool(data))
        except OSError as error:
            return _not_started(error.errno or 0, error.strerror or str(error), error.filename)
        except (ValueError, subprocess.SubprocessError) as error:
            return _not_started(0, str(error), None)
        with process:
            execution = Execution(process, request, data)
            execution.watch(self._service, partial(self._leave, execution))
            execution.watch(self._bell, partial(self._on_bell, execution))
            returncode = execution.run()
            if returncode is None:
                process.returncode = -signal.SIGKILL  # nothing ends it: do not wait for it, either
        answer = Answer(process.returncode, time.monotonic() - started, execution.ended_for)
        return answer, execution.stdout, execution.stderr

    def _leave(self, execution: Execution) -> None:
        """The service says something although it waits for an answer: that it is gone."""
        execution.forget(self._service)
        execution.end("service")

    def _on_bell(self, execution: Execution) -> None:
        self._bell.recv(_CHUNK)
        execution.look()
        if self._is_ending and execution.ended_for != "service":
            execution.end("service")


def _start(request: Request, *, has_input: bool) -> "subprocess.Popen[bytes]":
    command = [argument.encode("latin-1") for argument in request.command]
    # A group of its own, to be ended as a whole, but in the worker's session, by which the service finds it if it must.
    return subprocess.Popen(  # noqa: S603 - to execute what it is asked to is what the worker is for
        command,
        stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=request.cwd.encode("latin-1"),
        env={name.encode("latin-1"): value.encode("latin-1") for name, value in request.env.items()},
        process_group=0,
    )


def _not_started(errno: int, problem: str, where: str | bytes | None) -> tuple[Answer, bytearray, bytearray]:
    place = "" if where is None else os.fsencode(where).decode("latin-1")
    return Answer(None, 0.0, "", errno, problem, place), bytearray(), bytearray()


def _main() -> None:
    try:
        Worker(socket.socket(fileno=0)).serve()
    except (EOFError, ConnectionError):
        pass  # the service is gone


if __name__ == "__main__":
    _main()
