"""The HTML report, without a browser."""

import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from textwrap import dedent

import pytest

import otel_perfopt.report
from otel_perfopt.errors import MissingExtra
from otel_perfopt.report import PerformanceReport
from otel_perfopt.report.compare import compare
from otel_perfopt.report.compare_html import render as comparison_page
from tests.report.reports import (
    NASTY,
    batch,
    cache,
    latency,
    lazy,
    many,
    nasty,
    observed,
    operation,
    pool,
    report,
    tiered,
    typical,
)

PAGES = {"empty": report(), "typical": typical(), "nasty": nasty(), "many": many()}
VOID = {"meta", "link", "br", "wbr"}


class Outline(HTMLParser):
    """Reads a page strictly: every element is closed where it must be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_all_in_itself(name: str) -> None:
    """It runs no script, refers to nothing outside, and forbids the browser to do either."""
    page = PAGES[name].to_html()
    outline = Outline(page)
    assert not {"script", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in outline.elements}
    for tag, attributes in outline.elements:
        assert not any(key.startswith("on") or key in {"src", "srcset", "style", "xlink:href"} for key in attributes)
        if "href" in attributes:
            assert (tag, attributes["href"]) == ("link", "data:,")
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_everybody(name: str) -> None:
    """It has a language and a title, and every chart says what it shows."""
    outline = Outline(PAGES[name].to_html(title="A <title>"))
    assert ("html", {"lang": "en"}) in outline.elements
    charts = [attributes for tag, attributes in outline.elements if tag == "svg"]
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    headings = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(headings))


@pytest.mark.parametrize("name", PAGES)
def test_the_same_report_gives_the_same_page(name: str) -> None:
    """There is no date, and nothing random, in it."""
    assert PAGES[name].to_html() == PAGES[name].to_html()


def test_names_are_text() -> None:
    """Whatever a name contains is shown, and never markup, a template or a control character."""
    page = nasty().to_html(title="<script>alert(2)</script>")
    assert "<script" not in page
    assert "49" not in re.findall(r"<bdi>(.*?)</bdi>", page)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", page)
    shown = {unescape(re.sub("<wbr>", "", name)) for name in re.findall(r"<th scope=\"row\".*?<bdi>(.*?)</bdi>", page)}
    assert set(NASTY[:5]) <= shown
    assert r"é\u202eright to left\x00\x1b[2J\ud800" in shown
    page.encode()


def test_names_that_look_alike_are_both_there() -> None:
    """No row hides another one."""
    page = report((), {"a\x00": operation(10), "a\\x00": operation(20)}).to_html()
    assert re.findall(r'data-name="(.*?)"', page) == ["a\\x00", "a\\x00&#39;"]


def test_sections_are_there_when_there_is_something_in_them() -> None:
    """A report of caches says nothing about operations, and so on; they come in one order."""
    alone = {
        "caches": report([cache("a")]),
        "pools": report(pools=[pool("a")]),
        "batches": report(batches=[batch("a")]),
        "lazy-loads": report(lazy_loads=[lazy("a", 0.5)]),
        "operations": report((), {"a": operation()}),
    }
    for key, made in alone.items():
        assert re.findall(r'<h2 id="([\w-]+)"', made.to_html()) == [key]
    assert re.findall(r'<h2 id="([\w-]+)"', typical().to_html()) == ["notes", *alone]
    assert "Nothing was cached or measured yet." in report().to_html()
    assert "<svg" not in report().to_html()


def test_evictions_of_any_reason_are_shown() -> None:
    """The known reasons come first, in one order; a reason of a later version follows."""
    page = report([cache("a", evictions={"zeal": 2, "expired": 1, "weight": 0, "capacity": 7})]).to_html()
    legend = page[page.index("Evicted, by reason") :]
    assert re.findall(r'<li class="key-\d">(\w+)</li>', legend)[:3] == ["capacity", "expired", "zeal"]
    assert "<title>a: 7 capacity</title>" in legend


def lead_of(made: PerformanceReport) -> str:
    """Return the sentences at the top of the page."""
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', made.to_html())
    return unescape(lead)


def test_the_lead_sentence() -> None:
    """The whole report in a few sentences, with the right numbers and plurals."""
    assert lead_of(report(pools=[pool("a", acquires=1, waited=1)])) == "1 caller got a resource; 1 of them had to wait."
    assert lead_of(report(pools=[pool("a"), pool("b", waited=0)])) == "200 callers got a resource; 20 of them had to wait."
    assert lead_of(report(pools=[pool("a", waited=0)])) == "100 callers got a resource; none had to wait."
    assert lead_of(report(pools=[observed("a")])) == "100 callers got a resource."
    assert lead_of(report(pools=[pool("a", acquires=0, waited=0)])) == "1 pool had no caller yet."
    assert lead_of(report(batches=[batch("a", items=1, batches=1)])) == "1 item went through 1 batch; none failed."
    assert lead_of(report(batches=[batch("a", item_errors={"E": 2})])) == "200 items went through 20 batches; 2 of them failed."
    assert lead_of(report(batches=[batch("a", items=0, batches=0)])) == "1 batch processor had no batch yet."
    assert lead_of(report(lazy_loads=[lazy("a", 0.5)])) == "1 lazy load took 500 ms in all; none failed."
    assert lead_of(report(lazy_loads=[lazy("a", 0.5, 1.0, E=1)])) == "2 lazy loads took 1.50 s in all; 1 more failed."
    assert lead_of(typical()) == (
        "75.0% of 4,000 cache requests were answered from the cache; 30 more got a stale answer. "
        "1,050 callers got a resource; 170 of them had to wait. "
        "1,200 items went through 80 batches; 7 of them failed. 1,401 calls took 6.59 s in all; 3 of them failed."
    )


def notes_of(made: PerformanceReport) -> list[tuple[str, str]]:
    """Return the notes of the page with their tones."""
    found = re.findall(r'<li class="(bad|warn)"><span>(.*?)</span></li>', made.to_html())
    return [(tone, unescape(re.sub("<.*?>", "", text))) for tone, text in found]


def test_what_is_worth_a_look() -> None:
    """What failed comes first, the most frequent on top; what is only tight comes after it."""
    busy = pool("a", timeouts=3, rejected=1, leaks=2, waiting=4, in_use=10, create_errors={"OSError": 2})
    full = batch("b", item_errors={"ValueError": 5}, queue_size=100, max_queue=100)
    assert notes_of(report(pools=[busy], batches=[full], lazy_loads=[lazy("c", KeyError=1)])) == [
        ("bad", "b 5 of 200 items failed: ValueError (5)"),
        ("bad", "a 3 callers timed out"),
        ("bad", "a 2 creations failed: OSError (2)"),
        ("bad", "a 1 caller rejected because too many waited"),
        ("bad", "c 1 lazy load failed: KeyError (1)"),
        ("warn", "b the queue is full: 100 items"),
        ("warn", "a waiting: 4 callers at this moment; 10 of at most 10 in use"),
        ("warn", "a 2 resources held for suspiciously long, or dropped without being released"),
    ]
    tiers = [
        tiered("d"),
        tiered("e", tier="redis", open_breakers=["redis"]),
        tiered("f", tier_errors={}, open_breakers=["sqlite"]),
    ]
    assert notes_of(report(tiers)) == [
        ("bad", "e redis failed with otel_perfopt.errors.TierError (12), and is left alone for now"),
        ("bad", "f sqlite is left alone for now"),
        ("warn", "d sqlite failed with otel_perfopt.errors.TierError (12)"),
    ]
    calm = report(pools=[pool("a")], batches=[batch("b", queue_size=99, max_queue=100)], lazy_loads=[lazy("c", 1.0)])
    assert notes_of(calm) == []


def legend_of(page: str, title: str) -> list[str]:
    """Return the legend of the chart with this title."""
    return re.findall(r'<li class="key-\d+">(.*?)</li>', page[page.index(f"<figcaption>{title}") :].partition("</figure>")[0])


def head_of(page: str) -> list[str]:
    """Return the titles of the columns of the first table."""
    return re.findall(r'<th scope="col">(.*?)</th>', page.partition("</thead>")[0])


def test_caches_with_tiers() -> None:
    """Hits by tier, stale answers, refreshes and errors have their places, if there is a cache with such a thing."""
    page = report([tiered("a"), tiered("b", tier="redis", behind=0, stale_count=0), cache("c")]).to_html()
    assert legend_of(page, "Requests") == ["hits from memory", "hits from redis", "hits from sqlite", "stale answers", "misses"]
    told = {*re.findall("<title>(.*?)</title>", page)}
    assert {"a: 780 hits from memory", "a: 120 hits from sqlite", "a: 30 stale answers", "c: 90 hits from memory"} <= told
    assert {"from redis", "from sqlite", "stale", "refreshes", "tier errors"} <= {*head_of(page)}
    assert "<dd>memory (780), sqlite (120)</dd>" in page
    assert "<dd>sqlite failed with otel_perfopt.errors.TierError (12)</dd>" in page
    plain = report([cache("a"), cache("b")]).to_html()
    assert legend_of(plain, "Requests") == ["hits", "misses"]
    assert not {"from sqlite", "stale", "refreshes", "tier errors"} & {*head_of(plain)}


def test_charts_of_pools() -> None:
    """Mean use, callers and ends of resources."""
    resized = pool("a", in_use=30, max_size=20, utilization=1.5, destroyed={"resize": 2, "zeal": 3, "idle": 1, "lost": 0})
    page = report(pools=[resized, pool("b", waited=0, mean_in_use=0.123), observed("c")]).to_html()
    assert {"a: 2.5", "b: 0.12"} <= {*re.findall("<title>(.*?)</title>", page)}
    assert {"a: 80 at once", "a: 20 waited", "b: 0 waited"} <= {*re.findall("<title>(.*?)</title>", page)}
    assert not re.search("<title>c: .* at once</title>", page)
    assert legend_of(page, "Destroyed, by reason") == ["idle", "resize", "zeal"]


def test_waits_are_drawn_without_those_that_did_not_wait() -> None:
    """Otherwise one bar at zero would hide the others; the percentiles are still those of all callers."""
    page = report(pools=[pool("a", acquires=1000, waited=10, wait=0.2)]).to_html()
    card = page[page.index("How long callers waited") : page.index("How long resources were used")]
    assert "10 of 1,000 callers waited" in card
    assert sum(int(count) for count in re.findall(r"<title>(\d+) took", card)) == 10
    assert [re.sub(" .*", "", tip) for tip in re.findall(r"<title>(p\d\d .*?)</title>", card)] == []
    assert re.findall(r"<dd>(.*?)</dd>", card) == ["0 s", "0 s", "0 s"]
    assert "How long callers waited" not in report(pools=[pool("a", waited=0)]).to_html()


def test_charts_of_batches_and_lazy_loads() -> None:
    """Batches by reason in one order, mean sizes and failures; a distribution of a single lazy load would say nothing."""
    failing = batch("a", item_errors={"E": 50}, flushes={"close": 1, "timeout": 9, "size": 10, "weight": 0})
    page = report(batches=[failing], lazy_loads=[lazy("b", 0.5), lazy("c", 0.1, 0.2)]).to_html()
    assert legend_of(page, "Batches, by reason") == ["size", "timeout", "close"]
    assert {"a: 10.0", "a: 25.0%", "b: 500 ms", "c: 300 ms"} <= {*re.findall("<title>(.*?)</title>", page)}
    assert re.findall('<h4 title="(.*?)"', page) == ["a", "c"]


def test_the_size_of_a_page_stays_small() -> None:
    """A page of one component is small, and one of a hundred of each kind can still be sent by mail."""
    assert len(report([cache("a")], {"a": operation()}).to_html()) < 60_000
    hundred = many(100)
    assert len(report(hundred.caches.values(), hundred.operations, pools=hundred.pools.values()).to_html()) < 700_000
    assert len(hundred.to_html()) < 1_000_000


def test_extreme_reports_are_drawn() -> None:
    """All zeros, one value, and values far apart."""
    for made in (
        report([cache("a", hits=0, misses=0)]),
        report([cache("a", hits=1, misses=0)]),
        report((), {"a": operation(1, mean=1e-12), "b": operation(1, mean=1e8)}),
        report([cache("a", hits=10**15, misses=10**15 // 10**13)]),
        report(pools=[pool("a", acquires=0, waited=0, total_created=0, uses=latency(()), creations=latency(()))]),
        report(pools=[replace(pool("a", acquires=1), acquires=10**15, waited=10**15, waits=latency([1e8]), uses=latency([0.0]))]),
        report(batches=[batch("a", items=0, batches=0)], lazy_loads=[lazy("a", E=1)]),
        report(batches=[batch("a", durations=latency([0.0, 1e8]), mean_size=1e12, max_size=10**15)]),
    ):
        Outline(made.to_html())


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra; a notebook shows the text instead."""
    for module in [name for name in sys.modules if name.startswith(("otel_perfopt.report.html", "otel_perfopt.report.charts"))]:
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr(otel_perfopt.report, module.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "pygal", None)
    with pytest.raises(MissingExtra, match=r"pygal.*otel-perfopt\[html\]"):
        typical().to_html()
    assert typical()._repr_html_() is None


def test_a_notebook_gets_a_frame() -> None:
    """The styles of the page and of the notebook do not meet."""
    frame = typical()._repr_html_()
    assert frame is not None
    ((_, attributes),) = Outline(frame).elements
    assert attributes["srcdoc"] == typical().to_html()


def test_the_charts_leave_the_interpreter_alone() -> None:
    """The import hook of pygal, which breaks those who walk sys.meta_path, is gone; and only a page costs the import."""
    code = """
        import sys
        import otel_perfopt.report
        import otel_perfopt.cli
        assert "pygal" not in sys.modules
        import otel_perfopt.report.html
        assert "pygal" in sys.modules
        assert all(hasattr(finder, "find_spec") for finder in sys.meta_path)
    """
    subprocess.run([sys.executable, "-W", "error", "-c", dedent(code)], check=True, timeout=60)


@pytest.mark.parametrize(
    ("before", "after"), [(typical(), typical()), (nasty(), nasty()), (nasty(), many(20)), (report(), report())]
)
def test_the_page_of_a_comparison(before: PerformanceReport, after: PerformanceReport) -> None:
    """It has every component, as text."""
    found = compare(before, after)
    page = comparison_page(found, title="<b>")
    Outline(page)
    assert "<script" not in page
    assert page.count("<article") == len(found.changes)
