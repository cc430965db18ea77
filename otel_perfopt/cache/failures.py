"""Loads that have failed, remembered so that they are not tried again at once."""

from collections.abc import Hashable
from itertools import islice

from otel_perfopt._core.flight import Failed
from otel_perfopt._core.policies import Entry
from otel_perfopt.cache.lifetimes import Lifetimes
from otel_perfopt.cache.terms import Terms

__all__ = ("Failures",)

MAX_FAILURES = 1000


class Failures:
    """The failures of one cache, by key, the latest 1,000; it is invalidated together with the entries, by key, tag or owner.

    A failure counts for `error_ttl`, in which it is raised again. Where a stale value can be served in its place, it counts for
    `RETRY_AFTER` at least. Every method but `entry` wants the lock of the cache; all of them may be interrupted at any line by
    a finalizer that comes back here, so that there is nothing but one dict, oldest first.

    Args:
        lifetimes: those of the cache.
    """

    def __init__(self, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self._entries: dict[Hashable, Entry] = {}

    def entry(self, key: Hashable, failed: Failed, terms: Terms, now: float) -> Entry:
        """Return what to `keep` of a load that has failed; its traceback, which knows a lot, only if it is raised again."""
        entry = terms.entry(key, failed if self._lifetimes.error_ttl else None, 1.0)
        entry.expires = entry.fresh_until = now + self._lifetimes.error_ttl
        entry.kept_until = max(entry.fresh_until, self._lifetimes.put_off(now))
        return entry

    def keep(self, entry: Entry, now: float) -> object:
        """Remember a failure, and return what has to be dropped without the lock."""
        replaced = self.forget(entry.key)
        if entry.group is not None:
            entry.group.add(entry)
        self._entries[entry.key] = entry
        oldest = list(islice(self._entries.values(), 2))  # two for one, so that they become fewer
        return entry, replaced, [self.forget(old.key) for old in oldest if self._is_over(old, now)]

    def _is_over(self, entry: Entry, now: float) -> bool:
        return entry.kept_until <= now or len(self._entries) > MAX_FAILURES

    def find(self, key: Hashable, now: float, *, has_stale: bool) -> Entry | None:
        """Return the failure that counts now.

        Args:
            key: the key.
            now: what the clock of the cache shows.
            has_stale: whether there is a stale value to serve in its place.
        """
        entry = self._entries.get(key)
        if entry is None or not entry.is_valid() or (entry.kept_until if has_stale else entry.fresh_until) <= now:
            return None
        return entry

    def forget(self, key: Hashable) -> object:
        """Forget the failure of a key, and return what has to be dropped without the lock."""
        entry = self._entries.pop(key, None) if self._entries else None
        if entry is not None and entry.group is not None:
            entry.group.discard(entry)
        return entry

    def clear(self) -> object:
        """Forget all failures, and return what has to be dropped without the lock."""
        old, self._entries = self._entries, {}
        return old
