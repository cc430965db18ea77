"""The memory of a cache and the tiers behind it, kept in step: what is invalidated in one is not found in another."""

import math
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from typing_extensions import override

from otel_perfopt._core.flight import Loaded, Outcome
from otel_perfopt._core.policies import Entry
from otel_perfopt.cache.load import Load, Request
from otel_perfopt.cache.loading import Loading
from otel_perfopt.cache.terms import Terms
from otel_perfopt.durations import Duration
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.single_flight.job import Job
from otel_perfopt.telemetry import lifecycle, names
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.telemetry.caches import CACHES, tell_found
from otel_perfopt.telemetry.family import Gauges, Tally
from otel_perfopt.unset import Unset

if TYPE_CHECKING:
    from otel_perfopt.cache.behind import Behind, Copy
    from otel_perfopt.cache.figures import LifetimeFigures
    from otel_perfopt.cache.guard import Guard
    from otel_perfopt.tiers import Change, Tier

__all__ = ("Tiered",)

FOLDER = ".worktrees/.cache"
_GAUGES: Gauges = {names.CACHE_BREAKER_OPEN: lambda behind: behind.open_breakers()}


class Tiered(Loading):
    """A memory tier with others behind it, or without.

    Args: see `Cache`.
    """

    def __init__(
        self,
        name: str,
        *,
        tiers: "Sequence[Tier]",
        persist: bool | str | Path,
        codec: Any,
        value_type: Any,
        unencodable: str,
        wall_clock: Any,
        **options: Any,
    ) -> None:
        self._behind: Behind | None = None
        super().__init__(name, **options)
        self._encoded: dict[bytes, Hashable] = {}
        self._found_behind: dict[str, int] = {}
        self._told_behind: dict[str, Tally] = {}  # the same, under the name of the cache
        self._figures: LifetimeFigures | None = None
        self._others_changes = 0
        behind = _behind(self, tiers, persist, codec, value_type, unencodable, wall_clock)
        if behind is not None:
            self._behind = behind
            self._has_more = True
            self._figures = _lifetime_figures(self)
            CACHES.join(name, behind, _GAUGES)
            for place, guard in enumerate(behind.guards):
                self._found_behind.setdefault(guard.tier.kind, 0)
                hit = {names.CACHE_RESULT: "hit", names.CACHE_TIER: guard.tier.kind}
                self._told_behind[guard.tier.kind] = CACHES.tally(name, names.CACHE_REQUESTS, hit)
                guard.watch(partial(_heed, weakref.ref(self), place))
            _live.add(self)

    def _data_of(self, key: Hashable) -> bytes | None:
        """Return the bytes of a key for the tiers behind; None if it is for the memory only."""
        return None if self._behind is None else self._behind.encode_key(key)

    @override
    def _look_behind(self, loads: Sequence[Load]) -> Mapping[Hashable, Loaded]:
        behind = self._behind
        if behind is None:
            return {}
        behind.begin()
        begin = time.time_ns()
        keys: dict[bytes, Hashable] = {}
        for load in loads:
            data = load.terms.data = load.terms.data or behind.encode_key(load.key)
            if data is not None:
                keys[data] = load.key
        self._remember(keys)
        max_age = self._lifetimes.refresh_after if any(load.is_refresh for load in loads) else math.inf
        copies, marks = behind.read(keys, max_age)
        found: dict[Hashable, Loaded] = {}
        for load in loads:
            load.terms.marks = marks
            copy = copies.get(load.key)
            if copy is not None and behind.is_good(copy, max_age):
                load.terms.copy = copy
                load.terms.added += copy.record.tags
                found[load.key] = Loaded(copy.value, behind.guards[copy.place].tier.kind)
            elif copy is not None and self._lifetimes.stale_for:
                self._keep_stale(load, copy)
        if found:
            tell_found(self.name, next(iter(found.values())).source, begin)
        return found

    @override
    async def _look_behind_async(self, loads: Sequence[Load]) -> Mapping[Hashable, Loaded]:
        if self._behind is None or not self._behind.is_remote:
            return self._look_behind(loads)
        found: Mapping[Hashable, Loaded] = await self._beside_the_loop(partial(self._look_behind, loads))
        return found

    @override
    def _finish(self, load: Load, outcome: Outcome, prepared: Any = None) -> Outcome:
        try:
            return super()._finish(load, outcome, prepared)
        finally:
            terms = load.terms
            if self._behind is not None and terms.data is not None and terms.marks and terms.copy is None:
                self._behind.release(terms.data)
            del load, outcome, prepared  # see `SingleFlight`

    def _keep_stale(self, load: Load, copy: "Copy") -> None:
        """Keep what a tier has of a key in memory, for as long as nothing better is to be had."""
        with self._lock:
            tags = self._tags.find(copy.record.tags)
        terms = Terms(load.terms.ttl, load.terms.group, tags, load.terms.born, copy=copy)
        entry = self._entry(load.key, copy.value, terms)
        with self._lock:
            garbage = None if load.grounded or self._find(load.key) is not None else self._put(entry)
        del garbage

    @override
    def _entry(self, key: Hashable, value: Any, terms: Terms) -> Entry:
        entry = super()._entry(key, value, terms)
        if terms.copy is not None and self._behind is not None:
            self._behind.date(entry, terms.copy.record, self.clock(), self._lifetimes.refresh_after)
        return entry

    @override
    def _to_keep(self, entry: Entry, terms: Terms, *, replaces: bool = False) -> Any:
        behind, data = self._behind, terms.data
        if behind is None or data is None:
            return super()._to_keep(entry, terms)
        marks = list(terms.marks)
        if terms.copy is not None:  # the tiers in front of it lack it
            marks = marks[: terms.copy.place]
        if not marks:
            return super()._to_keep(entry, terms)
        tags = tuple(tag.name for tag in terms.tags)
        copied = terms.copy and terms.copy.record._replace(tags=tags)
        record = copied or behind.encode(entry, entry.value, tags, self.clock())
        if record is None:
            if replaces:  # what the tiers have is older
                behind.delete(entry.key)
            return super()._to_keep(entry, terms)
        write = partial(behind.write, data, record, marks, replaces=replaces)
        return partial(self._put_everywhere, entry, terms, write)

    def _put_everywhere(self, entry: Entry, terms: Terms, write: Any) -> object:
        """Keep an entry in memory and have it written, under the lock, so that all tiers see the same order."""
        garbage = self._put(entry)
        if entry.is_valid():
            write()
            terms.marks = ()
        return garbage

    @override
    def _settle(self, request: Request, outcome: Outcome, *, at_once: bool) -> Outcome:
        source = outcome.source if isinstance(outcome, Loaded) else None
        if source in self._found_behind:
            self._found_behind[source] += 1
            self._told_behind[source].n += 1
            self._hot.other(request.key)
            return outcome
        return super()._settle(request, outcome, at_once=at_once)

    # changes --------------------------------------------------------------------------------------------

    def _set(self, key: Hashable, value: Any, ttl: Duration | Unset | None, tags: tuple[str, ...]) -> None:
        terms, before = self._terms(ttl, tags), self._others_changes
        if self._behind is not None:
            self._behind.begin()
            terms.data, terms.marks = self._behind.encode_key(key), self._behind.marks()
        keep = self._to_keep(self._entry(key, value, terms), terms, replaces=True)
        with self._lock:
            self._flights.ground(key)
            if terms.data is not None:
                self._remember({terms.data: key})
            garbage = keep()
            if self._others_changes != before and terms.data is not None and None not in terms.marks:
                # Others may have changed this key meanwhile; whose value stays, the tiers know.
                garbage = garbage, self._forget_key(key)
        del garbage  # without the lock: dropping values may run user code

    def _delete(self, key: Hashable) -> bool:
        # The tiers first: whoever finds the key there afterwards in memory has begun before, and is forbidden to store it.
        found = self._behind is not None and self._behind.delete(key)
        with self._lock:
            self._counts.deletes += 1
            found = self._fresh(key) is not None or found
            garbage = self._forget_key(key)
        del garbage
        return found

    def _expire(self, key: Hashable) -> bool:
        found = self._behind is not None and self._behind.expire(key)
        with self._lock:
            self._counts.expiries += 1
            entry = self._fresh(key)
            failure = self._failures.forget(key)
            if entry is not None:
                entry.make_stale()
                entry.kept_until = min(entry.kept_until, self.clock() + self._lifetimes.stale_for)
        del failure
        return found or entry is not None

    def _invalidate_tag(self, tag: str) -> None:
        for guard in self._guards:
            guard.invalidate_tag(tag)
        with self._lock:
            self._counts.tag_invalidations += 1
            self._tags.invalidate(tag)

    def _clear(self) -> None:
        for guard in self._guards:
            guard.clear()
        self._counts.clears += 1
        self._forget_everything()

    def _flush(self) -> None:
        for guard in self._guards:
            guard.flush()

    def _close(self) -> None:
        if self._figures is not None:
            self._figures.save()
        for guard in self._guards:
            guard.close()
        if self._guards:  # nobody tells any more what others invalidate
            self._forget_everything()

    async def _beside_the_loop(self, change: Callable[[], Any]) -> Any:
        """Make a change in a worker if it has to wait for a file or a network."""
        if self._behind is None:
            return change()
        try:
            outcome = await Job(change).outcome()
        except NoThread:  # the process ends
            return change()
        if isinstance(outcome, Loaded):
            return outcome.value
        raise outcome.error or RuntimeError("the change was interrupted")

    @property
    def _guards(self) -> "Sequence[Guard]":
        return () if self._behind is None else self._behind.guards

    def _remember(self, keys: Mapping[bytes, Hashable]) -> None:
        """Note which keys their bytes stand for, as long as they are in memory or about to come there."""
        with self._lock:
            self._encoded.update(keys)
            if len(self._encoded) > 2 * len(self._store) + 1000:
                self._encoded = {
                    data: key
                    for data, key in self._encoded.items()
                    if key in self._store.entries or self._flights.find(key) is not None or data in keys
                }

    def _forget_key(self, key: Hashable) -> object:
        """Forget a key in memory and forbid its load to store, under the lock; the caller drops what it returns without it."""
        self._flights.ground(key)
        return self._change(partial(self._store.discard, key)), self._failures.forget(key), self._hot.discard(key)

    def _forget_everything(self) -> None:
        """Forget everything in memory."""
        with self._lock:
            self._flights.ground_all()
            cleared, *garbage = self._change(self._forget_all)
            failures = self._failures.clear()
            self._encoded.clear()
        del failures, garbage  # without the lock: dropping values may run user code
        if cleared is not None:
            cleared.let_go()

    def _counted(self) -> dict[str, int]:
        counts = self._counts
        return {
            "hits": counts.hits + sum(self._found_behind.values()),
            "misses": counts.misses,
            "stale": counts.stale,
            "evictions": counts.evicted_capacity + counts.evicted_weight + counts.evicted_expired,
        }

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._found_behind = dict.fromkeys(self._found_behind, 0)
        if self._figures is not None:
            self._figures.reset_after_fork()
        for guard in self._guards:
            guard.reset_after_fork()


def _behind(
    cache: Tiered,
    tiers: "Sequence[Tier]",
    persist: Any,
    codec: Any,
    value_type: Any,
    unencodable: str,
    wall_clock: Any,
) -> "Behind | None":
    if unencodable not in ("raise", "memory"):
        raise ConfigurationError(f"unencodable={unencodable!r} must be 'raise', or 'memory' to keep such values in memory only")
    if not tiers and persist is False:
        given = "codec" if codec is not None else "value_type" if value_type is not None else None
        if given:
            raise ConfigurationError(f"{given}= has no effect without a tier behind the memory: give tiers= or persist=")
        return None
    from otel_perfopt.cache.behind import Behind  # noqa: PLC0415 - most caches are in memory only
    from otel_perfopt.tiers import Codec, SQLiteTier  # noqa: PLC0415

    if codec is not None and value_type is not None:
        raise ConfigurationError("value_type= belongs to the codec if codec= is given: Codec(value_type, ...)")
    if persist is True:
        tiers = [*tiers, SQLiteTier(Path(FOLDER, f"{quote(cache.name, safe=' ')}.db"), gitignore=True, clock=wall_clock)]
    elif persist is not False:
        tiers = [*tiers, SQLiteTier(persist, clock=wall_clock)]
    codec = Codec(value_type) if codec is None else codec
    return Behind(cache.name, tiers, codec, raises=unencodable == "raise", clock=cache.clock, wall=wall_clock)


def _lifetime_figures(cache: Tiered) -> "LifetimeFigures":
    from otel_perfopt.cache.figures import LifetimeFigures  # noqa: PLC0415

    myself = weakref.ref(cache)

    def count() -> Mapping[str, int]:
        found = myself()
        return {} if found is None else found._counted()

    return LifetimeFigures(cache._guards[-1], count)


def _heed(reference: "weakref.ref[Tiered]", place: int, change: "Change") -> None:
    """Forget in memory, and in the tiers in front of that which tells it, what another process has invalidated."""
    cache = reference()
    if cache is None:
        return
    for guard in cache._guards[:place]:
        if change.key is not None:
            guard.delete([change.key])
        elif change.tag is not None:
            guard.invalidate_tag(change.tag)
        else:
            guard.clear()
    if change.key is None and change.tag is None:
        cache._others_changes += 1
        cache._forget_everything()
        return
    garbage: object = None
    with cache._lock:
        cache._others_changes += 1
        if change.tag is not None:
            cache._tags.invalidate(change.tag)
        elif change.key in cache._encoded:
            garbage = cache._forget_key(cache._encoded[change.key])
    del garbage  # without the lock: dropping values may run user code


_live: "weakref.WeakSet[Tiered]" = weakref.WeakSet()


def _save_all(_seconds: float) -> None:
    for cache in list(_live):
        if cache._figures is not None:
            cache._figures.save()


lifecycle.before_exit(_save_all)
