"""The dashboard of the caches."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.panels import frame, graph, latency, number, query, spread, states
from grafana.queries import CACHES

__all__ = ("caches",)

REQUESTS = "perfopt_cache_requests_total"
LOADS = "perfopt_cache_load_duration_seconds"
HIT = 'perfopt_cache_result="hit"'
NO_REQUESTS = "No look-ups in this time: nobody asked a cache of this service, or its metrics do not arrive."
NO_LOADS = "No loads in this time: everything was answered from a cache, or nobody asked."


def caches() -> Dashboard:
    """Return the dashboard."""
    board = frame("Caches", "caches", "Whether each cache is worth its memory, and what its misses cost.", CACHES, REQUESTS)
    for part in (_benefit, _loads, _memory, _tiers):
        part(board)
    return board


def _benefit(board: Dashboard) -> None:
    result, tier = "perfopt_cache_result", "perfopt_cache_tier"
    everything = f"sum(rate({CACHES.select(REQUESTS)}[$__rate_interval]))"
    hits = f"sum(rate({CACHES.select(REQUESTS, HIT)}[$__rate_interval]))"
    seconds = f"sum(rate({CACHES.select(f'{LOADS}_sum')}[$__rate_interval]))"
    board.with_row(Row("What the caches gain"))
    board.with_panel(
        number(
            "Hit ratio",
            "Hits per look-up, over all chosen caches. Low is not bad in itself: see below which cache it is, and what its "
            "loads cost.",
            "percentunit",
            f"{hits} / ({everything} > 0)",
            empty="no look-ups",
            width=6,
        )
    )
    board.with_panel(
        number("Look-ups", "Look-ups per second, over all chosen caches.", "reqps", everything, empty="no look-ups", width=6)
    )
    board.with_panel(
        number(
            "Time in loads",
            "Seconds that loads take, per second: how many callers or workers are busy loading at any time, on average.",
            "none",
            seconds,
            empty="no loads",
            width=6,
        )
    )
    board.with_panel(
        number(
            "Time spared",
            "What the hits would have taken if each had been a load of average length of its cache, in seconds per second. An "
            "estimate of what the caches are worth; those without loads in this time are left out.",
            "none",
            f"sum({CACHES.rate(REQUESTS, HIT)} * {CACHES.mean(LOADS)})",
            empty="no loads to compare with",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Hit ratio by cache",
            "Hits per look-up. A sudden fall after a release is a changed key; a slow one is a cache that has become too small "
            "(see evictions by capacity) or a lifetime that is too short (see evictions by expired).",
            "percentunit",
            query(CACHES.share(REQUESTS, HIT), CACHES.legend),
            empty=NO_REQUESTS,
        )
    )
    board.with_panel(
        graph(
            "Look-ups by result",
            "A hit was answered from a tier, a miss was not; stale is an old value that was served because the load failed or "
            "was slow. Stale answers mean that something behind the cache is ill: see failed loads.",
            "reqps",
            query(CACHES.rate(REQUESTS, by=result), f"{{{{{result}}}}} {CACHES.legend}"),
            empty=NO_REQUESTS,
            stacked=True,
        )
    )
    board.with_panel(
        graph(
            "Hits by tier",
            "Where hits were found: in memory, or in a tier behind it, which is slower. Many hits behind the memory: raise "
            "max_size.",
            "reqps",
            query(CACHES.rate(REQUESTS, HIT, by=tier), f"{{{{{tier}}}}} {CACHES.legend}"),
            empty="No hits in this time.",
            stacked=True,
        )
    )


def _loads(board: Dashboard) -> None:
    board.with_row(Row("Loads: what a miss costs"))
    board.with_panel(
        latency(
            "Load latency",
            "How long loads take, failed ones included. This is what a caller waits for at a miss. Points are exemplars: each "
            "leads to the trace of one load. If it grows, look at what the loader asks; refresh_after= hides it from callers.",
            CACHES,
            LOADS,
            empty=NO_LOADS,
            span="load ${__field.labels.perfopt_cache_name}",
            width=12,
        )
    )
    board.with_panel(
        spread(
            "Spread of load durations",
            "How many loads took how long. Two bands are two kinds of loads, such as a database that answers from its own cache"
            " or not.",
            "s",
            CACHES,
            LOADS,
            empty=NO_LOADS,
        )
    )
    board.with_panel(
        graph(
            "Failed loads",
            "Failed loads per second, by class of error. Callers got the error, unless there was a stale value to serve "
            "(stale_for=). error_ttl= keeps a failing loader from being called for each request.",
            "ops",
            query(CACHES.rate(f"{LOADS}_count", 'error_type!=""', by="error_type"), f"{{{{error_type}}}} {CACHES.legend}"),
            empty="No load failed in this time.",
        )
    )
    board.with_panel(
        graph(
            "Loads under way and their waiters",
            "Loads in progress, and callers that wait for a load which another caller started. Many waiters are a hot key that "
            "has expired: refresh_after= or stale_for= would spare them the wait.",
            "short",
            query(CACHES.total("perfopt_cache_load_in_flight"), f"loads {CACHES.legend}"),
            query(CACHES.total("perfopt_cache_load_waiters"), f"waiters {CACHES.legend}"),
            empty="No cache of this service has told anything yet.",
        )
    )
    board.with_panel(
        graph(
            "Refreshes",
            "Values loaded anew per second while they were still fresh, so that no caller had to wait (refresh_after=). Many "
            "more than changes of the data: raise refresh_after=.",
            "ops",
            query(CACHES.rate("perfopt_cache_refreshes_total"), CACHES.legend),
            empty="No cache of this service has told anything yet.",
        )
    )


def _memory(board: Dashboard) -> None:
    evicted, asked = "perfopt_cache_eviction_reason", "perfopt_cache_invalidation_reason"
    limit = CACHES.select("perfopt_cache_entry_limit")
    board.with_row(Row("Memory, evictions and invalidations"))
    board.with_panel(
        graph(
            "Entries per limit",
            "Entries in memory per max_size, in the fullest process; caches without a limit are absent. Full is normal. Full "
            "with many evictions by capacity and a falling hit ratio: raise max_size.",
            "percentunit",
            query(CACHES.fullest(CACHES.select("perfopt_cache_entry_count"), limit), CACHES.legend),
            empty="No cache of this service has a limit.",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Memory",
            "Memory of keys and values over all processes, estimated from a sample of the entries.",
            "bytes",
            query(CACHES.total("perfopt_cache_size_bytes"), CACHES.legend),
            empty="No cache of this service has told anything yet.",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Evictions",
            "Entries that left by themselves, per second: for want of room (capacity, weight), or because their time was over "
            "(expired).",
            "ops",
            query(CACHES.rate("perfopt_cache_evictions_total", by=evicted), f"{{{{{evicted}}}}} {CACHES.legend}"),
            empty="No cache of this service has told anything yet.",
            stacked=True,
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Invalidations",
            "What the code asked for, per second: deletes and expiries of a key or a tag, and clears of a whole cache. Clears "
            "in a steady rhythm keep a cache cold: use tags.",
            "ops",
            query(CACHES.rate("perfopt_cache_invalidations_total", by=asked), f"{{{{{asked}}}}} {CACHES.legend}"),
            empty="No cache of this service has told anything yet.",
            stacked=True,
            width=6,
        )
    )


def _tiers(board: Dashboard) -> None:
    tier = "perfopt_cache_tier"
    board.with_row(Row("Tiers behind the memory"))
    board.with_panel(
        graph(
            "Failed calls of tiers",
            "Calls of a tier behind the memory that failed, per second. The cache goes on without it, so callers see only more "
            "misses. Look at the log of the service for the reason, and at the tier itself (Redis, disk).",
            "ops",
            query(
                CACHES.rate("perfopt_cache_tier_errors_total", by=f"{tier}, error_type"),
                f"{{{{{tier}}}}} {{{{error_type}}}} {CACHES.legend}",
            ),
            empty="No call of a tier failed in this time, or there are no tiers.",
            width=12,
        )
    )
    board.with_panel(
        states(
            "Breakers",
            "A breaker is open while a tier that keeps failing is left alone for a while: open in any process is open here. It "
            "tries again by itself, every few seconds.",
            f"max by ({CACHES.by}, {tier}) ({CACHES.select('perfopt_cache_breaker_open')}) > bool 0",
            f"{{{{{tier}}}}} {CACHES.legend}",
            empty="No cache of this service has a tier behind its memory.",
        )
    )
