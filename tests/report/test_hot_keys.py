"""Hot keys in the report: as text that breaks nothing, whatever a key is, and nowhere else."""

import json
import random
import re
from html import unescape
from typing import Any

import pytest

from otel_perfopt import get_performance_report
from otel_perfopt.cache import hot
from otel_perfopt.report import HotKeyRow, PerformanceReport
from otel_perfopt.report.hot_keys import LENGTH, hot_keys, shown
from otel_perfopt.report.saved import parse_report
from otel_perfopt.telemetry.reader import read_metrics
from tests.cache.support import new_cache
from tests.report.reports import NASTY, cache, report
from tests.report.test_html import Outline

MANY = 50 * hot.MEAN_DISTANCE


@pytest.fixture(autouse=True)
def chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same samples in every run."""
    monkeypatch.setattr(hot, "chance", random.Random(1))


def used(name: str, *keys: object, **options: Any) -> Any:
    """A cache with many requests for keys."""
    made = new_cache(name, **options)
    for number in range(MANY):
        made.get(keys[number % len(keys)], lambda: 1)
    return made


class Talkative:
    """Says what it is told to say."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        if not self.text:
            raise ValueError("says nothing")
        return self.text


class Silent:
    """Has nothing to say."""


def test_the_report_has_the_hot_keys_of_each_cache() -> None:
    """With estimates and shares; none of a cache where it is turned off, or that had few requests."""
    kept = [used("hot a", "x"), used("hot b", ("y", 1), "z"), used("hot off", "w", hot_keys=False), new_cache("hot idle")]
    caches = get_performance_report().caches
    assert caches["hot a"].hot_keys == [HotKeyRow("'x'", MANY, 1.0)]
    assert {row.key for row in caches["hot b"].hot_keys} == {"('y', 1)", "'z'"}
    assert all(row.share == row.requests / MANY for row in caches["hot b"].hot_keys)
    assert caches["hot off"].hot_keys == caches["hot idle"].hot_keys == []
    del kept


def test_caches_of_one_name_are_one() -> None:
    """Their requests are added, and so are those for keys that look alike."""
    kept = [used("hot twice", 1), used("hot twice", 1), used("hot twice", 2)]
    assert get_performance_report().caches["hot twice"].hot_keys == [
        HotKeyRow("1", 2 * MANY, 2 / 3),
        HotKeyRow("2", MANY, 1 / 3),
    ]
    del kept
    assert "hot twice" not in hot_keys()


def test_bug_keys_of_a_cache_that_look_alike_are_not_added() -> None:
    """Long ones are cut in the middle, where they may differ."""
    kept = used("hot alike", *(f"select {'a' * 50}{number}{'z' * 50}" for number in range(4)))
    rows = get_performance_report().caches["hot alike"].hot_keys
    assert [row.key for row in rows] == ["'select aaaaa...zzzzzzzzzzzzz'"] * 4
    assert all(row.share < 0.6 for row in rows)
    assert sum(row.share for row in rows) <= 1
    del kept


@pytest.mark.parametrize("asks", [0, MANY])
def test_bug_a_cache_may_be_cleared_while_the_report_is_made(monkeypatch: pytest.MonkeyPatch, asks: int) -> None:
    """Whatever is asked for after that, nothing is divided by zero, and no share is more than all."""
    made = used("hot cleared", "x")

    def clear(asked: hot.HotKeys) -> int:
        if asked is made._hot:
            monkeypatch.undo()
            made.clear()
            for _ in range(asks):
                made.get("y", lambda: 1)
        return 0  # as it was when the cache was cleared

    monkeypatch.setattr(hot.HotKeys, "requests", property(clear))
    assert all(row.share <= 1 for row in hot_keys().get("hot cleared", []))


def test_a_saved_report_keeps_them() -> None:
    """As objects of their own; a report of an earlier version has none."""
    row = cache("users", hot_keys=[HotKeyRow("'ada'", 41, 0.41)])
    made = report([row])
    assert json.loads(made.to_json())["caches"]["users"]["hot_keys"] == [{"key": "'ada'", "requests": 41, "share": 0.41}]
    assert parse_report(made.to_json().encode()) == made
    earlier = made.to_dict()
    del earlier["caches"]["users"]["hot_keys"]
    assert parse_report(json.dumps(earlier).encode()).caches["users"].hot_keys == []


def test_no_metric_carries_a_key() -> None:
    """Nor does the name of anything."""
    kept = used("hot secret", "a very private key")
    assert "a very private key" in str(get_performance_report().to_dict())
    assert "a very private key" not in read_metrics().to_json()
    del kept


# what a key looks like ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("user:7", "'user:7'"),
        (("a", 1, None), "('a', 1, None)"),
        ("two\nlines", r"'two\nlines'"),
        (Talkative("two\nlines \x1b[2J \u202e"), r"two\nlines \x1b[2J \u202e"),
        (Talkative(""), r"<Talkative instance at 0x"),
        ("a" * 100_000, "'aaaaaaaaaaaa...aaaaaaaaaaaaa'"),
        (tuple(range(100)), "(0, 1, 2, 3, 4, 5, ...)"),
        (("a" * 100,) * 6, "('aaaaaaaaaaaa...aaaaaaaaaaaaa', 'aaaaaaaaaaaa...aaaaaaaa..."),
        ((Silent(), "tea"), "(<Silent at 0x"),
    ],
)
def test_a_key_is_one_short_line(key: object, text: str) -> None:
    """Whatever it is, and whatever its `__repr__` does."""
    found = shown(key)
    assert found.startswith(text)
    assert len(found) <= LENGTH
    assert found.isprintable()


def test_a_key_that_cannot_be_shown_at_all() -> None:
    """Its type is better than no report."""

    class Odd(tuple[int, ...]):
        __slots__ = ()

        def __iter__(self) -> Any:
            raise ValueError("not iterable")

    Odd.__name__ = "tuple"  # the module `reprlib` goes by the names of types
    assert shown(Odd([1])) == f"<{Odd.__qualname__}>"


def with_keys(*keys: str) -> PerformanceReport:
    """A report with these hot keys, the first the hottest."""
    rows = [HotKeyRow(key, 100 - place, (50 - place) / 100) for place, key in enumerate(keys)]
    return report([cache("users", hot_keys=rows)])


def test_text_has_one_line_for_them() -> None:
    """With as many as there is room for."""
    text = with_keys("'ada'", "'grace'", *(f"('team', {number})" for number in range(8))).to_text()
    assert text.splitlines()[-1] == "users: hot keys 'ada' (50.0%), 'grace' (49.0%), ('team', 0) (48.0%)"
    assert with_keys("'ada'").to_text(width=40).splitlines()[-1] == "users: hot keys 'ada' (50.0%)"


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("key", [*map(shown, NASTY), "'漢字キャッシュ漢字キャッシュ漢字キャッシュ'", *NASTY])
def test_text_with_any_key(key: str, width: int) -> None:
    """Also one of a saved report, which somebody may have changed."""
    lines = with_keys(key, key).to_text(width=width).splitlines()
    assert "50.0%" in "".join(lines)
    assert all(line.isprintable() for line in lines)


def test_html_shows_them_as_text() -> None:
    """Below the cache's name, never as markup."""
    page = with_keys(*NASTY).to_html()
    Outline(page)
    assert "<script" not in page
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", page)
    found = re.findall(r"<dt>(.*?)</dt><dd><bdi>(.*?)</bdi></dd>", page)
    assert [share for share, _ in found] == [f"{50 - place}.0%" for place in range(len(NASTY))]
    assert [unescape(key) for _, key in found][:5] == list(NASTY[:5])
    assert "Hot keys" in page
    assert "Hot keys" not in report([cache("users")]).to_html()


def test_html_shows_those_of_the_first_caches() -> None:
    """A page of a hundred caches stays small."""
    rows = [cache(f"cache {number}", hits=100 - number, hot_keys=[HotKeyRow("1", 1, 1.0)]) for number in range(100)]
    assert len(re.findall("<dt>100%</dt>", report(rows).to_html())) == 12
