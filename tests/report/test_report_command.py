"""``otel-perfopt report``."""

import json
from pathlib import Path

import pytest

from otel_perfopt.cli import main
from tests.report.reports import cache, report, typical


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, made the working directory, with two reports."""
    monkeypatch.chdir(tmp_path)
    Path("before.json").write_text(typical().to_json())
    Path("after.json").write_text(report([cache("users", hits=2000, misses=10)]).to_json())
    return tmp_path


def test_text(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of a saved report is that of the report."""
    assert main(["report", "before.json", "--width", "100"]) == 0
    assert capsys.readouterr().out == typical().to_text(width=100)


def test_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON in, JSON out; of two reports it is the comparison."""
    assert main(["report", "before.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(typical().to_json())
    assert main(["report", "before.json", "after.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"][0]["name"] == "users"


def test_comparison(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The comparison names what changed, and what is gone."""
    assert main(["report", "before.json", "after.json"]) == 0
    out = capsys.readouterr().out
    assert "cache users" in out
    assert "gone: batch mails, batch unused, batch updates, cache idle, cache orders," in out
    assert max(map(len, out.splitlines())) <= 80


def test_page(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page is written to the file, or to the standard output."""
    assert main(["report", "before.json", "--html", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert page == typical().to_html(title="Performance report: before.json")
    assert capsys.readouterr().out == ""
    assert main(["report", "before.json", "after.json", "--html", "-"]) == 0
    assert "<title>From before.json to after.json</title>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.json"], "cannot read 'nope.json'"),
        (["before.json", "nope.json"], "cannot read 'nope.json'"),
        (["-", "-"], "only one of the two"),
        (["before.json", "--html", "."], "it is a folder"),
        (["before.json", "--html", "none/page.html"], "there is no such folder"),
        (["before.json", "--html", "./before.json"], "would overwrite the report"),
        (["before.json", "after.json", "--html", "after.json"], "would overwrite the report"),
        (["before.json", "--width", "39"], "not a number from 40 to 1,000"),
        (["before.json", "--width", "80", "--json"], "not allowed with"),
        ([], "required"),
    ],
)
def test_requests_that_cannot_be_served(
    arguments: list[str], message: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, and the message says what is wrong; the reports stay as they are."""
    assert main(["report", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert Path("before.json").read_text() == typical().to_json()
