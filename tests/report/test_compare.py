"""Two reports compared."""

import json
from dataclasses import replace

import pytest

from otel_perfopt.report.compare import Figure, compare
from otel_perfopt.report.compare_text import render
from otel_perfopt.report.model import OperationRow
from tests.report.reports import cache, latency, many, nasty, operation, report, typical


def verdicts(before: OperationRow, after: OperationRow) -> dict[str, str]:
    """Return the verdicts on the figures of an operation."""
    (change,) = compare(report((), {"a": before}), report((), {"a": after})).changes
    return {figure.name: figure.verdict for figure in change.figures}


def hit_rate(before: tuple[int, int], after: tuple[int, int]) -> Figure:
    """Return the figure of two hit rates, each given as hits and misses."""
    rows = [cache("a", hits=hits, misses=misses) for hits, misses in (before, after)]
    (change,) = compare(report(rows[:1]), report(rows[1:])).changes
    return next(figure for figure in change.figures if figure.name == "hit rate")


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(0.010, "same"), (0.0104, "same"), (0.0096, "same"), (0.011, "worse"), (0.009, "better"), (1.0, "worse")],
)
def test_times(mean: float, verdict: str) -> None:
    """Up to 5 per cent are noise; a shorter time is better."""
    said = verdicts(operation(200), operation(200, mean=mean))
    assert {said[name] for name in ("mean", "p50", "p95", "p99")} == {verdict}
    assert said["calls"] == ""
    assert said["error rate"] == "same"


@pytest.mark.parametrize(
    ("count", "mean", "p99"), [(19, "few", "few"), (20, "worse", "few"), (99, "worse", "few"), (100, "worse", "worse")]
)
def test_few_samples_say_nothing(count: int, mean: str, p99: str) -> None:
    """Fewer than 20 calls are too few, and fewer than 100 for a 99th percentile."""
    said = verdicts(operation(1000), operation(count, mean=0.1))
    assert (said["mean"], said["p99"]) == (mean, p99)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((900, 100), (950, 50), "better"),
        ((950, 50), (900, 100), "worse"),
        ((50, 50), (56, 44), "same"),  # may be chance
        ((99_000, 1_000), (99_500, 500), "better"),  # half the misses
        ((500_000, 500_000), (510_000, 490_000), "same"),  # no chance, but less than 5 %
        ((9, 1), (1, 9), "few"),
        ((0, 0), (90, 10), "few"),
        ((100, 0), (100, 0), "same"),
    ],
)
def test_rates(before: tuple[int, int], after: tuple[int, int], verdict: str) -> None:
    """A rate has changed if the difference is more than chance, and matters."""
    assert hit_rate(before, after).verdict == verdict


def test_fewer_errors_and_evictions_are_better() -> None:
    """Their rates count, not their numbers: more calls may fail more often."""
    assert verdicts(operation(1000, errors={"E": 300}), operation(3000, errors={"E": 330}))["error rate"] == "better"
    rows = [cache("a", hits=hits, misses=1000, evictions={"capacity": 500}) for hits in (0, 9000)]
    (change,) = compare(report(rows[:1]), report(rows[1:])).changes
    assert {figure.name: figure.verdict for figure in change.figures}["evictions"] == "better"


def test_the_largest_change_is_first() -> None:
    """What has not changed comes last, in the order of names."""
    before = {name: operation(100) for name in ("steady", "slow", "fast", "also steady")}
    after = before | {"slow": operation(100, mean=0.02), "fast": operation(100, mean=0.001)}
    changes = compare(report((), before), report((), after)).changes
    assert [change.name for change in changes] == ["fast", "slow", "also steady", "steady"]


def test_new_and_gone() -> None:
    """They are told apart by kind."""
    found = compare(report([cache("a")], {"b": operation()}), report([cache("b")], {"b": operation()}))
    assert (found.new, found.gone) == ([("cache", "b")], [("cache", "a")])
    assert [change.kind for change in found.changes] == ["operation"]


def test_json_has_the_changes() -> None:
    """The figures of the JSON are those of the comparison."""
    found = compare(typical(), typical())
    loaded = json.loads(found.to_json())
    assert len(loaded["changes"]) == len(found.changes)
    assert loaded["changes"][0]["figures"][0]["change"] in {0.0, None}


def test_the_text_of_a_small_change() -> None:
    """Every figure has its line; what has not changed is only named, unless everything is asked for."""
    before, after = cache("users", hits=900, misses=100), cache("users", hits=700, misses=300)
    before, after = (replace(row, loads=latency([0.01] * row.miss_count)) for row in (before, after))
    find, parse = operation(500), operation(500)
    half = replace(find, avg_duration=find.avg_duration / 2, p50_duration=find.p50_duration * 2)
    found = compare(report([before], {"find": find, "parse": parse}), report([after], {"find": half, "parse": parse}))
    assert render(found, width=80, color=False) == (
        "Figures: 1 better and 2 worse.\n"
        "\n"
        "                  before       after      change\n"
        "\n"
        "cache users\n"
        "  requests         1,000       1,000       +0.0%\n"
        "  hit rate         90.0%       70.0%    -20.0 pt  worse\n"
        "  load p95       10.0 ms     10.0 ms       +0.0%  same\n"
        "  evictions         0.0%        0.0%     +0.0 pt  same\n"
        "\n"
        "operation find\n"
        "  calls              500         500       +0.0%\n"
        "  mean           11.2 ms     5.60 ms        -50%  better\n"
        "  p50            9.86 ms     19.7 ms       +100%  worse\n"
        "  p95            23.2 ms     23.2 ms       +0.0%  same\n"
        "  p99            30.4 ms     30.4 ms       +0.0%  same\n"
        "  error rate        0.0%        0.0%     +0.0 pt  same\n"
        "\n"
        "no change that counts (--all shows the figures): operation parse\n"
    )
    assert "operation parse\n  calls" in render(found, width=80, color=False, everything=True)


@pytest.mark.parametrize("width", [40, 56, 80, 120])
def test_no_line_is_too_long(width: int) -> None:
    """Names of any length and of any script fit, and nothing reaches the terminal that is not text."""
    text = render(compare(nasty(), nasty()), width=width, color=False, everything=True)
    text += render(compare(nasty(), many(30)), width=width, color=False)
    from rich.cells import cell_len

    assert max(map(cell_len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert "\x00" not in text


def test_colours_only_if_asked_for() -> None:
    """A verdict is green or red on a terminal."""
    found = compare(report((), {"a": operation(100)}), report((), {"a": operation(100, mean=1.0)}))
    assert "\x1b[31mworse" in render(found, width=80, color=True)
    assert "\x1b" not in render(found, width=80, color=False)
