"""Loading a report that was saved as JSON."""

import io
import json
from pathlib import Path

import pytest

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.report import PerformanceReport, saved
from otel_perfopt.report.compare import compare
from otel_perfopt.report.saved import load_report, parse_report
from tests.report.reports import cache, many, operation, report, tiered, typical


@pytest.mark.parametrize("made", [report(), typical(), many(3)])
@pytest.mark.parametrize("indent", [2, None])
def test_it_comes_back_as_it_was(made: PerformanceReport, indent: int | None, tmp_path: Path) -> None:
    """What to_json writes is loaded as an equal report."""
    path = tmp_path / "report.json"
    path.write_text(made.to_json(indent=indent))
    assert load_report(str(path)) == made


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_other_systems_write(encoding: str) -> None:
    """Windows line ends and the byte order marks of its shells are no obstacle."""
    text = typical().to_json().replace("\n", "\r\n")
    assert parse_report(text.encode(encoding)) == typical()


def test_later_versions() -> None:
    """Keys that this version does not know are ignored; the distribution may be missing."""
    later = typical().to_json().replace('"hit_count"', '"hit_count_ratio": 1, "hit_count"')
    assert parse_report(later.encode()) == typical()
    earlier = typical().to_dict()
    del earlier["operations"]["find"]["distribution"]
    assert parse_report(json.dumps(earlier).encode()).operations["find"].distribution == []


@pytest.mark.parametrize("without", [("pools", "batches", "lazy_loads"), ("lazy_loads",)])
def test_earlier_versions(without: tuple[str, ...]) -> None:
    """A report of a version that had no pools, batches or lazy loads has none; those with empty keys for them are the same."""
    earlier = report([cache("users")], {"find": operation()}).to_dict()
    for key in without:
        del earlier[key]
    if "pools" in without:
        del earlier["summary"]["pool_utilization"], earlier["summary"]["batch_queue_sizes"]
    assert parse_report(json.dumps(earlier).encode()) == report([cache("users")], {"find": operation()})


def test_earlier_caches() -> None:
    """A report of a version that knew neither tiers nor stale answers has none, and all its hits were in memory."""
    earlier = report([cache("users", hits=1800, misses=200)]).to_dict()
    for key in ("stale_count", "hits_by_tier", "refreshes", "tier_errors", "open_breakers"):
        del earlier["caches"]["users"][key]
    loaded = parse_report(json.dumps(earlier).encode())
    assert loaded == report([cache("users", hits=1800, misses=200, hits_by_tier={})])
    assert loaded.to_text() == report([cache("users", hits=1800, misses=200)]).to_text()
    assert "<title>users: 1,800 hits</title>" in loaded.to_html()
    (change,) = compare(loaded, report([cache("users", hits=1800, stale=200, misses=0)])).changes
    assert {figure.name: figure.verdict for figure in change.figures}["stale"] == "worse"


@pytest.mark.parametrize("kind", ["pools", "batches", "lazy_loads", "caches", "operations"])
def test_later_keys_of_rows(kind: str) -> None:
    """In rows of any kind, and beside the kinds, there may be more than this version knows."""
    later = typical().to_dict()
    for row in later[kind].values():
        row["colour"] = {"hue": [1, 2]}
    later["gateways"] = {"a": {"name": "a"}}
    assert parse_report(json.dumps(later).encode()) == typical()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf\r\n", "it is empty"),
        (b"\xff\xfe", "it is empty"),
        (b"hello", "it is not JSON"),
        (b'{"summary": ', "it is not JSON"),
        (b'{"summary": "\xff"}', "it is not JSON"),
        (b"[" * 100_000, "it is not"),
        (b"[]", "not a report of otel-perfopt: Expected `object`, got `array`"),
        (b"{}", "missing required field `summary`"),
        (b'{"summary": {}, "operations": {}}', "missing required field `caches`"),
        (b'{"summary": {}, "operations": {"a": {"count": 1}}, "caches": {}}', "`total_duration`.*operations"),
        (b'{"summary": {"total_operations": "1"}, "operations": {}, "caches": {}}', "Expected `int`.*total_operations"),
        (b'{"summary": {}, "operations": {}, "caches": {}, "pools": {"a": {"name": "a"}}}', "`total_created`.*pools"),
        (b'{"summary": {}, "operations": {}, "caches": {}, "batches": 3}', "Expected `object`.*batches"),
        (
            json.dumps(report([tiered("a", tier_errors={"sqlite": {"E": -1}})]).to_dict()).encode(),
            "`E` is -1, less than zero",
        ),
        (b'{"summary": {"total_operations": -1}, "operations": {}, "caches": {}}', "`total_operations` is -1"),
    ],
)
def test_what_is_no_report(data: bytes, message: str) -> None:
    """The message says what it is instead, or which key is wrong."""
    with pytest.raises(ConfigurationError, match=message):
        parse_report(data, source="it")


def test_a_huge_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not even parsed."""
    monkeypatch.setattr(saved, "MAX_BYTES", 2**20)
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        parse_report(b" " * (2**20 + 1))


@pytest.mark.parametrize(("name", "reason"), [("nope.json", "No such file"), (".", "directory"), ("a\0b", "null")])
def test_files_that_cannot_be_read(name: str, reason: str, tmp_path: Path) -> None:
    """The message has the path and the reason."""
    with pytest.raises(ConfigurationError, match=reason):
        load_report(str(tmp_path / name))


def test_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash is the standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typical().to_json().encode())))
    assert load_report("-") == typical()
