"""Help for the tests of the Redis tier: servers that can be paused, killed and restarted, and a wire that can be cut."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from otel_perfopt_redis import RedisTier
from redis import Redis

from otel_perfopt.tiers import Change, Record
from tests.cache.support import run

TIMEOUT = 20.0
"""Seconds after which a wait has failed; nothing that succeeds comes near it."""

PATIENT = 5.0
"""The timeout of tiers in tests that are not about timeouts: a busy machine is no failure."""

PROGRAM = shutil.which("redis-server")


class Server:
    """A redis-server of its own.

    Args:
        folder: its folder.
        options: more of its options.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.log = folder / "log.txt"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.admin: Any = Redis(port=self.port, socket_timeout=TIMEOUT)

    def start(self) -> None:
        """Start it, with what it has saved, and wait until it answers."""
        files = ("--dir", str(self.folder), "--logfile", str(self.log), "--dbfilename", "dump.rdb")
        command = [str(PROGRAM), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *files, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, pause=0.01)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return bool(self.admin.ping())
        except Exception:
            return False

    def kill(self) -> None:
        """End it at once, with all that it has in memory."""
        if self._process is not None:
            self.admin.connection_pool.disconnect()
            self._process.kill()
            self._process.wait(TIMEOUT)
            self._process = None

    def restart(self, *, empty: bool = False) -> None:
        """Kill it, and start it with what was saved last, or with nothing."""
        self.kill()
        if empty:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        self.start()

    def pause(self) -> None:
        """Let it answer nobody."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause it for a while."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def kill_connections(self, kind: str = "normal") -> None:
        """Close the connections of all clients but the one that says so."""
        self.admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    @contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """Count the commands that clients send meanwhile; those inside of scripts, too."""
        calls: dict[str, int] = {}
        before = self._calls()
        yield calls
        for name, count in self._calls().items():
            if count > before.get(name, 0) and name not in ("info", "ping"):
                calls[name] = count - before.get(name, 0)

    def _calls(self) -> dict[str, int]:
        stats: dict[str, Any] = self.admin.info("commandstats")
        return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}


class Wire:
    """A way to a server that can be cut, slow, silent, or give answers of its own.

    Args:
        port: that of the server.

    Attributes:
        delay: how many seconds an answer takes longer.
        is_silent: whether answers are swallowed.
        is_closed: whether new connections are closed at once.
        answer: what is answered to whatever is said, instead of what the server says.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self.delay = 0.0
        self.is_silent = False
        self.is_closed = False
        self.answer = b""
        self._sockets: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._go_on(self._accept)

    def _go_on(self, target: Callable[..., None], *args: Any) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self.is_closed:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._server))
            except OSError:
                near.close()
                continue
            self._sockets |= {near, far}
            self._go_on(self._carry, near, far, True)
            self._go_on(self._carry, far, near, False)

    def _carry(self, source: socket.socket, target: socket.socket, is_question: bool) -> None:
        try:
            while data := source.recv(2**16):
                if is_question and self.answer:
                    source.sendall(self.answer)
                elif is_question:
                    target.sendall(data)
                elif not self.is_silent:
                    threading.Event().wait(self.delay)
                    target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            each.close()
            self._sockets.discard(each)

    def cut(self) -> None:
        """Close all connections."""
        for each in list(self._sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """Close everything."""
        self.is_closed = True
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def until(condition: Callable[[], bool], *, seconds: float = TIMEOUT, pause: float = 0.002) -> None:
    """Wait for something that another thread or process is about to bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(pause)


def record(value: bytes = b"value", *tags: str, fresh: float = 60.0, kept: float = 120.0, now: float | None = None) -> Record:
    """A record that is fresh for a minute, and kept for another one."""
    now = time.time() if now is None else now
    return Record(value, now, now + fresh, now + kept, tags)


def put(tier: RedisTier, *keys: bytes, value: bytes = b"value", tags: tuple[str, ...] = (), replaces: bool = False) -> None:
    """Write a value for some keys, and wait until Redis has it."""
    tier.write({key: record(value, *tags) for key in keys}, tier.mark(), replaces=replaces)
    tier.flush()


def values(tier: RedisTier, *keys: bytes) -> dict[bytes, bytes]:
    """What a tier has for some keys, asked together; the same must come one by one."""
    together = {key: found.value for key, found in tier.read(keys).records.items()}
    single = {key: found.value for each in keys for key, found in tier.read([each]).records.items()}
    assert single == together
    return together


class Told:
    """What a tier tells.

    Args:
        tier: the tier.
    """

    def __init__(self, tier: RedisTier) -> None:
        self.changes: list[Change] = []
        tier.watch(self.changes.append)

    def until(self, *changes: Change) -> None:
        """Wait until it has told these, in this order, whatever else it has told."""
        until(lambda: self._has(changes))

    def _has(self, changes: tuple[Change, ...]) -> bool:
        told = iter(list(self.changes))
        return all(change in told for change in changes)


class Calls:
    """Calls methods of caches, or their twins on a loop.

    Args:
        kind: which.
    """

    def __init__(self, kind: str) -> None:
        self.is_async = kind == "async"

    def __call__(self, cache: Any, method: str, *args: Any, **options: Any) -> Any:
        """Call a method."""
        if self.is_async:
            return run(getattr(cache, f"{method}_async")(*args, **options))
        return getattr(cache, method)(*args, **options)

    def loader(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """Return what loads with a function."""

        async def load_async(*args: Any) -> Any:
            return load(*args)

        return load_async if self.is_async else load

    def loading(self, value: Any) -> Callable[..., Any]:
        """Return what loads a value."""
        return self.loader(lambda *_: value)
