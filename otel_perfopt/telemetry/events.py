"""Events: told to subscribers at once, and handed to OpenTelemetry as log records with an event name.

The bus is a log record processor: added to a logger provider, it also tells subscribers the events of other libraries.
Subscribers may raise, emit, subscribe and cancel; nothing of that reaches whoever emitted.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry._logs import get_logger as get_otel_logger

from otel_perfopt._core.cells import Counts
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.family import Family, Series
from otel_perfopt.telemetry.logs import get_logger

__all__ = ("Event", "Subscription", "dispatch", "emit", "is_wanted", "on_subscribe", "subscribe")

MAX_DEPTH = 8
MAX_TOPICS = 1000

_depth: ContextVar[int] = ContextVar("otel_perfopt_event_depth", default=0)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        name: such as ``"cache.miss"``.
        attributes: what is known of it.
        timestamp: nanoseconds since the epoch.
        scope: the instrumentation scope that it comes from.
    """

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    timestamp: int = 0
    scope: str = names.SCOPE


class EventCounts(Counts):
    """What has become of the events of one name."""

    __slots__ = ("delivered", "emitted", "failed")

    delivered: int
    emitted: int
    failed: int


EVENTS = Family(
    names.EVENT_NAME,
    EventCounts,
    series={
        "emitted": Series(names.EVENTS_EMITTED, {}),
        "delivered": Series(names.EVENTS_DELIVERED, {}),
        "failed": Series(names.EVENTS_FAILED, {}),
    },
)


class Subscription:
    """A callback for the events of a pattern, until it is cancelled; also a context manager."""

    __slots__ = ("_cancelled", "_warned", "callback", "pattern")

    def __init__(self, pattern: str, callback: Callable[[Event], object]) -> None:
        self.pattern = pattern
        self.callback = callback
        self._warned = self._cancelled = False

    def matches(self, name: str) -> bool:
        """Whether events of this name are meant."""
        return name.startswith(self.pattern[:-1]) if self.pattern.endswith("*") else name == self.pattern

    def cancel(self) -> None:
        """Deliver nothing more; a second time does nothing."""
        self._cancelled = True
        with _lock:
            _set_subscriptions(tuple(other for other in _subscriptions if other is not self))

    def deliver(self, event: Event) -> bool:
        """Call the callback, unless it was cancelled meanwhile; return False if it raised."""
        if self._cancelled:
            return True
        try:
            self.callback(event)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a subscriber never raises into whoever emitted
            if not self._warned:
                self._warned = True
                get_logger().warning("a subscriber raised", event_name=event.name, pattern=self.pattern, exc_info=error)
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.cancel()


class _Topic:
    """The events of one name: their counts, and who wants them."""

    __slots__ = ("__weakref__", "counts", "subscriptions")

    def __init__(self, name: str) -> None:
        self.subscriptions: tuple[Subscription, ...] = ()
        self.counts = EVENTS.join(name, self)


_subscriptions: tuple[Subscription, ...] = ()
_topics: dict[str, _Topic] = {}
_lock = threading.RLock()
_logger: Logger | None = None
_subscribe_hooks: list[Callable[[Subscription], None]] = []


def on_subscribe(hook: Callable[[Subscription], None]) -> None:
    """Have `hook` told of every new subscription; whoever makes events starts when somebody wants them."""
    _subscribe_hooks.append(hook)


def subscribe(pattern: str, callback: Callable[[Event], object]) -> Subscription:
    """Have `callback` called with each event whose name matches, in the thread that emits it.

    Args:
        pattern: a name such as ``"cache.miss"``, a beginning such as ``"cache.*"``, or ``"*"`` for everything.
        callback: takes an `Event`. What it raises is logged once and goes no further.

    Returns:
        The subscription: ``cancel()`` it, or use it as a context manager.

    Raises:
        ConfigurationError: the pattern is empty, or has a star elsewhere than at its end.

    >>> with subscribe("order.*", lambda event: print(event.name, dict(event.attributes))):
    ...     emit("order.paid", {"amount": 3})
    order.paid {'amount': 3}
    """
    if not pattern or "*" in pattern[:-1]:
        raise ConfigurationError(f'pattern={pattern!r}: use a name, a beginning such as "cache.*", or "*" for everything')
    subscription = Subscription(pattern, callback)
    with _lock:
        _set_subscriptions((*_subscriptions, subscription))
    for hook in _subscribe_hooks:
        hook(subscription)
    return subscription


def emit(name: str, attributes: Mapping[str, Any] | None = None) -> None:
    """Tell subscribers and OpenTelemetry that something happened.

    Args:
        name: a static name with a namespace, such as ``"order.paid"``.
        attributes: what is known of it.

    >>> emit("order.paid", {"amount": 3})
    """
    event = Event(name, dict(attributes or {}), time.time_ns())
    topic = _topic(name)
    topic.counts.emitted += 1
    dispatch(event, topic)
    _hand_over(event, topic)


def dispatch(event: Event, topic: _Topic | None = None) -> None:
    """Tell the subscribers; events that they emit meanwhile go eight levels deep, and no deeper."""
    topic = topic or _topic(event.name)
    if not topic.subscriptions:
        return
    depth = _depth.get()
    if depth >= MAX_DEPTH:
        topic.counts.failed += 1
        return
    token = _depth.set(depth + 1)
    try:
        for subscription in topic.subscriptions:
            if subscription.deliver(event):
                topic.counts.delivered += 1
            else:
                topic.counts.failed += 1
    finally:
        _depth.reset(token)


def is_wanted(name: str) -> bool:
    """Whether anybody has subscribed to events of this name."""
    return any(subscription.matches(name) for subscription in _subscriptions)


def _hand_over(event: Event, topic: _Topic) -> None:
    global _logger
    try:
        if _logger is None:
            _logger = get_otel_logger(names.SCOPE)
        _logger.emit(
            timestamp=event.timestamp,
            event_name=event.name,
            severity_number=SeverityNumber.INFO,
            body=event.name,  # for stores that have no place for the name, such as Loki
            attributes=dict(event.attributes),
        )
    except Exception as error:  # noqa: BLE001 - processors raise through emit(), and telemetry never does
        topic.counts.failed += 1
        get_logger().warning("a log record processor raised", event_name=event.name, exc_info=error)


def _topic(name: str) -> _Topic:
    topic = _topics.get(name)
    if topic is None:
        made = _Topic(name)  # not under the lock: a finalizer that runs under the family's lock may emit, too
        with _lock:
            topic = _topics.get(name, made)
            if topic is made and len(_topics) < MAX_TOPICS:
                _topics[name] = made
            made.subscriptions = tuple(s for s in _subscriptions if s.matches(name))
    return topic


def _set_subscriptions(subscriptions: tuple[Subscription, ...]) -> None:
    """Replace the subscriptions; whoever dispatches meanwhile goes on with the old ones."""
    global _subscriptions
    _subscriptions = subscriptions
    for name, topic in _topics.items():
        topic.subscriptions = tuple(s for s in subscriptions if s.matches(name))


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


instruments.on_fork(_after_fork)
