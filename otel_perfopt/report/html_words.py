"""How the pages say things."""

from otel_perfopt.report import words

__all__ = ("duration", "percent", "signed_size")


def duration(seconds: float) -> str:
    """Return seconds with three digits and a unit that fits.

    >>> duration(0.000045)
    '45.0 µs'
    """
    return words.duration(seconds).replace("us", "µs")


def percent(rate: float) -> str:
    """Return a rate with a digit after the point, and never as all or nothing if it is not.

    >>> percent(0.5), percent(0.9999), percent(0.0001), percent(1.0), percent(1.5)
    ('50.0%', '>99.9%', '<0.1%', '100%', '150%')
    """
    if rate in {0.0, 1.0} or rate > 1:
        return f"{rate:.0%}"
    return ">99.9%" if rate >= 0.9995 else "<0.1%" if rate < 0.0005 else f"{rate:.1%}"


def signed_size(count: float) -> str:
    """Return bytes with a sign."""
    return ("-" if count < 0 else "+") + words.size(abs(count))
