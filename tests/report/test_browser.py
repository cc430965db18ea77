"""The HTML report in Chromium: no errors, no requests, the figures of the report, and no page wider than a phone."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from otel_perfopt.report import PerformanceReport
from otel_perfopt.report.compare import compare
from otel_perfopt.report.compare_html import render as comparison_page
from tests.report.reports import cache, many, nasty, operation, report, typical

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs a browser: apt-get install chromium chromium-driver"),
]

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
ROWS = """
    return [...document.querySelectorAll('section[aria-labelledby=' + arguments[0] + '] tr[data-name]')].map(row => [
        row.dataset.name,
        [...row.querySelectorAll('td')].map(cell => cell.dataset.value ? Number(cell.dataset.value) : null),
    ])
"""
TILES = """
    return [...document.querySelectorAll('.tile')].map(tile => [
        tile.querySelector('dt').textContent, Number(tile.querySelector('dd').dataset.value),
    ])
"""
CUT = """
    const within = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
        && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
    return [...document.querySelectorAll('svg text, svg .series rect, svg circle')]
        .filter(mark => mark.getBoundingClientRect().width && mark.checkVisibility())
        .filter(mark => !within(mark.getBoundingClientRect(), mark.closest('.card').getBoundingClientRect()))
        .map(mark => mark.closest('svg').getAttribute('aria-label') + ': ' + mark.textContent)
"""
PAGES = {
    "one": report([cache("a", evictions={"capacity": 3})], {"a": operation(errors={"E": 1})}),
    "typical": typical(),
    "nasty": nasty(),
    "many": many(),
    "empty": report(),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a browser that notes its requests and the messages of its console."""
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


def show(browser: Any, page: str, folder: Path, *, width: int, dark: bool = False) -> None:
    """Open a page in a window of this width; fail if the console has a message, or anything but the page is asked for."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    device = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    messages = [entry["message"] for entry in browser.get_log("performance")]
    asked = [message for message in messages if "Network.requestWillBeSent" in message]
    assert all(path.as_uri() in message or '"url":"data:' in message for message in asked)


def cache_figures(made: PerformanceReport) -> dict[str, list[Any]]:
    """Return the figures of the table of caches; some columns are only there if one of them has something to show."""
    tiers = sorted({tier for row in made.caches.values() for tier in row.hits_by_tier} - {"memory"})
    has_stale, has_refreshes, has_errors = (
        any(getattr(row, figure) for row in made.caches.values()) for figure in ("stale_count", "refreshes", "tier_errors")
    )
    return {
        name: [
            row.hit_rate if row.request_count else None,
            row.hit_count,
            *(row.hits_by_tier.get(tier) for tier in tiers),
            *([row.stale_count] if has_stale else []),
            *(row.miss_count, row.size, row.max_size, row.memory_usage),
            *(sum(row.evictions.values()), sum(row.invalidations.values()), row.loads.count),
            *([row.refreshes] if has_refreshes else []),
            *((row.loads.p50, row.loads.p95, row.loads.p99) if row.loads.count else (None, None, None)),
            sum(row.load_errors.values()),
            *([sum(sum(kinds.values()) for kinds in row.tier_errors.values())] if has_errors else []),
        ]
        for name, row in made.caches.items()
    }


def operation_figures(made: PerformanceReport) -> dict[str, list[Any]]:
    """Return the figures of the table of operations, without those of memory."""
    return {
        name: [
            *(row.count, row.error_count, row.total_duration, row.avg_duration, row.min_duration),
            *(row.p50_duration, row.p95_duration, row.p99_duration, row.max_duration),
        ]
        for name, row in made.operations.items()
    }


def pool_figures(made: PerformanceReport) -> dict[str, list[Any]]:
    """Return the figures of the table of pools."""
    return {
        name: [
            *((row.in_use, row.max_size) if row.max_size else (None, None)),
            row.mean_in_use if row.uses.count else None,
            *(row.acquires, row.waited),
            *((row.waits.p50, row.waits.p95, row.waits.p99) if row.waits.count else (None, None, None)),
            *((row.uses.p50, row.uses.p95) if row.uses.count else (None, None)),
            row.total_created,
            *((row.creations.p50, row.creations.p95) if row.creations.count else (None, None)),
            *(sum(row.destroyed.values()), row.timeouts, row.rejected, row.leaks),
        ]
        for name, row in made.pools.items()
    }


def batch_figures(made: PerformanceReport) -> dict[str, list[Any]]:
    """Return the figures of the table of batch processors."""
    return {
        name: [
            *(row.item_count + sum(row.item_errors.values()), sum(row.item_errors.values()), sum(row.flushes.values())),
            *((row.mean_size, row.max_size) if row.max_size else (None, None)),
            *(row.queue_size, row.max_queue, row.waits.p95 if row.waits.count else None),
            *((row.durations.p50, row.durations.p95, row.durations.p99) if row.durations.count else (None, None, None)),
        ]
        for name, row in made.batches.items()
    }


def lazy_figures(made: PerformanceReport) -> dict[str, list[Any]]:
    """Return the figures of the table of lazy loads."""
    return {
        name: [
            *(row.loads.count, sum(row.load_errors.values()), row.loads.total),
            *((row.loads.p50, row.loads.p95, row.loads.p99, row.loads.max) if row.loads.count else (None,) * 4),
        ]
        for name, row in made.lazy_loads.items()
    }


FIGURES = {
    "caches": cache_figures,
    "pools": pool_figures,
    "batches": batch_figures,
    "lazy-loads": lazy_figures,
    "operations": operation_figures,
}


@pytest.mark.parametrize("name", ["one", "typical", "many"])
def test_the_figures_are_those_of_the_report(name: str, browser: Any, tmp_path: Path) -> None:
    """Every row of the report is in the page once, with its values."""
    made = PAGES[name]
    show(browser, made.to_html(), tmp_path, width=1280)
    for section, figures_of in FIGURES.items():
        rows, figures = browser.execute_script(ROWS, section), figures_of(made)
        assert len(rows) == len(figures)
        found = dict(rows)
        for key, values in figures.items():
            for shown, value in zip(found[key], values, strict=False):
                assert shown == value if value is None else math.isclose(shown, value), (key, values)
    tiles = dict(browser.execute_script(TILES))
    assert tiles["cache hit rate"] == made.summary.cache_hit_rate
    assert [tiles["calls"], tiles["spent in calls"]] == [made.summary.total_operations, made.summary.total_duration]
    assert tiles.get("acquires of resources", 0) == sum(row.acquires for row in made.pools.values())
    assert tiles.get("items in batches", 0) == sum(items for items, *_ in batch_figures(made).values())
    assert browser.title == "Performance report"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(name: str, dark: bool, browser: Any, tmp_path: Path) -> None:
    """Nothing makes the page wider than the screen, also when everything is unfolded."""
    show(browser, PAGES[name].to_html(), tmp_path, width=390, dark=dark)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert browser.execute_script(CUT) == []
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, background.removeprefix("rgb(").removesuffix(")").split(","))) < 150 or not dark


def test_a_wide_window_shows_the_tables_of_usual_names_in_full(browser: Any, tmp_path: Path) -> None:
    """Nobody has to scroll to the last column."""
    show(browser, PAGES["typical"].to_html(), tmp_path, width=1280)
    hidden = "return [...document.querySelectorAll('.scroll')].map(table => table.scrollWidth - table.clientWidth)"
    assert browser.execute_script(hidden) == [0] * 5


def test_nothing_in_a_name_is_run(browser: Any, tmp_path: Path) -> None:
    """Names are text in the page's tree, in the charts' as well."""
    show(browser, nasty().to_html(), tmp_path, width=1280)
    assert browser.execute_script("return document.scripts.length") == 0
    names = browser.execute_script("return [...document.querySelectorAll('th bdi')].map(name => name.textContent)")
    assert "<script>alert(1)</script>" in names
    tips = browser.execute_script("return [...document.querySelectorAll('svg title')].map(tip => tip.textContent)")
    assert {f"<script>alert(1)</script>: {what}" for what in ("780 hits from memory", "20 waited", "2.5", "300 ms")} <= {*tips}


def test_the_marks_of_the_charts_are_seen(browser: Any, tmp_path: Path) -> None:
    """Each bar and dot has a size and a colour that is not that of its card."""
    show(browser, typical().to_html(), tmp_path, width=1280)
    marks = browser.execute_script("""
        return [...document.querySelectorAll('svg .series rect, svg .series circle')]
            .filter(mark => mark.tagName === 'circle' || Number(mark.getAttribute('width')))
            .map(mark => [getComputedStyle(mark).fill, mark.getBoundingClientRect().width])
    """)
    assert len(marks) > 50
    assert all(fill not in {"rgb(255, 255, 255)", "rgb(0, 0, 0)", "none"} and width > 0 for fill, width in marks)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_comparison(width: int, browser: Any, tmp_path: Path) -> None:
    """The page of a comparison keeps the same promises."""
    page = comparison_page(compare(nasty(), nasty()), title="Comparison")
    show(browser, page, tmp_path, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
