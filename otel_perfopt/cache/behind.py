"""What is behind the memory of a cache: its tiers, and the codec that makes bytes of its keys and values."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from otel_perfopt._core.policies import Entry
from otel_perfopt.cache.guard import Guard
from otel_perfopt.single_flight.waiting import running_loop
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.logs import mention
from otel_perfopt.tiers import Codec, Mark, Record, Tier, Undecodable, Unencodable, encode_key

__all__ = ("Behind", "Copy")


class Copy(NamedTuple):
    """What a tier has of a key.

    Attributes:
        value: the value.
        record: the record.
        place: the number of the tier.
    """

    value: Any
    record: Record
    place: int


class Behind:
    """The tiers of one cache.

    Args:
        cache: the name of the cache.
        tiers: the tiers, the nearest first.
        codec: makes bytes of values.
        raises: whether a key or value that has no bytes is an error; otherwise it is kept in memory only.
        clock: that of the cache.
        wall: returns the time of day.
    """

    def __init__(
        self, cache: str, tiers: Sequence[Tier], codec: Codec[Any], *, raises: bool, clock: Clock, wall: Callable[[], float]
    ) -> None:
        self.guards = [Guard(cache, tier, clock) for tier in tiers]
        self.is_remote = any(tier.is_remote for tier in tiers)
        self.wall = wall
        self._cache = cache
        self._codec = codec
        self._raises = raises
        self._has_warned: set[str] = set()

    def begin(self) -> None:
        """Watch for what others invalidate; to be called before anything is kept in memory."""
        if self.is_remote and running_loop() is not None:
            event = "a synchronous call waits for a tier and blocks the event loop; use its twin, such as get_async"
            self._warn(event)
        for guard in self.guards:
            guard.begin()

    def encode_key(self, key: Hashable) -> bytes | None:
        """Return the bytes of a key; None if it is for the memory only."""
        try:
            return encode_key(key)
        except Unencodable as error:
            self._refuse(error)
            return None

    def encode(self, entry: Entry, value: Any, tags: Iterable[str], now: float) -> Record | None:
        """Return the record of an entry; None if it is for the memory only."""
        try:
            data = self._codec.encode(value)
        except Unencodable as error:
            self._refuse(error)
            return None
        wall = self.wall()
        return Record(data, wall, wall + (entry.fresh_until - now), wall + (entry.kept_until - now), tuple(tags))

    def marks(self) -> list[Mark | None]:
        """Return a mark of each tier."""
        return [guard.mark() for guard in self.guards]

    def read(self, keys: Mapping[bytes, Hashable], max_age: float = math.inf) -> tuple[dict[Hashable, Copy], list[Mark | None]]:
        """Return what the tiers have of some keys, fresh or stale, and their marks.

        Args:
            keys: the keys by their bytes.
            max_age: the age in seconds from which on the next tier is asked as well.
        """
        found: dict[Hashable, Copy] = {}
        marks: list[Mark | None] = []
        for place, guard in enumerate(self.guards):
            wanted = [data for data, key in keys.items() if not self.is_good(found.get(key), max_age)]
            answer = guard.read(wanted) if wanted else None
            marks.append(answer.mark if answer is not None else None)
            for data, record in answer.records.items() if answer is not None else ():
                copy = self._decode(record, place)
                if copy is not None and (keys[data] not in found or self.is_good(copy, max_age)):
                    found[keys[data]] = copy
        return found, marks

    def write(self, data: bytes, record: Record, marks: Sequence[Mark | None], *, replaces: bool = False) -> None:
        """Have the tiers keep a record; those whose mark is missing were away."""
        for guard, mark in zip(self.guards, marks, strict=False):
            guard.write({data: record}, mark, replaces=replaces)

    def release(self, data: bytes) -> None:
        """Let other processes load a key that was not loaded here after all."""
        for guard in self.guards:
            guard.release([data])

    def delete(self, key: Hashable) -> bool:
        """Forget a key in every tier; return whether any had it fresh."""
        data = self._known(key)
        return data is not None and bool(sum(guard.delete([data]) for guard in self.guards))

    def expire(self, key: Hashable) -> bool:
        """Make a key stale in every tier; return whether any had it fresh."""
        data = self._known(key)
        return data is not None and bool(sum(guard.expire([data]) for guard in self.guards))

    def is_good(self, copy: Copy | None, max_age: float = math.inf) -> bool:
        """Whether there is a copy that is fresh, and not too old."""
        return copy is not None and copy.record.fresh_until > self.wall() and self.age(copy.record) < max_age

    def age(self, record: Record) -> float:
        """Return the seconds since the value of a record was made."""
        return max(0.0, self.wall() - record.created)

    def date(self, entry: Entry, record: Record, now: float, refresh_after: float) -> None:
        """Tell an entry how long it still counts, as its record says."""
        wall = self.wall()
        entry.fresh_until = now + (record.fresh_until - wall)
        entry.kept_until = now + (record.kept_until - wall)
        entry.expires = min(entry.fresh_until, now + max(0.0, refresh_after - self.age(record)))

    def open_breakers(self) -> dict[str, int]:
        """Return for each kind of tier whether it is left alone for now."""
        states: dict[str, int] = {}
        for guard in self.guards:
            states[guard.tier.kind] = max(states.get(guard.tier.kind, 0), int(guard.is_open))
        return states

    def _decode(self, record: Record, place: int) -> Copy | None:
        try:
            return Copy(self._codec.decode(record.value), record, place)
        except Undecodable as error:
            if error.reason in ("signature", "damaged"):
                self._warn(f"records of a tier cannot be used ({error.reason}), and count as missing", error=error)
            return None

    def _known(self, key: Hashable) -> bytes | None:
        try:
            return encode_key(key)
        except Unencodable:
            return None  # no tier can have it

    def _refuse(self, error: Unencodable) -> None:
        if self._raises:
            raise error
        self._warn("something cannot be encoded, and is kept in memory only", error=error)

    def _warn(self, event: str, **facts: object) -> None:
        """Warn once of each kind of trouble."""
        if event not in self._has_warned:
            self._has_warned.add(event)
            mention("warning", event, cache=self._cache, **facts)
