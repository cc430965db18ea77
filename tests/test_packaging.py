"""The house: what a user finds in the installed package, and what importing it costs."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import otel_perfopt

PACKAGE = Path(otel_perfopt.__file__).parent
NOT_FOR_EVERYONE = (
    "google.protobuf", "grpc", "numpy", "psutil", "redis", "requests", "rich", "starlette", "structlog",
)  # fmt: skip


def public_names() -> list[str]:
    """What a reader of `otel_perfopt` sees: everything but submodules and underscored names."""
    members = vars(otel_perfopt).items()
    return [name for name, value in members if not (name.startswith("_") or isinstance(value, types.ModuleType))]


def in_a_fresh_process(code: str) -> object:
    """What the code, run by a Python of its own with the same import path, prints as JSON."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=50, check=True)
    return json.loads(done.stdout)


def test_all_is_sorted() -> None:
    """`__all__` is a tuple without repetitions, in the linter's order: constants, classes, functions."""
    names = otel_perfopt.__all__
    assert isinstance(names, tuple)
    assert list(names) == sorted(set(names), key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_all_is_complete() -> None:
    """`__all__` names all that is public, and nothing else; some of it is imported when somebody asks for it."""
    for name in otel_perfopt.__all__:
        getattr(otel_perfopt, name)
    assert set(otel_perfopt.__all__) == set(public_names())


@pytest.mark.parametrize("name", otel_perfopt.__all__)
def test_public_objects_are_documented(name: str) -> None:
    """Every public object has a docstring of its own, not only the one that a dataclass makes up."""
    value = getattr(otel_perfopt, name)
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")


def test_import_loads_no_optional_library() -> None:
    """Importing the package loads only what every user needs."""
    loaded = in_a_fresh_process("import json, sys, otel_perfopt; print(json.dumps(list(sys.modules)))")
    assert isinstance(loaded, list)
    assert not set(NOT_FOR_EVERYONE).intersection(loaded)


def test_import_starts_no_thread() -> None:
    """Importing the package leaves the main thread alone."""
    threads = "[thread.name for thread in threading.enumerate()]"
    assert in_a_fresh_process(f"import json, threading, otel_perfopt; print(json.dumps({threads}))") == ["MainThread"]


def test_import_sets_no_provider() -> None:
    """Importing the package leaves OpenTelemetry's globals to the service."""
    code = """
import json
from opentelemetry import metrics, trace
before = type(metrics.get_meter_provider()).__name__, type(trace.get_tracer_provider()).__name__
import otel_perfopt
after = type(metrics.get_meter_provider()).__name__, type(trace.get_tracer_provider()).__name__
print(json.dumps(before == after))"""
    assert in_a_fresh_process(code) is True


def test_few_parts_know_the_sdk() -> None:
    """Only the parts that set OpenTelemetry up or read its data import its SDK; the rest lives with the API."""
    sdk = re.compile(r"^\s*(?:from|import) opentelemetry\.(?:sdk|exporter)\b", re.MULTILINE)
    users = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if sdk.search(path.read_text("utf-8"))}
    assert users <= {"telemetry", "report", "testing", "cli"}


def test_types_are_for_users() -> None:
    """The marker that lets type checkers read the package's annotations is installed."""
    assert (PACKAGE / "py.typed").is_file()


def test_files_are_short() -> None:
    """No file is too long to be read in one sitting."""
    lengths = {path.relative_to(PACKAGE): path.read_text("utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    assert {str(path): lines for path, lines in lengths.items() if lines >= 400} == {}


def test_version() -> None:
    """The package and its distribution tell the same version."""
    assert otel_perfopt.__version__ == importlib.metadata.version("otel-perfopt")
