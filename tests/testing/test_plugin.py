"""The fixtures, as users have them: in a pytest of its own, with warnings as errors."""

import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "otel_perfopt.testing.plugin"


def run_python(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python with our import path, and without the plugins that happen to be installed here."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=50)


def run_pytest(folder: Path, code: str, *options: str) -> str:
    """Run tests in a file, and return what pytest says."""
    (folder / "test_service.py").write_text(textwrap.dedent(code))
    command = ["-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-W", "error", "-q", *options]
    done = run_python(*command, cwd=folder)
    return done.stdout + done.stderr


def test_perfopt_captures_the_test(tmp_path: Path) -> None:
    """From its beginning to its end, and nothing of the others."""
    said = run_pytest(
        tmp_path,
        """
        from otel_perfopt import cached, emit

        @cached(name="rates")
        def rate(currency):
            emit("rates.asked")
            return 1.1

        def test_first(perfopt):
            assert rate("USD") == rate("USD")
            assert perfopt.metric("perfopt.cache.requests", name="rates", result="miss") == 1
            assert [span.name for span in perfopt.spans] == ["load rates"]
            assert perfopt.events[0].name == "rates.asked"

        def test_second(perfopt):
            rate("USD")
            assert perfopt.metric("perfopt.cache.requests", name="rates") == 1
            assert perfopt.metric("perfopt.cache.requests", name="rates", result="miss") == 0
            assert perfopt.spans == []
        """,
    )
    assert "2 passed" in said, said


def test_a_clock(tmp_path: Path) -> None:
    """A new one for each test."""
    said = run_pytest(
        tmp_path,
        """
        import pytest

        @pytest.mark.parametrize("time", [1, 2])
        def test_it(manual_clock, time):
            assert manual_clock() == 0
            manual_clock.advance("5m")
            assert manual_clock() == 300
        """,
    )
    assert "2 passed" in said, said


def test_empty_caches(tmp_path: Path) -> None:
    """Before and after: functions, methods, and caches without a function."""
    said = run_pytest(
        tmp_path,
        """
        import pytest
        from otel_perfopt import Cache, cached

        loads = []
        plain = Cache("plain")

        @cached
        def function(x):
            loads.append(x)

        class Shop:
            @cached
            def method(self, x):
                loads.append(x)

        shop = Shop()

        def use():
            function(1), shop.method(1), plain.get(1, lambda: loads.append(1))
            return len(loads)

        def test_before():
            assert use() == use() == 3

        @pytest.mark.usefixtures("empty_caches")
        def test_empty():
            assert use() == 6

        def test_after():
            assert use() == 9
        """,
    )
    assert "3 passed" in said, said


def test_fixtures_are_told(tmp_path: Path) -> None:
    """With what they do."""
    said = run_pytest(tmp_path, "", "--fixtures")
    for fixture in ("perfopt", "manual_clock", "empty_caches"):
        assert f"\n{fixture} " in said, said


def test_a_fixture_of_the_users_own_wins(tmp_path: Path) -> None:
    """Names that are taken in a conftest stay taken."""
    (tmp_path / "conftest.py").write_text("import pytest\n\n@pytest.fixture\ndef manual_clock():\n    return 'mine'\n")
    said = run_pytest(tmp_path, "def test_it(manual_clock):\n    assert manual_clock == 'mine'\n")
    assert "1 passed" in said, said


def test_it_is_there_for_everybody() -> None:
    """Under a name that it has in no other distribution; the installed one says so as well, unless it is older."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"otel_perfopt": PLUGIN}
    found = [each for each in importlib.metadata.entry_points(group="pytest11") if each.name == "otel_perfopt"]
    assert [each.value for each in found] in ([PLUGIN], [])


def modules_of(code: str, folder: Path) -> set[str]:
    """Which modules are loaded after some code."""
    done = run_python("-c", f"{code}; import json, sys; print(json.dumps(list(sys.modules)))", cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_it_costs_little(tmp_path: Path) -> None:
    """It loads nothing but what the library itself loads, its own files, and pytest; above all not the SDK."""
    library = modules_of("import otel_perfopt, pytest", tmp_path)
    loaded: Any = modules_of(f"import pytest, {PLUGIN}", tmp_path) - library
    assert {name for name in loaded if not name.startswith("otel_perfopt.testing")} == set()
    assert not {name for name in library | loaded if name.startswith(("opentelemetry.sdk", "rich", "structlog", "sqlite3"))}


def test_the_kit_needs_no_pytest(tmp_path: Path) -> None:
    """It serves those who test with something else."""
    assert not {"pytest", "_pytest"} & modules_of("import otel_perfopt.testing", tmp_path)


@pytest.mark.parametrize("options", [(), ("-p", "no:otel_perfopt")])
def test_no_test_is_disturbed(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Those that ask for nothing: nothing is captured, and no thread runs."""
    said = run_pytest(
        tmp_path,
        """
        import threading
        from otel_perfopt.telemetry import derived, spans

        def test_it():
            assert threading.active_count() == 1
            assert spans._stand_in is None
            assert not derived._running
        """,
        *options,
    )
    assert "1 passed" in said, said
