"""What others invalidate: a thread that waits for the next change in the stream of changes, and catches up on what it has missed.

Every change has a number, and no number is missing. Whoever knows the last one that it has seen can therefore tell, after a lost
connection, what it has missed, or that this is not to be had any more: then everything may have been invalidated.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from otel_perfopt.errors import TierError
from otel_perfopt.telemetry import background
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.telemetry.logs import mention
from otel_perfopt.tiers import Change
from otel_perfopt_redis.connection import Connection
from otel_perfopt_redis.records import Mark
from otel_perfopt_redis.scripts import READ

__all__ = ("Listener",)

_AT_ONCE = 1_000
_RETRY = (0.05, 1.0)  # seconds between two attempts to reach Redis: the first time, and the most


class Listener:
    """Tells what others change, as long as somebody wants to know it; knows nothing of its tier, which may so be collected.

    Args:
        connection: for questions.
        client: to wait with; that of the connection, or one of its own.
        wait: how long to wait for a change before asking whether everything is still there, in seconds.
        keys: those of the head, the facts, the recent changes and the stream of changes.
        sender: whose changes are no news.
        prefix: what the keys of records begin with.
    """

    def __init__(
        self, connection: Connection, client: Any, wait: float, *, keys: Sequence[bytes], sender: bytes, prefix: bytes
    ) -> None:
        self._connection = connection
        self._client = client
        self._wait = wait
        self._keys = keys
        self._sender = sender
        self._prefix = prefix
        self._callbacks: tuple[Callable[[Change], None], ...] = ()
        self._position = Mark(0, 0, 0.0)
        self._fallen = self._caught_up = object()
        self._start_afresh()
        connection.on_join = self.fall_behind

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._telling = threading.RLock()  # another one: a cache is told under it, which takes a lock of its own
        self._thread: object = None  # stands for the one that listens

    @property
    def is_behind(self) -> bool:
        """Whether changes may have been missed, so that nothing in memory is to be trusted before `catch_up`."""
        return self._fallen is not self._caught_up and bool(self._callbacks)

    def fall_behind(self) -> None:
        """Take note that changes may have been missed."""
        self._fallen = object()

    def add(self, callback: Callable[[Change], None], position: Mark) -> None:
        """Tell `callback` what others change after a mark."""
        with self._lock:
            before = self._callbacks
            if not before:
                self._position = position
            self._callbacks = (*before, callback)
            try:
                self._start()
            except BaseException:
                self._callbacks = before
                raise

    def resume(self) -> None:
        """Go on after `stop`; everything since may have been missed."""
        if self._thread is None and self._callbacks:
            with self._lock:
                self.fall_behind()
                self._start()

    def stop(self) -> None:
        """End the thread, when its wait is over."""
        self._thread = None  # without a lock: a finalizer calls it

    def let_go(self) -> None:
        """Close the connection to wait with, if it was made for that."""
        if self._client is not self._connection.client:
            self._client.connection_pool.disconnect(inuse_connections=False)

    def restart_after_fork(self, client: Any, sender: bytes) -> None:
        """Go on in a child, with another client, where all that others and the parent do is news."""
        self._client = client
        self._sender = sender
        was_running = self._thread is not None
        self._start_afresh()
        if was_running:
            try:
                self.resume()
            except RuntimeError:
                pass  # no thread can be started now; the next read tries it again

    def catch_up(self) -> None:
        """Tell what was missed, if anything was.

        Raises:
            TierError: Redis cannot be reached in time.
        """
        with self._telling:
            if self.is_behind:
                self._catch_up()

    def listen(self, thread: object) -> None:
        """Wait for changes for a while, and tell them, unless another thread is to listen by then, or none.

        Raises:
            TierError: Redis cannot be reached in time.
        """
        self.catch_up()
        position = self._position
        block = ("COUNT", _AT_ONCE, "BLOCK", max(1, int(self._wait * 1000)))
        try:
            answer = self._client.execute_command("XREAD", *block, "STREAMS", self._keys[-1], f"{position.seq}-0")
        except (RedisError, OSError) as error:
            raise TierError(f"Redis: {error}") from error
        entries = _entries_of(answer)
        with self._telling:
            if self._thread is not thread:
                return
            if not entries or _number_of(entries[0]) != position.seq + 1:
                self._catch_up()  # also if there is nothing: Redis may have lost everything, the stream included
            elif self._position == position:
                self._tell_of(entries)

    def _start(self) -> None:
        if self._thread is None:
            this = object()
            threading.Thread(target=_listen, name="otel-perfopt-redis", args=(self, this), daemon=True).start()
            self._thread = this

    def is_listened_to_by(self, thread: object) -> bool:
        """Whether this is the thread that is to listen."""
        with self._lock:  # whoever has started it may not have said so yet
            return self._thread is thread

    def _catch_up(self) -> None:
        fallen = self._fallen
        mark = self._mark()
        if mark.born != self._position.born or mark.seq < self._position.seq:
            self._tell([Change()], mark)
        while self._position.seq < mark.seq:
            command = ("XRANGE", self._keys[-1], f"{self._position.seq + 1}-0", "+", "COUNT", _AT_ONCE)
            entries = self._connection.call(command)
            if entries and _number_of(entries[0]) == self._position.seq + 1:
                self._tell_of(entries)
            else:
                self._tell([Change()], mark)
        self._caught_up = fallen

    def _mark(self) -> Mark:
        answer = self._connection.call(READ.call(self._keys))
        if not answer:  # Redis has lost its data since the last command
            self._connection.join()
            return self._connection.latest
        return self._connection.note(answer[0])[1]

    def _tell_of(self, entries: Sequence[Any]) -> None:
        changes = (self._change_of(*_facts_of(entry)) for entry in entries)
        self._tell(filter(None, changes), self._position._replace(seq=_number_of(entries[-1])))

    def _change_of(self, sender: bytes, how: bytes, what: bytes) -> Change | None:
        if sender == self._sender:
            return None
        if how == b"all":
            return Change()
        return Change(tag=what.decode("utf-8", "surrogatepass")) if how == b"tag" else Change(key=what.removeprefix(self._prefix))

    def _tell(self, changes: Iterable[Change], position: Mark) -> None:
        for change in changes:
            for callback in self._callbacks:
                try:
                    callback(change)
                except Exception as error:  # noqa: BLE001 - the others are told all the same
                    _mention("a cache could not be told of a change in Redis", error)
        self._position = position


def _entries_of(answer: Any) -> Sequence[Any]:
    """Return the entries of the one stream in an answer to XREAD, which has two shapes, and one more inside."""
    if not answer:
        return []
    if not isinstance(answer, dict):
        return answer[0][1]  # type: ignore[no-any-return]
    entries: Sequence[Any] = next(iter(answer.values()))
    return entries[0] if isinstance(entries[0][0], list | tuple) else entries


def _number_of(entry: Any) -> int:
    return int(entry[0].partition(b"-")[0])


def _facts_of(entry: Any) -> tuple[bytes, bytes, bytes]:
    """Return who made a change, how, and of what."""
    facts = entry[1]
    _, sender, how, what = [part for pair in facts.items() for part in pair] if isinstance(facts, dict) else facts
    return sender, how, what


def _listen(listener: Listener, this: object) -> None:
    first, most = _RETRY
    pause = 0.0
    while listener.is_listened_to_by(this):
        if pause:
            threading.Event().wait(pause)
        try:
            listener.listen(this)
            pause = 0.0
        except TierError:
            listener.fall_behind()
            pause = min(most, max(first, 2 * pause))
        except Exception as error:  # noqa: BLE001 - nobody else would listen
            _mention("listening to Redis failed; it is tried again", error)
            listener.fall_behind()
            pause = most
    listener.let_go()


def _mention(event: str, error: Exception) -> None:
    """Log something, without the lock that may be held here."""
    with suppress(NoThread):  # the process ends
        background.submit(partial(mention, "error", event, error=error))
