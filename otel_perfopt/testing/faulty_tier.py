"""A tier behind faults: one that cannot be used at times, is slow, or gives what it should not give."""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from random import Random
from typing import Literal, get_args

from otel_perfopt.errors import ConfigurationError, TierError
from otel_perfopt.testing.faults import Fault, Faults
from otel_perfopt.tiers.base import Change, Found, Mark, Record, Tier, TierUsage

__all__ = ("FaultyTier", "Lie")

Lie = Literal["old", "foreign", "damaged"]

REMEMBERED = 8
"""How many records of a key can come back."""


class FaultyTier(Tier):
    """A tier whose calls meet faults: they fail with `TierError`, wait, and reads may lie.

    A lie gives a record that the key had once (old), one of another key (foreign), or one whose bytes are changed (damaged). Old
    and foreign ones are among those that went through here.

    Args:
        tier: what is behind it; the metrics call it by the same name.
        faults: what happens to which call.
        lies: which kinds of lies there are, if the faults have a `lie_rate`.

    Attributes:
        tier: what is behind it.
        faults: the faults.

    Raises:
        ConfigurationError: there is no such lie, or none at all.

    >>> from otel_perfopt.testing import DictTier
    >>> tier = FaultyTier(DictTier(), Faults(seed=1, failure_rate=0.0))
    >>> with tier.faults.outage():
    ...     tier.mark()
    Traceback (most recent call last):
    otel_perfopt.errors.TierError: fault in call 1 of mark (seed=1)
    """

    kind = "faulty"

    def __init__(self, tier: Tier, faults: Faults, *, lies: Collection[Lie] = get_args(Lie)) -> None:
        if not lies or not set(lies) <= set(get_args(Lie)):
            raise ConfigurationError(f"lies={lies!r} must be among {', '.join(map(repr, get_args(Lie)))}")
        self.tier = tier
        self.faults = faults
        self.kind = tier.kind  # type: ignore[misc]
        self.is_remote = tier.is_remote  # type: ignore[misc]
        self.is_exclusive = tier.is_exclusive
        self._lies = sorted(lies)
        self._past: dict[bytes, deque[Record]] = {}

    def __repr__(self) -> str:
        return f"<FaultyTier {self.tier!r} {self.faults!r}>"

    def read(self, keys: Sequence[bytes]) -> Found:
        """Return the records of some keys, or others."""
        fault = self._strike("read")
        found = self.tier.read(keys)
        self._remember(found.records)
        return self.faults.spoil(fault, found, partial(self._lie, fault, keys))

    def mark(self) -> Mark:
        """Return a mark for this moment."""
        self._strike("mark")
        return self.tier.mark()

    def write(self, records: Mapping[bytes, Record], mark: Mark, *, replaces: bool = False) -> None:
        """Keep records; see `Tier.write`."""
        self.tier.on_loss = self.on_loss
        self._strike("write")
        self._remember(records)
        self.tier.write(records, mark, replaces=replaces)

    def release(self, keys: Sequence[bytes]) -> None:
        """Let other processes load keys."""
        self._strike("release")
        self.tier.release(keys)

    def delete(self, keys: Sequence[bytes]) -> bool:
        """Forget keys before returning; return whether there was any fresh one."""
        self._strike("delete")
        return self.tier.delete(keys)

    def expire(self, keys: Sequence[bytes]) -> bool:
        """Make records stale before returning; return whether there was any fresh one."""
        self._strike("expire")
        return self.tier.expire(keys)

    def invalidate_tag(self, tag: str) -> None:
        """Forget all records with a tag, before returning."""
        self._strike("invalidate_tag")
        self.tier.invalidate_tag(tag)

    def clear(self) -> None:
        """Forget all records before returning."""
        self._strike("clear")
        self.tier.clear()

    def watch(self, on_change: Callable[[Change], None]) -> None:
        """Have `on_change` called for whatever other processes invalidate from now on."""
        self._strike("watch")
        self.tier.watch(on_change)

    def add_counts(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add to the figures that outlive the process, and return their sums."""
        self._strike("add_counts")
        return self.tier.add_counts(counts)

    def usage(self) -> TierUsage:
        """Return how much is in it."""
        self._strike("usage")
        return self.tier.usage()

    def flush(self) -> None:
        """Return when everything that was written before can be found by other processes."""
        self._strike("flush")
        self.tier.flush()

    def close(self) -> None:
        """Let go of what is behind it, also if the call fails."""
        try:
            self._strike("close")
        finally:
            self.tier.close()

    def _strike(self, method: str) -> Fault:
        try:
            return self.faults.strike(method)
        except TierError:
            raise
        except Exception as error:
            raise TierError(str(error)) from error

    def _remember(self, records: Mapping[bytes, Record]) -> None:
        for key, record in records.items():
            past = self._past.setdefault(key, deque(maxlen=REMEMBERED))
            if record not in past:
                past.append(record)

    def _lie(self, fault: Fault, keys: Sequence[bytes], found: Found) -> Found:
        draw = self.faults.random(fault.number)
        spoilt = {key: self._spoilt(key, found.records.get(key), draw.choice(self._lies), draw) for key in keys}
        return found._replace(records={key: record for key, record in spoilt.items() if record is not None})

    def _spoilt(self, key: bytes, record: Record | None, lie: Lie, draw: Random) -> Record | None:
        """Return what to give instead of a record: the same one if there is nothing to lie with."""
        if lie == "damaged":
            return record and record._replace(value=_damaged(record.value, draw))
        if lie == "old":
            others = [old for old in self._past.get(key, ()) if old != record]
        else:
            others = [past[-1] for other, past in list(self._past.items()) if other != key]
        return draw.choice(others) if others else record


def _damaged(value: bytes, draw: Random) -> bytes:
    """Return a value that was cut short, or has a bit the other way round."""
    if not value:
        return b"\0"
    place = draw.randrange(len(value))
    if draw.random() < 0.5:
        return value[:place]
    return value[:place] + bytes([value[place] ^ 1 << draw.randrange(8)]) + value[place + 1 :]
