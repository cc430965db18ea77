"""How the report says things: names, counts, durations and sizes, short enough for a table."""

import re
from collections.abc import Collection, Mapping

from rich.cells import cell_len

__all__ = ("counts_of", "duration", "folded", "many", "number", "printable", "size", "troubles_of")


def counts_of(counts: dict[str, int]) -> str:
    """Return every kind with its count, without those that there were none of.

    >>> counts_of({"idle": 2, "lost": 0})
    'idle (2)'
    """
    return ", ".join(f"{printable(kind)} ({count:,})" for kind, count in sorted(counts.items()) if count)


def troubles_of(errors: Mapping[str, dict[str, int]], away: Collection[str]) -> dict[str, str]:
    """Return for each tier of a cache that failed, or is left alone, what there is to say about it.

    >>> troubles_of({"sqlite": {"OSError": 3}, "redis": {"OSError": 0}}, ["sqlite"])
    {'sqlite': 'sqlite failed with OSError (3), and is left alone for now'}
    """
    troubles = {}
    for tier in sorted({*errors, *away}):
        kinds = errors.get(tier, {})
        said = [f"failed with {counts_of(kinds)}"] if any(kinds.values()) else []
        said += ["is left alone for now"] if tier in away else []
        if said:
            troubles[tier] = f"{printable(tier)} {', and '.join(said)}"
    return troubles


def printable(name: str) -> str:
    r"""Return `name` with escapes for what would break a line, or tell the terminal to do something.

    >>> print(printable("a\tb\x1b[2J é"))
    a\tb\x1b[2J é
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def folded(name: str, width: int) -> str:
    r"""Return `name` in lines of at most `width` columns, with breaks after full stops, or underscores in what is still too long.

    >>> print(folded("shop.orders.OrderService.find_by_customer", 13))
    shop.orders.
    OrderService.
    find_by_
    customer
    """
    lines = [""]
    for part in re.findall(r"[^.]*\.|[^.]+", name):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        for piece in re.findall("[^_]*_|[^_]+", part):
            if lines[-1] and cell_len(lines[-1] + piece) > width:
                lines.append("")
            for char in piece:
                if cell_len(lines[-1] + char) > width:
                    lines.append("")
                lines[-1] += char
    return "\n".join(lines)


def many(count: int, one: str, more: str | None = None) -> str:
    """Return a count and what is counted.

    >>> many(1, "call"), many(2000, "entry", "entries")
    ('1 call', '2,000 entries')
    """
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def number(count: float) -> str:
    """Return a count; a large one, or a mean of counts, with three digits.

    >>> number(99_999), number(1_234_567), number(8.333)
    ('99,999', '1.23M', '8.33')
    """
    if count < 1e5:
        return f"{count:,}" if isinstance(count, int) else _three_digits(count)
    for unit in ("k", "M", "G", "T"):
        count /= 1000
        if count < 999.5 or unit == "T":
            return _three_digits(count) + unit
    raise AssertionError


def duration(seconds: float) -> str:
    """Return seconds with three digits and a unit that fits.

    >>> duration(0.00123), duration(0.000045), duration(75.3), duration(7200), duration(0)
    ('1.23 ms', '45.0 us', '75.3 s', '2.00 h', '0 s')
    """
    if seconds == 0:
        return "0 s"
    if seconds >= 3600:
        return f"{_three_digits(seconds / 3600)} h"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 0.9995 or unit == "us":
            return f"{_three_digits(seconds * factor)} {unit}"
    raise AssertionError


def size(count: float) -> str:
    """Return bytes with three digits and a unit that fits.

    >>> size(512), size(1536), size(3 * 2**30)
    ('512 B', '1.50 KiB', '3.00 GiB')
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 999.5 or unit == "GiB":
            return _three_digits(count) + f" {unit}"
    raise AssertionError


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
