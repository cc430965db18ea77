"""How the pages say things."""

from collections.abc import Mapping

from otel_perfopt.report.text import printable, size

__all__ = ("counts", "many", "percent", "signed_size")


def percent(rate: float) -> str:
    """Return a rate with a digit after the point, and never as all or nothing if it is not.

    >>> percent(0.5), percent(0.9999), percent(0.0001), percent(1.0)
    ('50.0%', '>99.9%', '<0.1%', '100%')
    """
    if rate in {0.0, 1.0}:
        return f"{rate:.0%}"
    return ">99.9%" if rate >= 0.9995 else "<0.1%" if rate < 0.0005 else f"{rate:.1%}"


def signed_size(count: float) -> str:
    """Return bytes with a sign."""
    return ("-" if count < 0 else "+") + size(abs(count))


def counts(by_kind: Mapping[str, int]) -> str:
    """Return every kind with its count.

    >>> counts({"expired": 1200, "capacity": 3, "weight": 0})
    'capacity (3), expired (1,200)'
    """
    return ", ".join(f"{printable(kind)} ({count:,})" for kind, count in sorted(by_kind.items()) if count)


def many(count: int, one: str, more: str | None = None) -> str:
    """Return a count and what is counted.

    >>> many(1, "call"), many(2000, "entry", "entries")
    ('1 call', '2,000 entries')
    """
    return f"{count:,} {one if count == 1 else more or one + 's'}"
