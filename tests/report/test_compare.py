"""Two reports compared."""

import json
from dataclasses import replace

import pytest

from otel_perfopt.report.compare import Figure, compare
from otel_perfopt.report.compare_text import change_text, render
from otel_perfopt.report.model import OperationRow, PerformanceReport
from tests.report.reports import batch, cache, latency, lazy, many, nasty, observed, operation, pool, report, typical


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


def test_fewer_stale_answers_are_better() -> None:
    """They are requests that got something, but no hits."""
    rows = [cache("a", hits=800, stale=stale, misses=200 - stale) for stale in (0, 100)]
    told = figures(report(rows[:1]), report(rows[1:]))
    assert (told["requests"], told["hit rate"], told["stale"]) == (("+0.0%", ""), ("+0.0 pt", "same"), ("+10.0 pt", "worse"))
    assert figures(report(rows[1:]), report(rows[:1]))["stale"] == ("-10.0 pt", "better")


def test_the_largest_change_is_first() -> None:
    """What has not changed comes last, in the order of names."""
    before = {name: operation(100) for name in ("steady", "slow", "fast", "also steady")}
    after = before | {"slow": operation(100, mean=0.02), "fast": operation(100, mean=0.001)}
    changes = compare(report((), before), report((), after)).changes
    assert [change.name for change in changes] == ["fast", "slow", "also steady", "steady"]


def figures(before: PerformanceReport, after: PerformanceReport) -> dict[str, tuple[str, str]]:
    """Return the text of the change and the verdict of every figure of the only component."""
    (change,) = compare(before, after).changes
    return {figure.name: (change_text(figure), figure.verdict) for figure in change.figures}


def test_pools() -> None:
    """Longer waits and uses are worse, and so are more timeouts per request; how busy a pool is, is neither good nor bad."""
    before = pool("a", acquires=980, waited=180, timeouts=15, rejected=5, waits=latency([0.0] * 800 + [0.001] * 180))
    after = pool("a", acquires=880, waited=80, timeouts=120, waits=latency([0.0] * 800 + [0.002] * 80), mean_in_use=7.5)
    before, after = replace(before, uses=latency([0.01] * 980)), replace(after, uses=latency([0.02] * 880))
    assert figures(report(pools=[before]), report(pools=[after])) == {
        "acquires": ("-10%", ""),
        "wait p95": ("+100%", "worse"),
        "use p95": ("+100%", "worse"),
        "timeouts": ("+10.5 pt", "worse"),
        "mean use": ("+200%", ""),
    }
    calm = replace(after, waits=latency([0.0] * 880), uses=before.uses, timeouts=0)
    told = figures(report(pools=[before]), report(pools=[calm]))
    assert (told["wait p95"], told["timeouts"]) == (("-100%", "better"), ("-1.5 pt", "better"))
    assert figures(report(pools=[calm]), report(pools=[before]))["wait p95"] == ("-", "worse")


def test_pools_of_which_little_is_known() -> None:
    """What is not known is compared with nothing."""
    told = figures(report(pools=[observed("a")]), report(pools=[observed("a")]))
    assert (told["use p95"], told["mean use"], told["wait p95"]) == (("-", "few"), ("-", ""), ("+0.0%", "same"))
    few = report(pools=[pool("a", acquires=19, waited=1)])
    assert {verdict for _, verdict in figures(few, few).values()} == {"few", ""}


def test_batches() -> None:
    """Times and failures have a verdict; the size of a batch has none."""
    before = batch("a", items=1000, batches=100, item_errors={"E": 100}, durations=latency([0.1] * 100))
    after = batch("a", items=1000, batches=40, item_errors={"E": 5}, durations=latency([0.15] * 40), waits=before.waits)
    assert figures(report(batches=[before]), report(batches=[after])) == {
        "items": ("+0.0%", ""),
        "mean size": ("+150%", ""),
        "time p95": ("+50%", "worse"),
        "wait p95": ("+0.0%", "same"),
        "error rate": ("-9.5 pt", "better"),
    }
    unused = report(batches=[batch("a", items=0, batches=0)])
    assert figures(report(batches=[before]), unused)["mean size"] == ("-", "")


def test_lazy_loads() -> None:
    """They are compared by time, if there are enough of them."""
    once = figures(report(lazy_loads=[lazy("a", 0.1)]), report(lazy_loads=[lazy("a", 9.0)]))
    assert once == {"loads": ("+0.0%", ""), "p95": ("+8,900%", "few")}
    often = figures(report(lazy_loads=[lazy("a", *[0.2] * 20)]), report(lazy_loads=[lazy("a", *[0.1] * 40)]))
    assert often == {"loads": ("+100%", ""), "p95": ("-50%", "better")}


def test_the_text_of_pools_and_batches() -> None:
    """Means have three digits, and every name of a figure fits its column."""
    before = report(pools=[pool("a")], batches=[batch("b", items=25, batches=3)], lazy_loads=[lazy("c", 0.1)])
    lines = render(compare(before, before), width=80, color=False, everything=True).splitlines()
    assert "  mean use          2.50        2.50       +0.0%" in lines
    assert "  mean size         8.33        8.33       +0.0%" in lines
    assert "lazy load c" in lines
    assert {line.find("  ", 2) for line in lines if line.startswith("  error rate")} == {12}


def test_new_and_gone() -> None:
    """They are told apart by kind."""
    found = compare(report([cache("a")], {"b": operation()}), report([cache("b")], {"b": operation()}))
    assert (found.new, found.gone) == ([("cache", "b")], [("cache", "a")])
    assert [change.kind for change in found.changes] == ["operation"]
    others = report(pools=[pool("a")], batches=[batch("a")], lazy_loads=[lazy("a", 1.0)])
    assert compare(report(), others).new == [("batch", "a"), ("lazy load", "a"), ("pool", "a")]
    assert compare(others, report()).gone == compare(report(), others).new


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
        "  stale             0.0%        0.0%     +0.0 pt  same\n"
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
