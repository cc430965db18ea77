"""The first dashboard: one line of figures, and one graph for each question that sends you to another dashboard."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana import batches, caches, operations, pools
from grafana.panels import frame, graph, number, query
from grafana.queries import BATCHES, CACHES, OPERATIONS, POOLS, Component

__all__ = ("overview",)

ALERTS = 'ALERTS{alertname=~"Perfopt.+", alertstate="firing", job=~"$service"}'


def overview() -> Dashboard:
    """Return the dashboard."""
    board = frame("Overview", "overview", "Is anything wrong, and where to look. Each row has a dashboard of its own.", None, "")
    for part in (_summary, _caches_and_operations, _pools_and_batches):
        part(board)
    return board


def _everywhere(component: Component) -> Component:
    """Return a component that cannot be chosen here."""
    return Component(component.label)


def _summary(board: Dashboard) -> None:
    requests = f"sum(rate({_everywhere(CACHES).select(caches.REQUESTS)}[$__rate_interval]))"
    hits = f"sum(rate({_everywhere(CACHES).select(caches.REQUESTS, caches.HIT)}[$__rate_interval]))"
    calls = f"sum(rate({_everywhere(OPERATIONS).select(f'{operations.DURATION}_count')}[$__rate_interval]))"
    failed = f"sum(rate({_everywhere(OPERATIONS).select(f'{operations.DURATION}_count', operations.FAILED)}[$__rate_interval]))"
    board.with_row(Row("At a glance"))
    board.with_panel(
        number(
            "Alerts",
            "Alerts of integrations/prometheus that are firing for these services. Each has a runbook there. Without its rules "
            "in the Prometheus this is always 0.",
            "none",
            f"count({ALERTS}) or vector(0)",
            empty="no alerts",
            limits=(1, 1),
        )
    )
    board.with_panel(
        number(
            "Cache hit ratio",
            "Hits per look-up, over all caches.",
            "percentunit",
            f"{hits} / ({requests} > 0)",
            empty="no look-ups",
        )
    )
    board.with_panel(
        number(
            "Fullest pool",
            "The greatest share of resources in use, of any pool in any process. Near 100 % the next caller waits.",
            "percentunit",
            f"max({_fullest_pool()})",
            empty="no pool yet",
            limits=pools.SATURATION,
        )
    )
    board.with_panel(
        number(
            "Waiting items",
            "Items that wait for a batch now, over all processors.",
            "none",
            f"sum({_everywhere(BATCHES).select('perfopt_batch_queue_size')})",
            empty="no processor yet",
        )
    )
    board.with_panel(number("Calls", "Calls of measured functions per second.", "ops", calls, empty="no calls"))
    board.with_panel(
        number(
            "Errors",
            "Failed calls per call of measured functions.",
            "percentunit",
            f"({failed} or 0 * {calls}) / ({calls} > 0)",
            empty="no calls",
            limits=(0.01, 0.05),
        )
    )


def _caches_and_operations(board: Dashboard) -> None:
    cache, operation = _everywhere(CACHES), _everywhere(OPERATIONS)
    board.with_row(Row("Caches and operations"))
    board.with_panel(
        graph(
            "Hit ratio",
            "Hits per look-up. A cache that falls: see its dashboard for evictions, invalidations and failed loads.",
            "percentunit",
            query(cache.share(caches.REQUESTS, caches.HIT), cache.legend),
            empty=caches.NO_REQUESTS,
        )
    )
    board.with_panel(
        graph(
            "Load latency, p95",
            "95 % of loads take at most this long; what a caller waits for at a miss. Exemplars lead to traces.",
            "s",
            query(cache.quantile(0.95, caches.LOADS), cache.legend, exemplars=True),
            empty=caches.NO_LOADS,
        )
    )
    board.with_panel(
        graph(
            "Operations, p95",
            "95 % of calls take at most this long. Exemplars lead to traces.",
            "s",
            query(operation.quantile(0.95, operations.DURATION), operation.legend, exemplars=True),
            empty=operations.NO_CALLS,
        )
    )


def _pools_and_batches(board: Dashboard) -> None:
    batch = _everywhere(BATCHES)
    queue = batch.fullest(batch.select("perfopt_batch_queue_size"), batch.select("perfopt_batch_queue_capacity"))
    board.with_row(Row("Pools and batches"))
    board.with_panel(
        graph(
            "Pool use per limit",
            "Resources in use per max_size, in the process where that is greatest. Near 100 %: see the dashboard of the pools.",
            "percentunit",
            query(_fullest_pool(), POOLS.legend),
            empty=pools.NOTHING,
            limits=pools.SATURATION,
        )
    )
    board.with_panel(
        graph(
            "Batch queue per limit",
            "Waiting items per max_queue, in the fullest process; processors without a limit are absent.",
            "percentunit",
            query(queue, batch.legend),
            empty="No batch processor of this service has a limit.",
            limits=batches.SATURATION,
        )
    )
    board.with_panel(
        graph(
            "Items",
            "Items per second that batch processors are done with.",
            "ops",
            query(batch.rate(batches.ITEMS), batch.legend),
            empty="No item was done with in this time.",
        )
    )


def _fullest_pool() -> str:
    """Return the use of each pool: of this library's own and of those with the names of the database conventions."""
    pool, database = _everywhere(POOLS), "db_client_connection_pool_name"
    used = pool.select("perfopt_pool_count", 'perfopt_pool_state="used"')
    own = pool.fullest(used, pool.select("perfopt_pool_max"))
    other = Component(database)
    connections = other.select("db_client_connection_count", 'db_client_connection_state="used"')
    theirs = other.fullest(connections, other.select("db_client_connection_max"))
    return f'{own} or label_replace({theirs}, "perfopt_pool_name", "$1", "{database}", "(.*)")'
