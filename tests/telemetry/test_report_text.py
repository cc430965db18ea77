"""The report as text: readable in eighty columns and in forty, whatever the names and figures are."""

import builtins
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from otel_perfopt.report import (
    BatchRow,
    CacheRow,
    LatencySummary,
    LazyRow,
    OperationRow,
    PerformanceReport,
    PoolRow,
    Summary,
)
from otel_perfopt.report.words import duration, folded, many, number, printable, size

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
LONG = "my_service.repositories.users.UserRepository.find_by_email"


def cache(name: str, **figures: Any) -> CacheRow:
    """A row of a cache."""
    known: dict[str, Any] = {
        "size": 120, "max_size": 500, "hit_count": 1697, "miss_count": 1305, "hit_rate": 0.565, "memory_usage": 52_000,
        "evictions": {}, "invalidations": {},
        "loads": LatencySummary(count=1303, total=1.5, max=0.1, p50=0.001, p95=0.0125, p99=0.05),
        "load_errors": {}, "loads_in_flight": 0, "load_waiters": 0,
    }  # fmt: skip
    return CacheRow(name=name, **{**known, **figures})


def operation(**figures: Any) -> OperationRow:
    """A row of an operation."""
    known: dict[str, Any] = {
        "count": 3001, "total_duration": 33.3, "min_duration": 0.001, "max_duration": 2.5, "avg_duration": 0.0111,
        "success_count": 3000, "error_count": 1, "memory_deltas": [], "success_rate": 0.999, "avg_memory_delta": 0.0,
        "p50_duration": 0.00668, "p95_duration": 0.0346, "p99_duration": 0.0685,
        "errors": {"asyncio.exceptions.CancelledError": 1},
    }  # fmt: skip
    return OperationRow(**{**known, **figures})


TIMES = LatencySummary(count=207, total=1.5, max=0.273, p50=0.001, p95=0.0193, p99=0.05)


def pool(name: str, **figures: Any) -> PoolRow:
    """A row of a pool."""
    known: dict[str, Any] = {
        "total_created": 3, "available": 2, "in_use": 1, "waiting": 0, "utilization": 0.05, "mean_in_use": 0.06,
        "min_size": 1, "max_size": 20, "acquires": 207, "waited": 18, "timeouts": 0, "rejected": 0, "leaks": 0, "destroyed": {},
        "waits": TIMES, "uses": TIMES, "creations": LatencySummary(), "create_errors": {},
    }  # fmt: skip
    return PoolRow(name=name, **{**known, **figures})


def batch(name: str, **figures: Any) -> BatchRow:
    """A row of a batch processor."""
    known: dict[str, Any] = {
        "queue_size": 0, "processing": False, "in_flight": 0, "max_queue": None, "item_count": 300, "item_errors": {},
        "flushes": {"size": 9, "timeout": 14}, "mean_size": 13.043, "max_size": 20, "durations": TIMES, "batch_errors": {},
        "waits": TIMES,
    }  # fmt: skip
    return BatchRow(name=name, **{**known, **figures})


def report(
    caches: list[CacheRow],
    operations: dict[str, OperationRow],
    pools: list[PoolRow] | None = None,
    batches: list[BatchRow] | None = None,
    lazy_loads: list[LazyRow] | None = None,
) -> PerformanceReport:
    """A report of these."""
    named = [{row.name: row for row in rows or ()} for rows in (caches, pools, batches, lazy_loads)]
    return PerformanceReport(Summary(4236, 7247.0, 0.9972), operations, *named)  # type: ignore[arg-type]


SMALL = report(
    [cache("git_info"), cache("users", load_errors={"ValueError": 2}, evictions={"capacity": 803})], {"orders.total": operation()}
)


def test_eighty_columns() -> None:
    """All figures that fit, and a line for what is worth one."""
    assert SMALL.to_text() == str(SMALL)
    assert SMALL.to_text().splitlines() == [
        "Performance report:",
        "  99.7% of cache requests were hits",
        "  4,236 operations took 2.01 h",
        "",
        "cache     hit rate   hits  misses  entries    memory  loads  load p95",
        "─────────────────────────────────────────────────────────────────────",
        "git_info     56.5%  1,697   1,305  120/500  50.8 KiB  1,303   12.5 ms",
        "users        56.5%  1,697   1,305  120/500  50.8 KiB  1,303   12.5 ms",
        "",
        "users: evicted for capacity (803)",
        "users: loads failed with ValueError (2)",
        "",
        "operation     calls  errors      p50      p95   total     mean      p99",
        "───────────────────────────────────────────────────────────────────────",
        "orders.total  3,001       1  6.68 ms  34.6 ms  33.3 s  11.1 ms  68.5 ms",
        "",
        "orders.total: failed with asyncio.exceptions.CancelledError (1)",
    ]


def test_caches_with_tiers() -> None:
    """Only a cache that has something to say has a line: answers that are not from memory, and tiers that fail."""
    tiered = cache("users", hits_by_tier={"memory": 1577, "sqlite": 120, "redis": 0}, stale_count=3, refreshes=7)
    away = cache("prices", tier_errors={"sqlite": {"OSError": 12}, "redis": {"OSError": 0}}, open_breakers=["sqlite"])
    one = cache("b", stale_count=1, refreshes=1, hits_by_tier={"sqlite": 1}, tier_errors={"redis": {"E": 1, "D": 2}})
    text = report([tiered, away, one, cache("c", hits_by_tier={"memory": 5}, open_breakers=["odd\n"])], {}).to_text()
    assert text.splitlines()[-5:] == [
        "users: 120 hits from sqlite, 3 stale answers, 7 refreshes",
        "prices: sqlite failed with OSError (12), and is left alone for now",
        "b: 1 hit from sqlite, 1 stale answer, 1 refresh",
        "b: redis failed with D (2), E (1)",
        r"c: odd\n is left alone for now",
    ]


RESOURCES = report(
    [], {},
    [
        pool("git_worktrees", creations=TIMES, timeouts=1, rejected=2, waiting=1, leaks=1, create_errors={"OSError": 4}),
        pool("process_executors", destroyed={"idle": 2, "lost": 1, "close": 0}),
        pool("legacy", max_size=0, in_use=0, waited=None, uses=LatencySummary(), total_created=0),
    ],
    [
        batch("state_updates", item_errors={"KeyError": 2}),
        batch("mails", queue_size=50, max_queue=50, flushes={}, item_count=0, max_size=0, durations=LatencySummary()),
    ],
    [LazyRow("settings", TIMES, {}), LazyRow("model", LatencySummary(), {"OSError": 3})],
)  # fmt: skip


def test_pools_batches_and_lazy_loads_in_eighty_columns() -> None:
    """The same for them; there is a dash for what is not known, and a line for what went wrong."""
    assert RESOURCES.to_text().splitlines() == [
        "Performance report: 621 acquires from 3 pools; 302 items in 23 batches.",
        "",
        "pool               acquires  waited  wait p95  in use  mean use  use p50",
        "────────────────────────────────────────────────────────────────────────",
        "git_worktrees           207      18   19.3 ms    1/20      0.06  1.00 ms",
        "process_executors       207      18   19.3 ms    1/20      0.06  1.00 ms",
        "legacy                  207       -   19.3 ms       -         -        -",
        "",
        "git_worktrees: 1 caller timed out",
        "git_worktrees: 2 callers rejected because too many waited",
        "git_worktrees: 1 caller waiting now",
        "git_worktrees: 1 resource held for suspiciously long, or dropped without being",
        "released",
        "git_worktrees: 207 creations took 1.00 ms (p50), 273 ms at most",
        "git_worktrees: creations failed with OSError (4)",
        "process_executors: destroyed for idle (2), lost (1)",
        "",
        "batch          items  batches  mean size  queued  wait p95  time p95",
        "────────────────────────────────────────────────────────────────────",
        "state_updates    302       23       13.0       0   19.3 ms   19.3 ms",
        "mails              0        0          -      50   19.3 ms         -",
        "",
        "state_updates: flushed for size (9), timeout (14)",
        "state_updates: items failed with KeyError (2)",
        "mails: the queue is full, with 50 items",
        "",
        "lazy load  loads  errors      p50     max",
        "─────────────────────────────────────────",
        "settings     207       0  1.00 ms  273 ms",
        "model          0       3        -       -",
        "",
        "model: loads failed with OSError (3)",
    ]


def test_the_headline() -> None:
    """It says one of each in the singular, and speaks of lazy loads if there is nothing else."""
    one = batch("b", item_count=1, flushes={"size": 1})
    for made, line in (
        (report([], {}, [pool("a", acquires=1)]), "1 acquire from 1 pool."),
        (report([], {}, None, [one]), "1 item in 1 batch."),
        (report([], {}, [pool("a", acquires=0)], [batch("b", flushes={})]), "0 acquires from 1 pool; 300 items in 0 batches."),
        (report([], {}, None, None, [LazyRow("c", LatencySummary(count=1, total=0.5), {})]), "1 lazy load took 500 ms."),
        (report([], {}, [pool("a")], None, [LazyRow("c", TIMES, {})]), "207 acquires from 1 pool."),
        (PerformanceReport(Summary(1, 2.0), {"a": operation()}, {}), "1 operation took 2.00 s."),
    ):
        assert made.to_text().splitlines()[0] == f"Performance report: {line}"


def test_zeros_need_no_lines() -> None:
    """A kind of failure that did not happen is not told, and a wait of nothing is zero."""
    zeros = LatencySummary(count=5)
    text = report(
        [cache("a", load_errors={"E": 0}, hits_by_tier={"memory": 3, "sqlite": 0}, tier_errors={"sqlite": {"E": 0}})],
        {"b": operation(errors={"E": 0})},
        [pool("c", create_errors={"E": 0}, destroyed={"idle": 0}, waits=zeros)],
        [batch("d", item_errors={"E": 0}, flushes={"size": 0}, waits=LatencySummary())],
        [LazyRow("e", TIMES, {"E": 0})],
    ).to_text()
    assert ":" not in text.removeprefix("Performance report:")
    assert re.search(r"^c +207 +18 +0 s ", text, re.MULTILINE)
    assert re.search(r"^d +300 +0 +13\.0 +0 +- ", text, re.MULTILINE)


def test_forty_columns() -> None:
    """Columns are left out, and none is cut short."""
    lines = SMALL.to_text(width=40).splitlines()
    assert "cache     hit rate   hits  misses" in lines
    assert "users        56.5%  1,697   1,305" in lines
    assert "orders.total  3,001       1  6.68 ms" in lines
    assert "…" not in SMALL.to_text(width=40)
    lines = RESOURCES.to_text(width=40).splitlines()
    assert lines[lines.index("worktrees") - 1] == "git_            207      18   19.3 ms"
    assert lines[lines.index("executors") - 1] == "process_        207      18   19.3 ms"
    assert "state_updates    302       23       13.0" in lines


HUGE = report(
    [
        cache(LONG, hit_count=123_456_789, miss_count=99_999, size=999_999, max_size=1_000_000, memory_usage=1023 * 2**20),
        cache("[red]x[/red]", max_size=None, loads=LatencySummary()),
        cache("名前" * 20),
        cache("x" * 300, hits_by_tier={LONG: 10**12}, tier_errors={"[b]": {"y" * 300: 10**9}}, open_breakers=["z\x1b" * 90]),
        *(cache(f"cache {position}") for position in range(100)),
    ],
    {
        LONG: operation(count=10**12, error_count=10**9, total_duration=1e9, avg_duration=999.96, p50_duration=0.0),
        "tab\there\nand \x1b[2J": operation(errors={"Odd\nKind": 1}),
        **{f"operation {position}": operation() for position in range(100)},
    },
    [
        pool(LONG, acquires=10**12, waited=10**12, in_use=10**6, max_size=10**6, waits=replace(TIMES, p95=1e9)),
        pool("[bold]pool", timeouts=10**9, destroyed={"odd\nreason": 3}, create_errors={"[u]E\x07": 1}),
        *(pool(f"pool {position}") for position in range(100)),
    ],
    [
        batch(LONG, item_count=10**12, mean_size=1e9, queue_size=10**9, durations=replace(TIMES, p95=1e9)),
        batch("[u]batch\n", item_errors={"[b]": 1}),
        *(batch(f"batch {position}") for position in range(100)),
    ],
    [LazyRow(LONG, replace(TIMES, p50=1e9), {"E": 10**9}), *(LazyRow(f"lazy {position}", TIMES, {}) for position in range(100))],
)


@pytest.mark.parametrize("width", [40, 41, 60, 80, 100, 200])
@pytest.mark.parametrize("color", [False, True])
def test_huge_reports(width: int, *, color: bool) -> None:
    """No line is too long, no figure is cut, no name is lost, and nothing in a name is an instruction."""
    text = HUGE.to_text(width=width, color=color)
    assert (ESCAPE.search(text) is not None) == color
    text = ESCAPE.sub("", text)
    assert "\x1b" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "[red]x[/red]" in text
    joined = "".join(line.split("  ")[0].strip() for line in text.splitlines())
    assert LONG in joined
    assert "x" * 300 in joined
    assert "名前" * 20 in joined
    assert text.count("cache ") >= 100
    for kind in ("operation", "pool", "batch", "lazy"):
        assert text.count(f"{kind} ") >= 100
    assert "[bold]pool" in text
    assert r"[u]batch\n" in text
    assert "odd\nreason" not in text
    assert r"tab\there\nand" in text.replace("\n", "")


def test_markup_is_text() -> None:
    """In headlines, tables and notes."""
    text = report([cache("[bold]a[/]", load_errors={"[link=x]": 1})], {"[/red]": operation(errors={"[u]E": 1})}).to_text()
    for name in ("[bold]a[/]", "[link=x]", "[/red]", "[u]E"):
        assert name in text


def test_an_empty_report() -> None:
    """One sentence, in any width."""
    empty = PerformanceReport(Summary(), {}, {})
    assert empty.to_text() == "Performance report: nothing was cached or measured yet.\n"
    assert empty.to_text(width=40).splitlines() == ["Performance report: nothing was cached", "or measured yet."]


def test_too_narrow() -> None:
    """The message has the width and what is needed."""
    with pytest.raises(ValueError, match=r"width=39.* 40"):
        SMALL.to_text(width=39)


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"COLUMNS": "20"}, {"TERM": "xterm-256color"}, {}]
)
def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """The caller decides about width and colours, not the terminal of whoever started the process."""
    expected = SMALL.to_text(width=50, color=True), SMALL.to_text(width=50)
    for variable in ("TERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert (SMALL.to_text(width=50, color=True), SMALL.to_text(width=50)) == expected
    assert expected[0] != expected[1] == ESCAPE.sub("", expected[0])


def test_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The text is returned, not displayed."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    assert SMALL.to_text().startswith("Performance report:\n  99.7%")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (1e-9, "0.00 us"), (9.996e-6, "10.0 us"), (0.0009994, "999 us"), (0.0009996, "1.00 ms"),
        (0.09999, "100 ms"), (0.9996, "1.00 s"), (59.96, "60.0 s"), (3599.9, "3,600 s"), (3600, "1.00 h"), (1e9, "277,778 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """Three digits, with the unit that fits after rounding."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (999 * 1024, "999 KiB"), (1023 * 1024, "1.00 MiB"),
        (2**40, "1,024 GiB"), (10 * 2**20, "10.0 MiB"),
    ],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    """Bytes, and three digits of more."""
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (99_999, "99,999"), (100_000, "100k"), (999_499, "999k"), (999_500, "1.00M"), (10**16, "10,000T")],
)
def test_numbers(count: float, text: str) -> None:
    """In full as long as that is short."""
    assert number(count) == text


@pytest.mark.parametrize("width", [1, 2, 7, 8, 12, 20, 100])
@pytest.mark.parametrize("name", [LONG, "...a..b.", "x" * 30, "__a_.b_c_" * 5, "名前.名前", "", "."])
def test_folding(name: str, width: int) -> None:
    """Nothing is lost, and no line is too long, unless one character is."""
    lines = folded(name, width).split("\n")
    assert "".join(lines) == name
    assert all(cell_len(line) <= max(width, 2) for line in lines)


def test_counted_things() -> None:
    """One is one; none are many."""
    assert [many(count, "batch", "batches") for count in (0, 1, 2)] == ["0 batches", "1 batch", "2 batches"]
    assert many(1_234_567, "item") == "1.23M items"


def test_means() -> None:
    """Three digits, whatever the size."""
    assert [number(mean) for mean in (0.0, 1.0, 13.043, 1234.5, 123_456.7)] == ["0.00", "1.00", "13.0", "1,234", "123k"]


def test_printable() -> None:
    """What a terminal would act on becomes an escape; letters of all scripts stay."""
    assert printable("a\r\n\x07\x9b\u202e名é ") == "a\\r\\n\\x07\\x9b\\u202e名é "
