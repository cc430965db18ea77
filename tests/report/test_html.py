"""The HTML report, without a browser."""

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from textwrap import dedent

import pytest

from otel_perfopt.errors import MissingExtra
from otel_perfopt.report import PerformanceReport
from otel_perfopt.report.compare import compare
from otel_perfopt.report.compare_html import render as comparison_page
from tests.report.reports import NASTY, cache, many, nasty, operation, report, typical

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
    """A report of caches says nothing about operations, and the other way round."""
    caches, operations = report([cache("a")]).to_html(), report((), {"a": operation()}).to_html()
    assert ('id="caches"' in caches, 'id="operations"' in caches) == (True, False)
    assert ('id="caches"' in operations, 'id="operations"' in operations) == (False, True)
    assert "Nothing was cached or measured yet." in report().to_html()
    assert "<svg" not in report().to_html()


def test_evictions_of_any_reason_are_shown() -> None:
    """The known reasons come first, in one order; a reason of a later version follows."""
    page = report([cache("a", evictions={"zeal": 2, "expired": 1, "weight": 0, "capacity": 7})]).to_html()
    legend = page[page.index("Evicted, by reason") :]
    assert re.findall(r'<li class="key-\d">(\w+)</li>', legend)[:3] == ["capacity", "expired", "zeal"]
    assert "<title>a: 7 capacity</title>" in legend


def test_the_size_of_a_page_stays_small() -> None:
    """A page of one component is small, and one of a hundred can still be sent by mail."""
    assert len(report([cache("a")], {"a": operation()}).to_html()) < 60_000
    assert len(many(100).to_html()) < 600_000


def test_extreme_reports_are_drawn() -> None:
    """All zeros, one value, and values far apart."""
    for made in (
        report([cache("a", hits=0, misses=0)]),
        report([cache("a", hits=1, misses=0)]),
        report((), {"a": operation(1, mean=1e-12), "b": operation(1, mean=1e8)}),
        report([cache("a", hits=10**15, misses=10**15 // 10**13)]),
    ):
        Outline(made.to_html())


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra; a notebook shows the text instead."""
    for module in [name for name in sys.modules if name.startswith(("otel_perfopt.report.html", "otel_perfopt.report.charts"))]:
        monkeypatch.delitem(sys.modules, module)
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
