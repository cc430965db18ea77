"""The instruments of the process, at whichever provider the application has or sets later.

Each name is registered once for the whole process, with one callback that reads all components: the SDK drops a second
callback of the same name without a word, and would keep alive the object behind a bound method. Histograms reach the
application's provider by a replay of what was recorded since the last collection.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from otel_perfopt.telemetry.names import METRICS, SCOPE, Metric

if TYPE_CHECKING:
    from otel_perfopt.telemetry.family import Family, Reading
    from otel_perfopt.telemetry.latency import Latency

__all__ = (
    "add_family",
    "counting_since",
    "ensure_registered",
    "hand_over",
    "latencies",
    "observe",
    "observe_all_with",
    "on_fork",
    "stop_handing_over",
)

_families: "list[Family[Any]]" = []
_registered = False
_lock = threading.RLock()


def add_family(family: "Family[Any]") -> None:
    """Let the instruments read `family`."""
    _families.append(family)


def observe(metric: Metric) -> "Iterator[Reading]":
    """Yield the present value of every series of a counter, up-down counter or gauge."""
    for family in _families:
        yield from family.observe(metric)


def latencies() -> "Iterator[tuple[Metric, Latency]]":
    """Yield every series of latencies with its metric."""
    for family in _families:
        yield from family.latencies()


def ensure_registered() -> None:
    """Create the instruments at the global meter provider, or at its stand-in until one is set; once."""
    global _registered, _global_histograms
    if _registered:
        return
    with _lock:
        if _registered:
            return
        _registered = True
    # Without the lock: somebody may hold the SDK's and wait for ours, in a finalizer that runs inside a collection.
    try:
        _global_histograms = observe_all_with(metrics.get_meter(SCOPE), replay=True)
    except Exception:
        logging.getLogger(SCOPE).exception("the metrics of otel_perfopt could not be registered")


def observe_all_with(meter: Meter, *, replay: bool) -> dict[Metric, Histogram]:
    """Create all observable instruments at `meter`, and with `replay` the histograms as well; return these."""
    observable = {
        "counter": meter.create_observable_counter,
        "up-down counter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }
    histograms = {
        metric: meter.create_histogram(
            metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.boundaries
        )
        for metric in METRICS
        if replay and metric.kind == "histogram"
    }
    rows = [metric for metric in METRICS if metric.kind != "histogram"]
    for metric in rows:
        callbacks: list[Callable[[CallbackOptions], Iterable[Observation]]] = [partial(_observations, metric)]
        if histograms and metric is rows[-1]:
            # Last of all: when a long replay runs into the SDK's time limit, the counts have been read already.
            callbacks.append(partial(_replay, histograms))
        observable[metric.kind](metric.name, callbacks, metric.unit, metric.description)
    return histograms


def hand_over(seconds: float) -> None:
    """Replay now what no collection has asked for yet, for at most so long; the global meter provider must have been set."""
    if _global_histograms:
        _replay_until(_global_histograms, time.monotonic() + seconds)


def stop_handing_over(seconds: float) -> None:
    """Let no replay go on longer than that from now; the process ends, and the rest of a collection should be exported."""
    global _end
    _end = time.monotonic() + seconds


def _observations(metric: Metric, _: CallbackOptions) -> Iterator[Observation]:
    for attributes, value in observe(metric):
        yield Observation(value, attributes)


def _replay(histograms: dict[Metric, Histogram], options: CallbackOptions) -> Iterator[Observation]:
    """Record what is new, for half of the time that the collection has; the rest comes with the next one."""
    if _replay_until(histograms, time.monotonic() + options.timeout_millis / 2000):
        time.sleep(_BEGINNING)
    return iter(())


def _replay_until(histograms: dict[Metric, Histogram], deadline: float) -> int:
    """Record what is new, and return how many durations that were."""
    if not _turn.acquire(timeout=max(0.0, min(deadline, _end) - time.monotonic())):
        return 0
    try:
        return _replay_all(histograms, deadline)
    finally:
        _turn.release()


def _replay_all(histograms: dict[Metric, Histogram], deadline: float) -> int:
    global _replay_from
    # Not the collecting thread's: a measurement must not look as if it came from there. An empty context would mean just that.
    context = trace.set_span_in_context(trace.INVALID_SPAN, Context())
    sent = 0
    series = list(latencies())
    first = _replay_from if _replay_from < len(series) else 0
    for position, (metric, latency) in enumerate((*series[first:], *series[:first]), first):
        histogram = histograms[metric]
        for value in latency.replay():
            about = latency.example(value)
            histogram.record(value, latency.attributes, context if about is None else _context_of(about))
            sent += 1
            if sent % 64 == 0:
                time.sleep(0)  # lets other threads run: a long replay would hold them up for whole switch intervals
                if time.monotonic() > min(deadline, _end):
                    _replay_from = (position + 1) % len(series)  # so that no busy series starves the others
                    return sent
    return sent


def _context_of(span: trace.SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(span), Context())


def counting_since() -> int:
    """Return when this process began to count, in nanoseconds since the epoch."""
    return _counting_since


# For Prometheus, which counts milliseconds, a series that is collected in the one in which it began has no beginning, and what it
# has by then is in no rate: the first error, say.
_BEGINNING = 0.002

_counting_since = time.time_ns()
_turn = threading.Lock()
_end = math.inf
_replay_from = 0
_global_histograms: dict[Metric, Histogram] = {}
_fork_hooks: list[Callable[[], None]] = []


def on_fork(hook: Callable[[], None]) -> None:
    """Have `hook` called in every forked child, after the counts are reset."""
    _fork_hooks.append(hook)


def _after_fork() -> None:
    global _lock, _turn, _end, _counting_since
    _counting_since = time.time_ns()
    _lock, _turn, _end = threading.RLock(), threading.Lock(), math.inf
    for family in _families:
        family.reset_after_fork()
    for hook in _fork_hooks:
        hook()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
