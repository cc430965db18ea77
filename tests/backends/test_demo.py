"""The demo tells one story in three places: the terminal, the page, and whoever receives the export."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.receivers import GrpcBackend, HttpBackend
from tests.backends.repositories import make_repository

CACHES = ("compilation", "dependencies", "git_info", "task_specs")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with a few files."""
    return make_repository(tmp_path / "repository")


def test_the_same_figures_everywhere(repository: Path, tmp_path: Path, backend: HttpBackend | GrpcBackend) -> None:
    """Hits and misses of each cache, and calls of each operation."""
    page = tmp_path / "page.html"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [
        "-c",
        "import sys; from otel_perfopt.cli import main; sys.exit(main())",
        "demo",
        "--repo",
        str(repository),
        "--requests",
        "300",
        "--html",
        str(page),
    ]
    done = subprocess.run(
        [sys.executable, *command, "--otlp", backend.endpoint],
        env=environment | {"OTEL_EXPORTER_OTLP_PROTOCOL": backend.protocol},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert f"exported to {backend.endpoint}" in done.stderr
    requests = backend.last("perfopt.cache.requests")
    durations = backend.last("perfopt.operation.duration")
    for name in CACHES:
        received = {
            result: sum(
                point.value
                for point in requests.values()
                if point.attributes["perfopt.cache.name"] == name and point.attributes["perfopt.cache.result"] == result
            )
            for result in ("hit", "miss")
        }
        calls = sum(p.value for p in durations.values() if p.attributes["perfopt.operation.name"] == name)
        assert received["hit"] + received["miss"] == calls == 300
        row = re.search(rf"^{name} +[\d.]+% +([\d,]+) +([\d,]+) ", done.stdout, re.MULTILINE)
        assert row is not None, done.stdout
        assert [int(figure) for figure in row.groups()] == [received["hit"], received["miss"]]
        cells = re.search(rf"<tr[^>]*>(?:(?!</tr>).)*?{name}.*?</tr>", page.read_text(encoding="utf-8"), re.DOTALL)
        assert cells is not None
        figures = re.sub(r"<[^>]*>", " ", cells.group()).split()
        assert {str(int(received["hit"])), str(int(received["miss"]))} <= set(figures)
    assert {span.name for span in backend.spans} >= {f"load {name}" for name in CACHES}
    assert "cache.miss" in {record.event for record in backend.records}
