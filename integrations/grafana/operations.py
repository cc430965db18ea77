"""The dashboard of measured operations, and of lazy loads and events."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.panels import frame, graph, latency, number, query, spread
from grafana.queries import EVENTS, LAZY, OPERATIONS

__all__ = ("operations",)

DURATION = "perfopt_operation_duration_seconds"
LAZY_LOAD = "perfopt_lazy_load_duration_seconds"
FAILED = 'error_type!=""'
NO_CALLS = "No measured function was called in this time."


def operations() -> Dashboard:
    """Return the dashboard."""
    description = "Rate, errors and durations of measured functions; what was loaded lazily; what events told."
    board = frame("Operations", "operations", description, OPERATIONS, f"{DURATION}_count")
    for part in (_summary, _red, _more, _lazy, _events):
        part(board)
    return board


def _summary(board: Dashboard) -> None:
    calls = f"sum(rate({OPERATIONS.select(f'{DURATION}_count')}[$__rate_interval]))"
    failed = f"sum(rate({OPERATIONS.select(f'{DURATION}_count', FAILED)}[$__rate_interval]))"
    seconds = f"sum(rate({OPERATIONS.select(f'{DURATION}_sum')}[$__rate_interval]))"
    board.with_row(Row("At a glance"))
    board.with_panel(number("Calls", "Calls of measured functions per second.", "ops", calls, empty="no calls", width=8))
    board.with_panel(
        number(
            "Errors",
            "Failed calls per call. The alerts compare this with the objective of each operation.",
            "percentunit",
            f"({failed} or 0 * {calls}) / ({calls} > 0)",
            empty="no calls",
            limits=(0.01, 0.05),
            width=8,
        )
    )
    board.with_panel(
        number(
            "Mean duration",
            "Seconds per call. A mean hides the slow ones: see the percentiles.",
            "s",
            f"{seconds} / ({calls} > 0)",
            empty="no calls",
            width=8,
        )
    )


def _red(board: Dashboard) -> None:
    board.with_row(Row("Rate, errors, duration"))
    board.with_panel(
        graph(
            "Calls by operation",
            "Calls per second.",
            "ops",
            query(OPERATIONS.rate(f"{DURATION}_count"), OPERATIONS.legend),
            empty=NO_CALLS,
        )
    )
    board.with_panel(
        graph(
            "Errors by operation",
            "Failed calls per call.",
            "percentunit",
            query(OPERATIONS.share(f"{DURATION}_count", FAILED), OPERATIONS.legend),
            empty=NO_CALLS,
            limits=(0.01, 0.05),
        )
    )
    board.with_panel(
        latency(
            "Duration",
            "How long calls took, failed ones included. Exemplars lead to the trace of one call: see there which part is slow.",
            OPERATIONS,
            DURATION,
            empty=NO_CALLS,
            span="${__field.labels.perfopt_operation_name}",
        )
    )


def _more(board: Dashboard) -> None:
    board.with_row(Row("Where the time goes, and what fails"))
    board.with_panel(
        graph(
            "Time in operations",
            "Seconds spent in an operation per second: how many calls of it are under way on average. The highest is what is "
            "worth optimising first. Operations that call each other count twice.",
            "short",
            query(OPERATIONS.rate(f"{DURATION}_sum"), OPERATIONS.legend),
            empty=NO_CALLS,
            width=6,
        )
    )
    board.with_panel(
        spread(
            "Spread of durations",
            "How many calls took how long, over all chosen operations. Choose one above to see its own.",
            "s",
            OPERATIONS,
            DURATION,
            empty=NO_CALLS,
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Failed calls by error",
            "Failed calls per second, by class of error.",
            "ops",
            query(OPERATIONS.rate(f"{DURATION}_count", FAILED, by="error_type"), f"{{{{error_type}}}} {OPERATIONS.legend}"),
            empty="No call failed in this time.",
            width=6,
        )
    )
    memory = graph(
        "Memory per call",
        "Mean change of the process's resident memory over the last 100 calls (track_memory=True), in the process where it is "
        "greatest. A function that never falls to 0 keeps something.",
        "bytes",
        query(
            f"max by ({OPERATIONS.by}) ({OPERATIONS.select('perfopt_operation_memory_delta_bytes')})",
            OPERATIONS.legend,
        ),
        empty="No measured function of this service has track_memory=True.",
        width=6,
    )
    board.with_panel(memory)


def _lazy(board: Dashboard) -> None:
    board.with_row(Row("Lazy loads"))
    board.with_panel(
        graph(
            "Lazy loads so far",
            "How often each value was loaded, by all processes of the moment since they began. More than once per process: it "
            "has a ttl, was reset, or failed.",
            "short",
            query(LAZY.total(f"{LAZY_LOAD}_count"), LAZY.legend),
            empty="Nothing was loaded lazily yet.",
        )
    )
    board.with_panel(
        latency(
            "Lazy load duration",
            "How long loads took. The first caller of each process waits for it, and all who come meanwhile.",
            LAZY,
            LAZY_LOAD,
            empty="Nothing was loaded lazily in this time.",
            span="load ${__field.labels.perfopt_lazy_name}",
        )
    )
    board.with_panel(
        graph(
            "Failed lazy loads",
            "Failed loads per second, by class of error. The error is kept until reset() unless error_ttl= says otherwise.",
            "ops",
            query(LAZY.rate(f"{LAZY_LOAD}_count", FAILED, by="error_type"), f"{{{{error_type}}}} {LAZY.legend}"),
            empty="No lazy load failed in this time.",
        )
    )


def _events(board: Dashboard) -> None:
    board.with_row(Row("Events"))
    board.with_panel(
        graph(
            "Events",
            "Events emitted per second; an aggregated one counts once.",
            "ops",
            query(EVENTS.rate("perfopt_events_emitted_total"), EVENTS.legend),
            empty="No event was emitted yet.",
            width=12,
        )
    )
    board.with_panel(
        graph(
            "Subscribers",
            "Calls of subscribers per second that returned (delivered) or raised (failed). Failures are in the log of the "
            "service, and disturb nobody else.",
            "ops",
            query(EVENTS.rate("perfopt_events_delivered_total"), f"delivered {EVENTS.legend}"),
            query(EVENTS.rate("perfopt_events_failed_total"), f"failed {EVENTS.legend}"),
            empty="Nobody has subscribed to any event.",
            width=12,
        )
    )
