"""The dashboard of the batch processors."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.panels import frame, graph, latency, number, query, spread
from grafana.queries import BATCHES

__all__ = ("batches",)

ITEMS = "perfopt_batch_items_total"
FLUSHES = "perfopt_batch_flushes_total"
DURATION = "perfopt_batch_duration_seconds"
FAILED = 'error_type!=""'
FULLEST = BATCHES.fullest(BATCHES.select("perfopt_batch_queue_size"), BATCHES.select("perfopt_batch_queue_capacity"))
SATURATION = (0.8, 0.95)
NOTHING = "No batch processor of this service has told anything yet."
NO_BATCHES = "No batch was processed in this time."


def batches() -> Dashboard:
    """Return the dashboard."""
    description = "Whether batches keep up with what is added, how large they are, and what fails."
    board = frame("Batches", "batches", description, BATCHES, FLUSHES)
    for part in (_summary, _throughput, _queue, _processing):
        part(board)
    return board


def _summary(board: Dashboard) -> None:
    items = f"sum(rate({BATCHES.select(ITEMS)}[$__rate_interval]))"
    failed = f"sum(rate({BATCHES.select(ITEMS, FAILED)}[$__rate_interval]))"
    size = "perfopt_batch_size"
    sizes = [f"sum(rate({BATCHES.select(f'{size}_{part}')}[$__rate_interval]))" for part in ("sum", "count")]
    board.with_row(Row("At a glance"))
    board.with_panel(
        number("Items", "Items per second that are done with, failed ones included.", "ops", items, empty="no items", width=6)
    )
    board.with_panel(
        number(
            "Failed items",
            "Failed items per item. See below which errors; a queue that is full makes items fail, too.",
            "percentunit",
            f"({failed} or 0 * {items}) / ({items} > 0)",
            empty="no items",
            limits=(0.01, 0.05),
            width=6,
        )
    )
    board.with_panel(
        number(
            "Items per batch",
            "The mean size of batches: by how much batching divides the calls behind it. Near 1 it gains nothing: raise "
            "batch_timeout.",
            "none",
            f"{sizes[0]} / ({sizes[1]} > 0)",
            empty="no batches",
            width=6,
        )
    )
    board.with_panel(
        number(
            "Waiting items",
            "Items that wait for a batch now.",
            "none",
            f"sum({BATCHES.select('perfopt_batch_queue_size')})",
            empty="no processor yet",
            width=6,
        )
    )


def _throughput(board: Dashboard) -> None:
    reason = "perfopt_batch_flush_reason"
    board.with_row(Row("Throughput"))
    board.with_panel(
        graph(
            "Items by processor",
            "Items per second that are done with.",
            "ops",
            query(BATCHES.rate(ITEMS), BATCHES.legend),
            empty="No item was done with in this time.",
        )
    )
    board.with_panel(
        graph(
            "Batches by reason",
            "Batches per second, by what made them due: size and weight are full batches, timeout is waiting for more in vain. "
            "Mostly timeout: batch_timeout is what callers wait for, so lower it, or raise it to get larger batches.",
            "ops",
            query(BATCHES.rate(FLUSHES, by=reason), f"{{{{{reason}}}}} {BATCHES.legend}"),
            empty=NO_BATCHES,
            stacked=True,
        )
    )
    board.with_panel(
        graph(
            "Mean batch size",
            "Items per batch.",
            "short",
            query(BATCHES.mean("perfopt_batch_size"), BATCHES.legend),
            empty=NO_BATCHES,
        )
    )


def _queue(board: Dashboard) -> None:
    board.with_row(Row("Queue"))
    board.with_panel(
        graph(
            "Queue per limit",
            "Waiting items per max_queue, in the fullest process; processors without a limit are absent. At 100 % callers wait "
            "or items fail (on_full=): the function behind is too slow, see batch duration; max_concurrent= lets more run at "
            "once.",
            "percentunit",
            query(FULLEST, BATCHES.legend),
            empty="No batch processor of this service has a limit.",
            limits=SATURATION,
        )
    )
    board.with_panel(
        graph(
            "Waiting items and batches in progress",
            "Items that wait for a batch, and batches in progress, over all processes. A queue that grows without end has no "
            "limit and will take all memory: set max_queue=.",
            "short",
            query(BATCHES.total("perfopt_batch_queue_size"), f"items {BATCHES.legend}"),
            query(BATCHES.total("perfopt_batch_in_flight"), f"batches {BATCHES.legend}"),
            empty=NOTHING,
        )
    )
    board.with_panel(
        latency(
            "Wait of the first item",
            "How long the first item of a batch waited until the batch began: what batching adds to the latency of callers at "
            "most.",
            BATCHES,
            "perfopt_batch_wait_time_seconds",
            empty=NO_BATCHES,
        )
    )


def _processing(board: Dashboard) -> None:
    board.with_row(Row("Processing"))
    board.with_panel(
        latency(
            "Batch duration",
            "How long the function took for a batch, failed ones included. Exemplars lead to the trace of one batch, which has "
            "links to everybody who added an item.",
            BATCHES,
            DURATION,
            empty=NO_BATCHES,
            span="flush ${__field.labels.perfopt_batch_name}",
        )
    )
    board.with_panel(
        graph(
            "Failed items by error",
            "Items per second that failed, by class of error. QueueFull: there was no room for them.",
            "ops",
            query(BATCHES.rate(ITEMS, FAILED, by="error_type"), f"{{{{error_type}}}} {BATCHES.legend}"),
            query(
                BATCHES.rate(f"{DURATION}_count", FAILED, by="error_type"), f"whole batches: {{{{error_type}}}} {BATCHES.legend}"
            ),
            empty="No item failed in this time.",
        )
    )
    board.with_panel(
        spread(
            "Spread of batch sizes",
            "How many batches had how many items.",
            "short",
            BATCHES,
            "perfopt_batch_size",
            empty=NO_BATCHES,
            width=8,
        )
    )
