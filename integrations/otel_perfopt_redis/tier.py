"""A tier in Redis or Valkey, which processes on many machines share; see `scripts` for what is where, and what is valid.

What is written is written behind; what is deleted is deleted when the call returns. `listener` tells what others change.
"""

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError, TierError
from otel_perfopt.telemetry import instruments, lifecycle
from otel_perfopt.tiers import Change, Found, Mark, Record, Tier, TierUsage
from otel_perfopt_redis.connection import Command, Connection, make_client, options_of
from otel_perfopt_redis.listener import Listener
from otel_perfopt_redis.reader import Reader
from otel_perfopt_redis.records import pack_tags, pack_terms
from otel_perfopt_redis.scripts import CHANGE, CLEAR, RELEASE, WRITE
from otel_perfopt_redis.writer import Waiting, Writer

__all__ = ("RedisTier",)

VERSION = 1
LISTEN = 1.0  # seconds
LONGEST = 100 * 365 * 86400.0  # seconds; numbers that are much larger are none for Redis
_GLOB = {ord(sign): f"\\{sign}" for sign in "\\*?[]"}


class RedisTier(Tier):
    """A tier of a cache in Redis, of version 5 or later, or Valkey.

    A call waits for Redis no longer than the timeout. What it answers costs one round trip, however many keys are asked for.
    Keys begin with ``perfopt:1:{namespace}:``, so that a cluster keeps those of one cache together. A thread listens for
    what others invalidate.

    When Redis comes back after a restart or a failover, what it has may lack the last invalidations, and nobody knows which:
    it is not used any more.

    Args:
        url: where Redis is, such as ``redis://localhost:6379/0``; ``rediss:`` with TLS, ``unix:`` for a socket.
        namespace: which cache this is; processes that share it have the same cache. One tier object for each cache.
        client: an own client of redis-py instead of `url`, for a cluster or sentinels. Its timeouts and retries count; it must
            not decode responses, and is not closed.
        timeout: how long one command may take, a duration.
        max_ttl: how long records are kept at most, a duration; also those of entries that never expire.
        single_flight: for how long, at most, one process may keep the others from loading the same key, a duration; they wait
            for its value, and load themselves if it does not come. None to let each process load.
        clock: returns the time of day in seconds; for tests.

    Raises:
        ConfigurationError: an option makes no sense.
    """

    kind = "redis"
    is_remote = True

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str,
        client: Any = None,
        timeout: Duration = 0.5,
        max_ttl: Duration = "30d",
        single_flight: Duration | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        limit = _seconds("timeout", timeout)
        self._longest = _seconds("max_ttl", max_ttl)
        lease = 0.0 if single_flight is None else _seconds("single_flight", single_flight)
        prefix = _prefix(namespace)
        self.namespace = namespace
        self._clock = clock
        self._prefix = prefix + b"e:"
        self._keys = tuple(prefix + name for name in (b"head", b"facts", b"recent", b"changes"))
        self._counts = prefix + b"counts"
        self._clients = partial(_clients, url, client, limit)
        talk, listen, wait = self._clients()
        self._connection = Connection(talk, self._keys, is_own=client is None)
        self._reader = Reader(self._connection, self._keys, self._prefix, clock=clock, lease=math.ceil(1000 * lease))
        self._become_somebody()
        self._listener = Listener(
            self._connection, listen, wait, keys=self._keys, sender=self._reader.sender, prefix=self._prefix
        )
        self._writer = Writer(self._connection, self._write_command, self._lost)
        self.is_exclusive = bool(lease)
        weakref.finalize(self, self._listener.stop).atexit = False
        with _lock:
            _live.add(self)

    def __repr__(self) -> str:
        return f"<RedisTier {self.namespace!r}>"

    def _become_somebody(self) -> None:
        self._reader.sender = self._sender = os.urandom(8).hex().encode()

    # reading --------------------------------------------------------------------------------------------

    def read(self, keys: Sequence[bytes]) -> Found:
        """Return the records of some keys."""
        self._listener.resume()
        if self._writer.is_waiting(keys):
            self._writer.flush()
        found = self._reader.read(keys)
        if self._listener.is_behind:  # memory has to hear of it before anybody uses the answer
            self._listener.catch_up()
        return found

    def mark(self) -> Mark:
        """Return a mark for this moment."""
        return self.read(()).mark

    def watch(self, on_change: Callable[[Change], None]) -> None:
        """Have `on_change` called, in a background thread, for whatever other processes invalidate from now on."""
        self._listener.add(on_change, self.mark())

    # writing --------------------------------------------------------------------------------------------

    def write(self, records: Mapping[bytes, Record], mark: Mark, *, replaces: bool = False) -> None:
        """Keep records, soon."""
        self._writer.put(records, mark, replaces=replaces)

    def _write_command(self, key: bytes, item: Waiting) -> Command:
        record = item.record
        terms = pack_terms(record, item.mark, self._clock(), self._longest, replaces=item.replaces)
        return WRITE.call((*self._keys, self._prefix + key), self._sender, terms, pack_tags(record.tags), record.value)

    def _lost(self, keys: Sequence[bytes], error: Exception) -> None:
        if self.on_loss is not None:
            self.on_loss(keys, error)

    def release(self, keys: Sequence[bytes]) -> None:
        """Let others load what this process has not loaded after all."""
        if self.is_exclusive:
            self._connection.call(RELEASE.call((*self._keys, *map(self._prefix.__add__, keys)), self._sender))

    def flush(self) -> None:
        """Return when everything that was written before can be found by other processes."""
        self._writer.flush()

    # changes --------------------------------------------------------------------------------------------

    def delete(self, keys: Sequence[bytes]) -> bool:
        """Forget keys before returning; return whether there was any fresh one."""
        now = self._clock()
        had_fresh = any(record.fresh_until > now for record in self._writer.withdraw(keys))
        return self._change(keys, b"gone") or had_fresh

    def expire(self, keys: Sequence[bytes]) -> bool:
        """Make records stale before returning; return whether there was any fresh one."""
        if self._writer.is_waiting(keys):
            self._writer.flush()
        return self._change(keys, b"stale")

    def invalidate_tag(self, tag: str) -> None:
        """Forget all records with a tag, before returning and in constant time."""
        self._clear(tag.encode("utf-8", "surrogatepass"))

    def clear(self) -> None:
        """Forget all records before returning; Redis gets rid of them when their time is over."""
        self._clear()

    def _change(self, keys: Sequence[bytes], how: bytes) -> bool:
        moment, fresh = self._connection.call(CHANGE.call((*self._keys, *map(self._prefix.__add__, keys)), self._sender, how))
        self._connection.note(moment)
        return bool(fresh)

    def _clear(self, *tags: bytes) -> None:
        # What waits was made before, and is refused when it is written; what it replaces is gone then, too.
        self._connection.note(self._connection.call(CLEAR.call(self._keys, self._sender, *tags)))

    # the rest -------------------------------------------------------------------------------------------

    def add_counts(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add to the figures that outlive the process, and return their sums."""
        commands: list[Command] = [("HINCRBY", self._counts, figure, number) for figure, number in counts.items()]
        answers = self._connection.call_all([*commands, ("HGETALL", self._counts)])
        for answer in answers:
            if isinstance(answer, Exception):
                raise TierError(f"Redis: {answer}") from answer
        return {figure.decode(): int(number) for figure, number in _pairs(answers[-1])}

    def usage(self) -> TierUsage:
        """Return how much is in it; walks over all keys of the database, for people and not for every request."""
        pattern = self._prefix.decode().translate(_GLOB) + "*"
        keys = list(self._connection.run(lambda: set(self._connection.client.scan_iter(match=pattern, count=1000))))
        entries = size = 0
        for some in (keys[start : start + 1000] for start in range(0, len(keys), 1000)):
            lengths = [length for length in self._connection.call_all([("STRLEN", key) for key in some]) if length]
            entries += len(lengths)
            size += sum(lengths)
        return TierUsage(entries, size, None)

    def close(self) -> None:
        """Flush, stop listening, and let go of connections; a later call opens them again."""
        try:
            self._writer.flush()
        finally:
            self._listener.stop()
            self._connection.close()

    def start_afresh_after_fork(self) -> None:
        """Become another process: what waits is the parent's, and all that the parent does is news."""
        self._become_somebody()
        self._writer.start_afresh()
        talk, listen, _ = self._clients()  # a thread of the parent may have held a lock of those
        self._connection.use(talk)
        self._listener.restart_after_fork(listen, self._sender)


def _seconds(option: str, value: Duration) -> float:
    try:
        seconds = to_seconds(value, option=option)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
    if seconds > LONGEST:
        raise ConfigurationError(f"{option}={value!r} must not be more than 100 years: use '36500d'")
    return seconds


def _prefix(namespace: object) -> bytes:
    try:
        if isinstance(namespace, str) and namespace and not set("{}") & set(namespace):
            return f"perfopt:{VERSION}:{{{namespace}}}:".encode()
    except UnicodeEncodeError:
        pass
    raise ConfigurationError(f"namespace={namespace!r} must be a text without braces, such as 'shop:users'")


def _clients(url: str | None, client: Any, timeout: float) -> tuple[Any, Any, float]:
    """Return a client for commands, one for waiting, and how many seconds that may wait."""
    if (url is None) == (client is None):
        raise ConfigurationError("give either url= or client=, such as RedisTier('redis://localhost:6379', namespace='users')")
    if url is not None:
        client, waiting, wait = make_client(url, timeout), make_client(url, timeout + LISTEN), LISTEN
    else:
        own = options_of(client).get("socket_timeout")
        waiting, wait = client, LISTEN if own is None else min(LISTEN, own / 2)
    if options_of(client).get("decode_responses"):
        raise ConfigurationError("the client decodes responses, but records are bytes: give decode_responses=False")
    return client, waiting, wait


def _pairs(answer: Any) -> Sequence[tuple[bytes, bytes]]:
    """Return the fields and values of a hash, which come in two shapes."""
    return list(answer.items()) if isinstance(answer, dict) else list(zip(answer[::2], answer[1::2], strict=True))


def _all() -> list[RedisTier]:
    with _lock:
        return list(_live)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for tier in _all():
        tier.start_afresh_after_fork()


def _flush_at_exit(_seconds: float) -> None:
    for tier in _all():
        try:
            tier.flush()
        except TierError:
            pass  # it was told what is lost


_lock = threading.RLock()
_live: "weakref.WeakSet[RedisTier]" = weakref.WeakSet()
instruments.on_fork(_after_fork)
lifecycle.before_exit(_flush_at_exit)
