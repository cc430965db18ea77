"""The tables of options on the pages agree with the signatures: every option, in its order, with its default.

A table is found by its head, ``| option | default | meaning |``. A row may name several options that share a default.
"""

import inspect
import re
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt import (
    AsyncResourcePool,
    BatchProcessor,
    Cache,
    LogOptions,
    ResourcePool,
    cached,
    measure_performance,
    record_performance_metric,
)
from otel_perfopt.testing import Faults

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEAD = "| option | default | meaning |"
TABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("caching.md", "A function that remembers"): cached,  # its own options; the others are those of `Cache`
    ("caching.md", "The Cache object"): Cache,
    ("pooling.md", "For threads and for tasks"): ResourcePool,
    ("batching.md", "Processors"): BatchProcessor,
    ("measuring.md", "Options"): measure_performance,
    ("measuring.md", "Measured elsewhere"): record_performance_metric,
    ("testing.md", "Faults"): Faults,
    ("logs.md", "Options"): LogOptions,
}

Options = list[tuple[str, Any]]


def tables(page: Path) -> Iterator[tuple[tuple[str, str], Options]]:
    """The options and defaults of every table of options on a page, under the page's name and the heading above."""
    heading, rows = "", None
    for line in [*page.read_text("utf-8").splitlines(), ""]:
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line == HEAD:
            rows = Options()
        elif rows is not None and not line.startswith("|"):
            yield (page.name, heading), rows
            rows = None
        elif rows is not None and not line.startswith("|---"):
            names, default = line.split("|")[1:3]
            rows += [
                (name, eval(default.strip(" `"), {"__builtins__": {"OSError": OSError}, "time": time}))
                for name in re.findall(r"`(\w+)`", names)
            ]


def options_of(function: Callable[..., Any]) -> Options:
    """The keyword-only options of a function and their defaults; a name with an underscore is nobody's business."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY and not p.name.startswith("_")]


def with_types(options: Options) -> list[tuple[str, type, Any]]:
    """Options to compare: 300 is not 300.0, and False is not 0."""
    return [(name, type(default), default) for name, default in options]


WRITTEN = [table for page in sorted(DOCS.glob("*.md")) for table in tables(page)]


def test_every_table_is_checked() -> None:
    """No page has a table of options that nobody compares, and none has gone."""
    assert sorted(place for place, _ in WRITTEN) == sorted(TABLES)


@pytest.mark.parametrize(("place", "written"), WRITTEN, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_tables_of_options(place: tuple[str, str], written: Options) -> None:
    """A table has exactly the options of its function."""
    assert with_types(written) == with_types(options_of(TABLES[place]))


def test_both_kinds_of_pools_have_the_same_options() -> None:
    """One table is enough for them."""
    assert with_types(options_of(AsyncResourcePool)) == with_types(options_of(ResourcePool))


@pytest.mark.parametrize("overload", typing.get_overloads(cached)[1:])
def test_overloads_of_cached(overload: Callable[..., Any]) -> None:
    """`@cached` takes what `Cache` takes, with the same defaults, and its own options after that."""
    own = [name for name, _ in options_of(cached)]
    told = options_of(overload)
    assert with_types(told[: -len(own)]) == with_types(options_of(Cache))
    assert [name for name, _ in told[-len(own) :]] == own


@pytest.mark.parametrize("overload", typing.get_overloads(measure_performance)[1:])
def test_overloads_of_measure_performance(overload: Callable[..., Any]) -> None:
    """Type checkers are told the options and defaults that there are."""
    assert with_types(options_of(overload)) == with_types(options_of(measure_performance))
