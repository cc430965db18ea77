"""PromQL for the dashboards: each figure by service and component, over all processes unless it says otherwise."""

from dataclasses import dataclass

__all__ = ("BATCHES", "CACHES", "DATABASES", "EVENTS", "LAZY", "OPERATIONS", "POOLS", "Component")

SERVICE = 'job=~"$service"'


@dataclass(frozen=True)
class Component:
    """What a dashboard is about.

    Attributes:
        label: the label that has its name.
        variable: the variable that chooses some; None for all.
    """

    label: str
    variable: str | None = None

    @property
    def by(self) -> str:
        """What its figures are grouped by."""
        return f"job, {self.label}"

    @property
    def legend(self) -> str:
        """How a series is called."""
        return f"{{{{{self.label}}}}} ({{{{job}}}})"

    def select(self, metric: str, *conditions: str) -> str:
        """Return a selector."""
        chosen = [f'{self.label}=~"${self.variable}"'] if self.variable else []
        return f"{metric}{{{', '.join([SERVICE, *chosen, *conditions])}}}"

    def total(self, metric: str, *conditions: str, by: str = "") -> str:
        """Return a gauge, summed."""
        return f"sum by ({self._by(by)}) ({self.select(metric, *conditions)})"

    def rate(self, metric: str, *conditions: str, by: str = "") -> str:
        """Return a counter per second, summed."""
        return f"sum by ({self._by(by)}) (rate({self.select(metric, *conditions)}[$__rate_interval]))"

    def quantile(self, quantile: float, metric: str, *conditions: str) -> str:
        """Return a quantile of a histogram."""
        return f"histogram_quantile({quantile}, {self.rate(f'{metric}_bucket', *conditions, by='le')})"

    def share(self, metric: str, condition: str) -> str:
        """Return which share of a counter fulfils a condition, from 0 to 1; nothing while nothing is counted."""
        part, whole = self.rate(metric, condition), self.rate(metric)
        return f"({part} or 0 * {whole}) / ({whole} > 0)"

    def mean(self, metric: str) -> str:
        """Return the mean of a histogram."""
        return f"{self.rate(f'{metric}_sum')} / ({self.rate(f'{metric}_count')} > 0)"

    def fullest(self, used: str, limit: str) -> str:
        """Return the share of a limit that is used, of the process where it is the greatest: each has its own limit."""
        by = f"job, instance, {self.label}"
        return f"max by ({self.by}) (sum by ({by}) ({used}) / (sum by ({by}) ({limit}) > 0))"

    def _by(self, more: str) -> str:
        return f"{self.by}, {more}" if more else self.by


CACHES = Component("perfopt_cache_name", "cache")
POOLS = Component("perfopt_pool_name", "pool")
DATABASES = Component("db_client_connection_pool_name", "pool")
BATCHES = Component("perfopt_batch_name", "batch")
OPERATIONS = Component("perfopt_operation_name", "operation")
LAZY = Component("perfopt_lazy_name")
EVENTS = Component("perfopt_event_name")
