"""The page about the report: its tables have every key of the rows, and every figure of a comparison, in their order."""

import dataclasses
import re
from pathlib import Path

import pytest

from otel_perfopt.report import BatchRow, CacheRow, LatencySummary, LazyRow, OperationRow, PoolRow, Summary
from otel_perfopt.report.compare import compare
from tests.report.reports import typical

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text("utf-8")
ROWS = {
    "summary": Summary,
    "operations": OperationRow,
    "caches": CacheRow,
    "pools": PoolRow,
    "batches": BatchRow,
    "lazy_loads": LazyRow,
    "Durations": LatencySummary,
}


def section(heading: str) -> str:
    """The text below a heading, up to the next one."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("heading", ROWS)
def test_tables_of_keys(heading: str) -> None:
    """A table has exactly the fields of its class."""
    assert re.findall(r"^\| `(\w+)` \|", section(heading), re.MULTILINE) == [
        each.name for each in dataclasses.fields(ROWS[heading])
    ]


def test_table_of_compared_figures() -> None:
    """It names the figures of each kind as the comparison does."""
    table = section("Saved reports, and two compared").partition("| kind | figures |\n")[2].partition("\n\n")[0]
    told = {
        kind: re.findall("`([\\w ]+)`", figures)
        for kind, figures in re.findall(r"^\| `([\w ]+)` \| (.*) \|$", table, re.MULTILINE)
    }
    found = {change.kind: [figure.name for figure in change.figures] for change in compare(typical(), typical()).changes}
    assert told == found
