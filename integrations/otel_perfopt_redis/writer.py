"""What a tier has not written yet: records wait for a worker, which writes all that have come meanwhile in one round trip."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from redis.exceptions import RedisError

from otel_perfopt.errors import TierError
from otel_perfopt.telemetry import background
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.tiers import Record
from otel_perfopt_redis.connection import Command, Connection
from otel_perfopt_redis.records import Mark

__all__ = ("Waiting", "Writer")

MANY, LARGE = 10_000, 64 * 2**20  # records, and their bytes, that may wait
MANY_AT_ONCE, LARGE_AT_ONCE = 200, 2**20  # that are written in one round trip

OnLoss = Callable[[Sequence[bytes], Exception], None]


class Waiting(NamedTuple):
    """A record that is to be written.

    Attributes:
        record: the record.
        mark: when its value was made.
        replaces: whether it was set, and not loaded.
    """

    record: Record
    mark: Mark
    replaces: bool


class Writer:
    """Writes behind; for any number of threads.

    Args:
        connection: to Redis.
        command: makes the command that writes a record.
        on_loss: called with the keys that were set and could not be written, and why.
    """

    def __init__(self, connection: Connection, command: Callable[[bytes, Waiting], Command], on_loss: OnLoss) -> None:
        self._connection = connection
        self._command = command
        self._on_loss = on_loss
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget what waits; in a forked child it is the parent's."""
        # Reentrant: a collection of garbage under the lock may run a finalizer that uses this tier.
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._waiting: dict[bytes, Waiting] = {}
        self._size = 0
        self._is_asked = False

    def put(self, records: Mapping[bytes, Record], mark: Mark, *, replaces: bool) -> None:
        """Have records written soon; what was loaded never takes the place of what was set.

        Raises:
            TierError: too many are waiting; these are not kept.
        """
        with self._lock:
            for key, record in records.items():
                old = self._waiting.get(key)
                if old is not None and old.replaces and not replaces:
                    continue
                if len(self._waiting) >= MANY or self._size >= LARGE:
                    raise TierError(f"Redis is too slow: {len(self._waiting)} records wait to be written, and more are not kept")
                self._waiting[key] = Waiting(record, mark, replaces)
                self._size += len(record.value) - (0 if old is None else len(old.record.value))
        if not self._is_asked:
            try:
                self._is_asked = True
                background.submit(self._write_behind)
            except BaseException as error:
                self._is_asked = False  # there may be a worker or not; one too many does no harm
                if not isinstance(error, NoThread):  # without a thread, the exit writes it, or `flush`
                    raise

    def is_waiting(self, keys: Iterable[bytes]) -> bool:
        """Whether any of some keys is not written yet."""
        return bool(self._waiting) and any(key in self._waiting for key in keys)

    def withdraw(self, keys: Iterable[bytes]) -> Sequence[Record]:
        """Do not write records that were deleted, and return them."""
        items = {key: item for key in keys if (item := self._waiting.get(key)) is not None}
        self._take_out(items)
        return [item.record for item in items.values()]

    def flush(self) -> None:
        """Write everything that waits.

        Raises:
            TierError: Redis cannot be reached in time, or refuses.
        """
        failure: Exception | None = None
        while self._waiting:
            with self._writing:  # what was put later is written later
                lost, error = self._write_some()
            if error is not None:
                # Without a lock, and before they are forgotten: somebody else has to see to these keys now.
                self._on_loss([key for key, item in lost.items() if item.replaces], error)
                self._take_out(lost)
                failure = error
        if failure is not None:
            raise failure

    def _write_some(self) -> tuple[Mapping[bytes, Waiting], Exception | None]:
        """Write some of what waits; return what Redis does not take, and why."""
        items = self._some()
        if not items:  # somebody else has written them
            return {}, None
        try:
            answers = self._connection.call_all([self._command(key, item) for key, item in items.items()])
        except TierError as error:
            with self._lock:
                return dict(self._waiting), error
        errors = {key: answer for key, answer in zip(items, answers, strict=True) if isinstance(answer, RedisError)}
        self._take_out({key: item for key, item in items.items() if key not in errors})
        if not errors:
            self._connection.note(answers[-1])
        reason = next((TierError(f"Redis: {error}") for error in errors.values()), None)
        return {key: items[key] for key in errors}, reason

    def _write_behind(self) -> None:
        self._is_asked = False
        try:
            self.flush()
        except TierError:
            pass  # it was told what is lost

    def _some(self) -> Mapping[bytes, Waiting]:
        """Return the first of those that wait: as many as go into one round trip, and one at least."""
        items: dict[bytes, Waiting] = {}
        size = 0
        with self._lock:
            for key, item in self._waiting.items():
                size += len(item.record.value)
                if items and (len(items) >= MANY_AT_ONCE or size > LARGE_AT_ONCE):
                    break
                items[key] = item
        return items

    def _take_out(self, items: Mapping[bytes, Waiting]) -> None:
        with self._lock:
            for key, item in items.items():
                if self._waiting.get(key) is item:
                    del self._waiting[key]
                    self._size -= len(item.record.value)
