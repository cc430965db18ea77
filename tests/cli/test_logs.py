"""The demo with `--logs`: one line per request on standard error, and nothing else there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from otel_perfopt.cli.export import say
from otel_perfopt.telemetry.structured_logs.options import PRESETS
from tests.backends.processes import environment


def run_demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-c", "import sys; from otel_perfopt.cli import main; sys.exit(main())", "demo"]
    return subprocess.run([*command, *arguments], env=environment(), capture_output=True, text=True, timeout=50, check=False)


def test_a_line_for_each_request(root: Path) -> None:
    """In a trace of its own, with the file that was asked for; the report stays on standard output."""
    done = run_demo("--repo", str(root), "--requests", "9", "--logs", "json")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["body"] for line in lines] == ["request answered"] * 9
    assert len({line["trace_id"] for line in lines}) == 9
    assert {line["file.path"] for line in lines} <= {"pkg/a.py", "pkg/broken.py", "b with space.py"}
    assert all(line["duration"] > 0 for line in lines)
    assert "Speed-up" in done.stdout


def test_errors_are_records(tmp_path: Path) -> None:
    """Also that nothing can be done."""
    done = run_demo("--repo", str(tmp_path / "nowhere"), "--logs", "ecs")
    assert done.returncode == 2
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert line["log.level"] == "error"
    assert "nowhere" in line["message"]


def test_an_unknown_preset(root: Path) -> None:
    """It is refused with those that there are."""
    done = run_demo("--repo", str(root), "--logs", "xml")
    assert done.returncode == 2
    assert all(preset in done.stderr for preset in PRESETS)


def test_without_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """What there is to say is said in words."""
    say("exported to nowhere", as_record=False)
    assert capsys.readouterr().err == "exported to nowhere\n"
