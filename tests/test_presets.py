"""The caches of the specification: their limits, and the files behind them."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import otel_perfopt
from otel_perfopt import get_cache
from otel_perfopt.presets import CACHES, dependencies, git_info

LIMITS = {"task_specs": (100, 600.0), "git_info": (500, 60.0), "dependencies": (200, 3600.0), "compilation": (50, 1800.0)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Info(NamedTuple):
    """A value that is more than builtin types."""

    branch: str


def test_limits() -> None:
    """Those of the specification."""
    assert {name: (cache.max_size, cache.ttl) for name, build in CACHES.items() for cache in [build()]} == LIMITS


SCRIPT = """
import os
from otel_perfopt import get_cache, get_performance_report
caches = [get_cache(name) for name in ("task_specs", "git_info", "dependencies", "compilation")]
get_performance_report()
print(os.path.exists(".worktrees"))
for cache in caches:
    print(cache.get("key", lambda: "loaded"), cache.stats().hits_by_tier["sqlite"])
"""


def test_the_named_caches_outlive_the_process(here: Path) -> None:
    """In the folder where they were first used; nothing is made before."""
    env = os.environ | {"PYTHONPATH": str(Path(otel_perfopt.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    outs = [subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    assert outs == ["False\n" + "loaded 0\n" * 4, "True\n" + "loaded 1\n" * 4]
    assert {path.stem for path in here.glob(".worktrees/.cache/*.db")} == CACHES.keys()


def test_values_of_a_declared_type_are_kept() -> None:
    """So is a text beside it."""
    for _ in range(2):
        cache = git_info(value_type=Info | str)
        values = [cache.get("a", lambda: Info("main")), cache.get("b", lambda: "no commit")]
        cache.close()
        assert values == [Info("main"), "no commit"]
        assert type(values[0]) is Info
    assert cache.stats().hits_by_tier["sqlite"] == 2


def test_what_has_no_bytes_is_kept_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    """With one warning."""
    cache = dependencies()
    value = object()
    for key in ("a", "b"):
        assert cache.get(key, lambda: value) is cache.get(key) is value
    cache.close()
    assert "a" not in cache
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "is kept in memory only" in record.message


def test_a_folder_that_cannot_be_written_is_told_once(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The cache works in memory."""
    (here / ".worktrees").write_text("in the way")
    cache = git_info()
    for key in range(20):
        cache.set(key, key)
        assert cache.get(key) == key
    cache.delete(3)
    assert 3 not in cache
    assert cache.get(3, lambda: "loaded") == "loaded"
    cache.close()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "a tier of a cache fails" in warnings[0].message


def test_a_cache_that_somebody_builds_has_the_name() -> None:
    """With the limits of the specification and values of its own."""
    cache = git_info(value_type=Info)
    assert get_cache("git_info") is cache
