"""How a SQLite tier notices what others have changed: it looks at the version of the file now and then."""

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial

from otel_perfopt.errors import TierError
from otel_perfopt.telemetry import background, clocks, names
from otel_perfopt.telemetry.background import NoThread
from otel_perfopt.tiers.base import Change
from otel_perfopt.tiers.sqlite_database import Database
from otel_perfopt.tiers.sqlite_history import changes_of_others

__all__ = ("Watch",)

Mark = tuple[bytes, int]

_log = logging.getLogger(names.SCOPE)


class Watch:
    """Looks for the changes of others, as long as somebody wants to know them; lives no longer than its tier.

    Args:
        database: the file.
        interval: how often to look, in seconds.
        clock: for the timer.
    """

    def __init__(self, database: Database, *, interval: float, clock: Callable[[], float]) -> None:
        self._database = database
        self._interval = interval
        self._clock = clock
        self._callbacks: tuple[Callable[[Change], None], ...] = ()
        self._position: Mark | None = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._seen: object = None
        self._is_asked = False
        self._timer = object()

    def start(self, callback: Callable[[Change], None], position: Mark | None, writer: int) -> None:
        """Tell `callback` what others than `writer` change after a mark; of None, everything has to be feared."""
        with self._lock:
            self._writer = writer
            is_first = not self._callbacks
            self._callbacks = (*self._callbacks, callback)
            if is_first:
                self._position = position
        if is_first:
            self._arm()

    def start_afresh_after_fork(self, writer: int) -> None:
        """Go on in a child, where all that others and the parent do is news."""
        self._start_afresh()
        self._writer = writer
        if self._callbacks:
            self._arm()

    def passed(self, before: Mark, after: Mark) -> None:
        """Take note of a transaction of one's own."""
        with self._lock:
            if self._position == before:
                self._position = after

    def noticed(self, mark: Mark) -> None:
        """Look soon, if somebody has come upon a change."""
        if self._callbacks and mark != self._position and not self._is_asked:
            self._is_asked = True
            try:
                background.submit(self.look)
            except NoThread:
                self._is_asked = False

    def look(self) -> None:
        """Tell what others have changed since the last time."""
        with self._looking:
            self._is_asked = False
            try:
                changes = self._changes()
            except TierError:
                return  # whoever uses the cache is told; and the next look finds what this one has not
            for change in changes:
                for callback in self._callbacks:
                    _call(callback, change)

    def _changes(self) -> list[Change]:
        version = self._database.version()
        if version == self._seen:
            return []
        with self._lock:
            meta, changes = self._database.read(changes_of_others, self._position, self._writer)
            self._position = meta.mark
        self._seen = version
        return changes

    def _arm(self) -> None:
        clocks.after(self._clock, self._interval, partial(_tick, weakref.ref(self), self._timer))

    def tick(self, timer: object) -> None:
        """Look, unless the file is closed or the timer is another process's, and come back later."""
        if timer is self._timer:
            try:
                if self._database.is_open:
                    background.submit(self.look)
            finally:
                self._arm()


def _tick(watch: "weakref.ref[Watch]", timer: object) -> None:
    found = watch()
    if found is not None:
        found.tick(timer)


def _call(callback: Callable[[Change], None], change: Change) -> None:
    try:
        callback(change)
    except BaseException:  # noqa: BLE001 - it is the cache's, and others want to be told, too
        _log.exception("a cache could not be told of a change in its file")
