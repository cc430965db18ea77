"""The dashboard of the pools."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.panels import frame, graph, latency, number, query, spread
from grafana.queries import DATABASES, POOLS

__all__ = ("pools",)

USED = POOLS.select("perfopt_pool_count", 'perfopt_pool_state="used"')
FULLEST = POOLS.fullest(USED, POOLS.select("perfopt_pool_max"))
USED_CONNECTIONS = DATABASES.select("db_client_connection_count", 'db_client_connection_state="used"')
FULLEST_DATABASE = DATABASES.fullest(USED_CONNECTIONS, DATABASES.select("db_client_connection_max"))
LEAKS = POOLS.select("perfopt_pool_leaks_total")
WAITING, PENDING = POOLS.select("perfopt_pool_pending_requests"), DATABASES.select("db_client_connection_pending_requests")
FAILED = 'error_type!=""'
SATURATION = (0.8, 0.95)
NOTHING = "No pool of this service has told anything yet."
NO_ACQUIRES = "Nobody acquired a resource in this time."
NO_DATABASES = 'No pool of this service has semconv="db".'


def pools() -> Dashboard:
    """Return the dashboard."""
    description = "Whether callers wait for resources, for how long, and what becomes of the resources."
    board = frame("Pools", "pools", description, POOLS, "perfopt_pool_acquires_total")
    for part in (_summary, _saturation, _latencies, _resources, _databases):
        part(board)
    return board


def _summary(board: Dashboard) -> None:
    board.with_row(Row("Do callers get what they need?"))
    board.with_panel(
        number(
            "Fullest pool",
            "The greatest share of resources in use, of any pool in any process. Near 100 % the next caller waits.",
            "percentunit",
            f"max({FULLEST} or {FULLEST_DATABASE})",
            empty="no pool yet",
            limits=SATURATION,
            width=6,
        )
    )
    board.with_panel(
        number(
            "Callers waiting",
            "Callers that wait for a resource now, over all chosen pools. Short queues are what a pool is for; lasting ones are"
            " not.",
            "none",
            f"sum({WAITING} or {PENDING})",
            empty="no pool yet",
            limits=(1, 10),
            width=6,
        )
    )
    board.with_panel(
        number(
            "Acquires",
            "Callers that got a resource, per second.",
            "reqps",
            f"sum(rate({POOLS.select('perfopt_pool_acquires_total')}[$__rate_interval]))",
            empty="no pool yet",
            width=6,
        )
    )
    board.with_panel(
        number(
            "Leaks",
            "Resources that were held for suspiciously long or dropped, in the whole time range. The log of the service names "
            "the line that acquired each. Any is a bug.",
            "none",
            f"sum(({LEAKS} unless {LEAKS} offset $__range) or increase({LEAKS}[$__range]))",
            empty="no pool yet",
            limits=(1, 1),
            width=6,
        )
    )


def _saturation(board: Dashboard) -> None:
    board.with_row(Row("Saturation"))
    board.with_panel(
        graph(
            "Use per limit",
            "Resources in use per max_size, in the process where that is greatest. If it stays near 100 % while callers wait, "
            "and what the resources stand for can take more: raise max_size. If uses became longer, see use time first.",
            "percentunit",
            query(FULLEST, POOLS.legend),
            empty=NOTHING,
            limits=SATURATION,
        )
    )
    board.with_panel(
        graph(
            "Waiting callers",
            "Callers that wait for a resource now, over all processes.",
            "short",
            query(POOLS.total("perfopt_pool_pending_requests"), POOLS.legend),
            empty=NOTHING,
        )
    )
    board.with_panel(
        graph(
            "Timeouts and refusals",
            "Callers per second that got nothing: before their deadline (timeouts), or because too many waited already "
            "(rejected, max_waiting=). Each is a failed request unless the caller handles it.",
            "ops",
            query(POOLS.rate("perfopt_pool_timeouts_total"), f"timeouts {POOLS.legend}"),
            query(POOLS.rate("perfopt_pool_rejected_total"), f"rejected {POOLS.legend}"),
            empty=NOTHING,
        )
    )


def _latencies(board: Dashboard) -> None:
    wait, use = "perfopt_pool_wait_time_seconds", "perfopt_pool_use_time_seconds"
    board.with_row(Row("Waiting and using"))
    board.with_panel(
        latency(
            "Wait time",
            "How long callers took to get a resource; next to nothing for those who did not have to wait. Exemplars lead to the"
            " trace of one that did.",
            POOLS,
            wait,
            empty=NO_ACQUIRES,
            span="acquire ${__field.labels.perfopt_pool_name}",
        )
    )
    board.with_panel(
        latency(
            "Use time",
            "How long callers kept a resource. Acquires per second times the mean of this is how many resources are needed at "
            "least.",
            POOLS,
            use,
            empty="No resource was returned in this time.",
        )
    )
    board.with_panel(
        spread(
            "Spread of wait times",
            "How many callers waited how long. A second band far up is a queue that forms at times.",
            "s",
            POOLS,
            wait,
            empty=NO_ACQUIRES,
            width=8,
        )
    )


def _resources(board: Dashboard) -> None:
    state, reason, create = "perfopt_pool_state", "perfopt_pool_destroy_reason", "perfopt_pool_create_time_seconds"
    board.with_row(Row("Resources"))
    board.with_panel(
        graph(
            "Resources by state",
            "Open resources over all processes: idle, or used, which includes those being validated or reset. Always many idle:"
            " lower min_size or idle_timeout.",
            "short",
            query(POOLS.total("perfopt_pool_count", by=state), f"{{{{{state}}}}} {POOLS.legend}"),
            empty=NOTHING,
            stacked=True,
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Created and destroyed",
            "Resources per second that were created, and destroyed by reason. Both high for the reason idle: the pool breathes "
            "too much, raise min_size or idle_timeout. For invalid: the other side closes them, lower max_lifetime.",
            "ops",
            query(POOLS.rate("perfopt_pool_created_total"), f"created {POOLS.legend}"),
            query(POOLS.rate("perfopt_pool_destroyed_total", by=reason), f"destroyed: {{{{{reason}}}}} {POOLS.legend}"),
            empty=NOTHING,
            width=6,
        )
    )
    board.with_panel(
        latency(
            "Creation time",
            "How long it took to create a resource. Callers wait for it when nothing is idle.",
            POOLS,
            create,
            empty="No resource was created in this time.",
            span="create ${__field.labels.perfopt_pool_name}",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Failed creations",
            "Creations that failed, per second, by class of error: what the resources stand for refuses or cannot be reached.",
            "ops",
            query(POOLS.rate(f"{create}_count", FAILED, by="error_type"), f"{{{{error_type}}}} {POOLS.legend}"),
            empty="No creation failed in this time.",
            width=6,
        )
    )


def _databases(board: Dashboard) -> None:
    """Pools whose states, limits and times have the names of the semantic conventions for databases."""
    pending, timeouts = "db_client_connection_pending_requests", "db_client_connection_timeouts_total"
    board.with_row(Row('Pools with the names of the database conventions (semconv="db")'))
    board.with_panel(
        graph(
            "Connections in use per limit",
            "Connections in use per max_size, in the process where that is greatest. Read it like Use per limit.",
            "percentunit",
            query(FULLEST_DATABASE, DATABASES.legend),
            empty=NO_DATABASES,
            limits=SATURATION,
        )
    )
    board.with_panel(
        graph(
            "Pending requests and timeouts",
            "Callers that wait for a connection now, and those per second that got none before their deadline.",
            "short",
            query(DATABASES.total(pending), f"waiting {DATABASES.legend}"),
            query(DATABASES.rate(timeouts), f"timeouts per second {DATABASES.legend}"),
            empty=NO_DATABASES,
        )
    )
    board.with_panel(
        latency(
            "Connection wait time",
            "How long callers took to get a connection.",
            DATABASES,
            "db_client_connection_wait_time_seconds",
            empty=NO_DATABASES,
            span="acquire ${__field.labels.db_client_connection_pool_name}",
        )
    )
