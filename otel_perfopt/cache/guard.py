"""A tier whose failures are nobody's: counted, told once, left alone for a while, and made up for."""

import math
import random
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from otel_perfopt._core.backoff import Backoff
from otel_perfopt._core.breaker import Breaker
from otel_perfopt.cache.recovery import recover_soon
from otel_perfopt.telemetry import background, clocks, lifecycle, names
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.telemetry.caches import CACHES
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.logs import mention
from otel_perfopt.tiers import Change, Found, Mark, Record, Tier

__all__ = ("Guard",)

T = TypeVar("T")

FAILURES = 3
BACKOFF = Backoff(first=1.0, limit=5.0)
MAX_OWED = 10_000
QUIET = 60.0  # seconds until it is told again that the tier fails


class Guard:
    """One tier of one cache.

    What could not be invalidated, because the tier was away, is owed to it, and is made up for before anything is read from it
    again. So is what others have invalidated before they could be watched. A tier that is away, or is owed something, is tried
    again in the background, whether or not anybody asks for it.

    Args:
        cache: the name of the cache.
        tier: the tier.
        clock: that of the cache.
    """

    def __init__(self, cache: str, tier: Tier, clock: Clock) -> None:
        self.tier = tier
        self._cache = cache
        self._clock = clock
        self._breaker = Breaker(threshold=FAILURES, backoff=BACKOFF)
        self._start_afresh()
        self._owed: dict[Change, object] = {}  # each with a mark of its own, which another one replaces when it is owed again
        self._is_away = False
        self._quiet_until = -math.inf
        self._on_change: Callable[[Change], None] | None = None
        self._has_failed = False
        self._is_watching = True
        self._is_armed = False
        self._is_closed = False
        tier.on_loss = partial(_note_loss, weakref.ref(self))
        _live.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        # Another one, because it is held while the tier is asked, and what is owed is noted under the lock of the cache.
        self._settling = threading.RLock()

    @property
    def is_open(self) -> bool:
        """Whether the tier is left alone for now."""
        return self._breaker.is_open

    def read(self, keys: Sequence[bytes]) -> Found | None:
        """Return what the tier has; None if it is away."""
        return self._try(self.tier.read, keys)

    def mark(self) -> Mark | None:
        """Return a mark for this moment; None if the tier is away."""
        return self._try(self.tier.mark)

    def write(self, records: Mapping[bytes, Record], mark: Mark | None, *, replaces: bool) -> None:
        """Have the tier keep records, or at least forget what it has, if they were set; without a mark, it was away.

        For callers who hold the lock of the cache: what is counted and logged comes later, because that takes other locks.
        """
        is_taken = False
        if mark is not None and not self._breaker.is_open:
            try:
                self.tier.write(records, mark, replaces=replaces)
                is_taken = True
            except Exception as error:  # noqa: BLE001 - the cache goes on without it
                self._note(error, _tell_later)
        if replaces and not is_taken:
            self._owe(keys=records)

    def release(self, keys: Sequence[bytes]) -> None:
        """Let other processes load what was not loaded here after all."""
        if self.tier.is_exclusive:
            _tell_later(partial(self._try, self.tier.release, keys))

    def delete(self, keys: Sequence[bytes]) -> bool:
        """Forget keys; return whether there was a fresh one."""
        found = self._try(self.tier.delete, keys)
        if found is None:
            self._owe(keys=keys)
        return bool(found)

    def expire(self, keys: Sequence[bytes]) -> bool:
        """Make records stale; return whether there was a fresh one."""
        found = self._try(self.tier.expire, keys)
        if found is None:
            self._owe(keys=keys)
        return bool(found)

    def invalidate_tag(self, tag: str) -> None:
        """Forget everything with a tag."""
        if self._try(lambda: self.tier.invalidate_tag(tag) or True) is None:
            self._owe(tags=[tag])

    def clear(self) -> None:
        """Forget everything."""
        if self._try(lambda: self.tier.clear() or True) is None:
            self._owe(everything=True)

    def add_counts(self, counts: Mapping[str, int]) -> Mapping[str, int] | None:
        """Add to the figures that outlive the process, and return their sums; None if the tier is away."""
        return self._try(self.tier.add_counts, counts)

    def watch(self, on_change: Callable[[Change], None]) -> None:
        """Have `on_change` called for whatever others invalidate, from `begin` on."""
        self._on_change = on_change
        self._is_watching = False

    def begin(self) -> None:
        """Watch, if nobody does yet; to be called before anything is kept anywhere."""
        if not self._is_watching:
            self._try(_nothing)

    def flush(self) -> None:
        """Return when the tier has everything."""
        self._try(self.tier.flush)

    def close(self) -> None:
        """Flush and close the tier, also if it is away; nothing in the background opens it again."""
        self.make_last_attempt()
        self._is_closed = True
        try:
            self.tier.close()
        except Exception as error:  # noqa: BLE001 - as for every call
            self._note(error, _tell_now)

    def make_last_attempt(self) -> None:
        """Make up for what is owed, also if the tier seems to be away; afterwards nobody will."""
        if self._is_owing:
            with suppress(Exception):
                self._pay()

    def _try(self, call: Callable[..., T], *args: Any) -> T | None:
        """Call the tier, unless it is away; None if it is, or fails."""
        self._is_closed = False
        if not self._breaker.allows(self._clock()):
            return None
        try:
            self._pay()
            self._watch()
            result = call(*args)
        except Exception as error:  # noqa: BLE001 - the cache goes on without it
            self._note(error, _tell_now)
            return None
        self._breaker.succeeded()
        if self._is_away:
            self._is_away = False
            mention("info", "a tier of a cache works again", cache=self._cache, tier=self.tier.kind)
        return result

    def _note(self, error: Exception, tell: Callable[[Callable[[], None]], None]) -> None:
        now = self._clock()
        self._breaker.failed(now, spread=random.random())  # noqa: S311
        self._has_failed = True
        is_new = not self._is_away and now >= self._quiet_until
        if is_new:  # not each time that only some of its calls fail
            self._is_away, self._quiet_until = True, now + QUIET
        tell(partial(self._tell_failure, error, is_new=is_new))
        self._arm()

    def _arm(self) -> None:
        """Have the tier tried again, unless that is arranged already."""
        if not self._is_to_be_tried or self._is_armed:
            return
        self._is_armed = True  # in one step with the question: of two timers, each would set another one
        try:
            delay = self._breaker.wait(self._clock()) or BACKOFF.first
            clocks.after(self._clock, delay, partial(recover_soon, weakref.ref(self)))
        except NoThread:
            self._is_armed = False  # the process ends

    def recover(self) -> None:
        """Find out whether the tier is there again, and make up for what it is owed."""
        self._is_armed = False
        if self._is_to_be_tried:
            self._try(self.tier.mark)
            self._arm()

    def try_later(self) -> None:
        """Set another timer; there was no thread when the last one had run out."""
        self._is_armed = False
        self._arm()

    @property
    def _is_to_be_tried(self) -> bool:
        """Whether the tier must not be left alone until somebody asks for something."""
        is_needed = self._is_owing or self._breaker.is_open or (self._has_failed and not self._is_watching)
        return is_needed and not self._is_closed

    def _tell_failure(self, error: Exception, *, is_new: bool) -> None:
        attributes = {names.CACHE_TIER: self.tier.kind, names.ERROR_TYPE: names.error_type(error)}
        CACHES.tally(self._cache, names.CACHE_TIER_ERRORS, attributes).n += 1
        if is_new:
            event = "a tier of a cache fails; the cache goes on without it"
            mention("warning", event, cache=self._cache, tier=self.tier.kind, error=error)

    def _owe(
        self, *, keys: Sequence[bytes] | Mapping[bytes, Any] = (), tags: Sequence[str] = (), everything: bool = False
    ) -> None:
        with self._lock:
            self._owed.update((Change(key=key), object()) for key in keys)
            self._owed.update((Change(tag=tag), object()) for tag in tags)
            if everything or len(self._owed) > MAX_OWED:
                self._owed = {Change(): object()}
        self._arm()

    @property
    def _is_owing(self) -> bool:
        return bool(self._owed)

    def _pay(self) -> None:
        """Do what could not be done while the tier was away."""
        if not self._owed:
            return
        with self._settling:  # nobody reads before it is done
            with self._lock:
                owed = dict(self._owed)
            if Change() in owed:
                self.tier.clear()
            for tag in [change.tag for change in owed if change.tag is not None]:
                self.tier.invalidate_tag(tag)
            if keys := [change.key for change in owed if change.key is not None]:
                self.tier.delete(keys)
            with self._lock:
                for change, mark in owed.items():
                    if self._owed.get(change) is mark:
                        del self._owed[change]

    def _watch(self) -> None:
        """Begin to watch; if that is late, others may have invalidated anything."""
        if self._is_watching or self._on_change is None:
            return
        with self._settling:
            is_first = not self._is_watching
            if is_first:
                self.tier.watch(self._on_change)
                self._is_watching = True
        if is_first and self._has_failed:
            self._on_change(Change())  # without the lock: it takes that of the cache

    def reset_after_fork(self) -> None:
        """Start with fresh locks, and without the parent's timer."""
        self._start_afresh()
        self._is_armed = False
        self._arm()


def _nothing() -> None:
    """Do nothing, but whatever has to be done before."""


def _tell_now(tell: Callable[[], None]) -> None:
    tell()


def _tell_later(tell: Callable[[], None]) -> None:
    with suppress(NoThread):  # the process ends
        background.submit(tell)


def _note_loss(reference: "weakref.ref[Guard]", keys: Sequence[bytes], error: Exception) -> None:
    """Take note that a tier could not keep what it had taken; what it has of the keys that were set is older."""
    guard = reference()
    if guard is not None:
        guard._note(error, _tell_now)
        guard._owe(keys=keys)


def _make_last_attempts(_seconds: float) -> None:
    for guard in list(_live):
        guard.make_last_attempt()


_live: "weakref.WeakSet[Guard]" = weakref.WeakSet()
lifecycle.before_exit(_make_last_attempts)
