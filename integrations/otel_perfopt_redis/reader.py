"""How a tier reads: with one plain command if it can, with a script if Redis has to look at more, and at times after others."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otel_perfopt.errors import TierError
from otel_perfopt.tiers import Found, Record
from otel_perfopt_redis.connection import Connection
from otel_perfopt_redis.records import HEAD, Head, Mark, parse
from otel_perfopt_redis.scripts import READ

__all__ = ("Reader",)

_LOOK_AGAIN = (0.01, 0.2)  # seconds between two looks at what another process loads: at first, and at most


class Reader:
    """Reads records.

    Args:
        connection: to Redis.
        keys: those of the head, the facts, the recent changes and the stream of changes.
        prefix: what the keys of records begin with.
        clock: returns the time of day.
        lease: for how many milliseconds one process may be the only one to load a key; 0 for none.
    """

    def __init__(
        self, connection: Connection, keys: Sequence[bytes], prefix: bytes, *, clock: Callable[[], float], lease: int
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._prefix = prefix
        self._clock = clock
        self._lease = lease
        # Only a script tells that the Redis behind a client of somebody else has become another one: that does not know it.
        self._needs_script = bool(lease) or not connection.is_own
        self.sender = b""

    def read(self, keys: Sequence[bytes]) -> Found:
        """Return the records of some keys; later, if other processes load what is missing, and it is not asked for more."""
        found, elsewhere = self._read(keys)
        if not elsewhere:
            return found
        end = time.monotonic() + max(elsewhere.values(), default=0.0)
        pause, most = _LOOK_AGAIN
        records = dict(found.records)
        while elsewhere and time.monotonic() < end:
            threading.Event().wait(pause)
            pause = min(most, 2 * pause)
            found, elsewhere = self._read(list(elsewhere))
            records.update(found.records)
        return Found(records, found.mark)

    def _read(self, keys: Sequence[bytes]) -> tuple[Found, Mapping[bytes, float]]:
        """Return what there is, and for how many seconds to wait for what others load."""
        found = None if self._needs_script else self._read_plainly(keys)
        return self._read_by_script(keys) if found is None else (found, {})

    def _read_plainly(self, keys: Sequence[bytes]) -> Found | None:
        now = self._connection.now()
        if now is None:  # a script tells it
            return None
        packed, *answers = self._connection.call(("MGET", self._keys[0], *map(self._prefix.__add__, keys)))
        if packed is None:
            return None
        head = Head(*HEAD.unpack(packed))
        mark = Mark(int(head.born), int(head.seq), now)
        self._connection.see(mark)
        ahead = self._clock() - now
        records: dict[bytes, Record] = {}
        for key, data in zip(keys, answers, strict=True):
            found = None if data is None else parse(data, head, ahead)
            if found is None:
                continue
            record, made = found
            if record.tags and made < head.tagged:  # one of them may have been invalidated since, which a script has to find out
                self._needs_script = True
                return None
            if record.kept_until - ahead > now:
                records[key] = record
        return Found(records, mark)

    def _read_by_script(self, keys: Sequence[bytes]) -> tuple[Found, Mapping[bytes, float]]:
        wish = (self.sender, self._lease) if self._lease else ()
        command = READ.call((*self._keys, *map(self._prefix.__add__, keys)), *wish)
        moment, *answers = self._connection.call(command) or self._after_a_loss(command)
        head, mark = self._connection.note(moment)
        ahead = self._clock() - mark.time
        records: dict[bytes, Record] = {}
        elsewhere: dict[bytes, float] = {}
        for key, answer in zip(keys, answers, strict=True):
            data = answer
            if isinstance(answer, list):
                data, left = answer
                elsewhere[key] = max(0, left) / 1000
            found = None if data is None else parse(data, head, ahead)
            if found is not None and found[0].kept_until - ahead > mark.time:
                records[key] = found[0]
        fresh = (key for key, record in records.items() if record.fresh_until - ahead > mark.time)
        if len(elsewhere.keys() | fresh) < len(set(keys)):
            elsewhere = {}  # some are to be loaded here, and whoever holds something must not wait: two might, for each other
        return Found(records, mark), elsewhere

    def _after_a_loss(self, command: tuple[Any, ...]) -> Any:
        """Ask again, because Redis has lost everything since the last command."""
        self._connection.join()
        answer = self._connection.call(command)
        if not answer:
            raise TierError("Redis loses its data again and again")
        return answer
