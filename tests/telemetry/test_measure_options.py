"""Memory, figures told by hand, pickling and copying of measured functions."""

import copy
import math
import pickle
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt import (
    ConfigurationError,
    MissingExtra,
    get_performance_report,
    measure,
    measure_performance,
    record_performance_metric,
    traced,
)
from otel_perfopt.report import OperationRow


def row(name: str) -> OperationRow:
    """The operation in the report."""
    return get_performance_report().operations[name]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let resident memory be these values, one after the other."""

    def become(*values: int) -> None:
        left = iter(values)
        monkeypatch.setattr(measure, "_resident_memory", lambda: next(left))

    return become


def test_memory_is_tracked(memory: Callable[..., None], name: str) -> None:
    """For calls that succeed, as in the specification; with a span or without."""
    measured = [
        measure_performance(name, lambda: None, track_memory=True),
        measure_performance(name, lambda: None, track_memory=True, span=False),
    ]
    failing = measure_performance(name, lambda: 1 / 0, track_memory=True)
    memory(100, 110, 100, 95, 0)
    for function in measured:
        function()  # type: ignore[no-untyped-call]  # of a lambda
    with pytest.raises(ZeroDivisionError):
        failing()  # type: ignore[no-untyped-call]  # of a lambda
    assert (row(name).memory_deltas, row(name).avg_memory_delta, row(name).count) == ([10, -5], 2.5, 3)


def test_memory_is_not_tracked_unless_asked(memory: Callable[..., None], name: str) -> None:
    """Nobody asks the system."""
    memory()
    measure_performance(name, lambda: None)()
    assert (row(name).memory_deltas, row(name).avg_memory_delta) == ([], 0.0)


def test_the_last_hundred_deltas_are_kept(name: str) -> None:
    """The mean is theirs, in the report and in the gauge."""
    for delta in range(150):
        record_performance_metric(name, 0.1, memory_delta=delta)
    assert row(name).memory_deltas == list(range(50, 150))
    assert row(name).avg_memory_delta == 99.5


def test_real_memory(name: str) -> None:
    """With psutil, in bytes."""
    pytest.importorskip("psutil")
    kept = measure_performance(name, lambda: bytearray(b"x" * 50_000_000), track_memory=True)()
    assert len(kept) == 50_000_000
    assert row(name).memory_deltas[0] > 25_000_000


def test_without_psutil(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The error comes when decorating, and says what to install."""
    monkeypatch.setattr(measure, "_process", None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingExtra, match=r"otel-perfopt\[memory\]") as caught:
        measure_performance(name, print, track_memory=True)
    assert isinstance(caught.value, ImportError)
    assert measure_performance(name, len)([1]) == 1


def test_a_system_that_refuses_to_tell(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The function's result is what matters."""

    class Refuses:
        def memory_info(self) -> Any:
            raise PermissionError

    monkeypatch.setattr(measure, "_process", Refuses())
    assert measure_performance(name, lambda: 3, track_memory=True)() == 3
    assert row(name).count == 1


def test_figures_told_by_hand(name: str) -> None:
    """Durations in every form, successes, failures with and without a type."""
    record_performance_metric(name, 1)
    record_performance_metric(name, "250ms")
    record_performance_metric(name, timedelta(minutes=1))
    record_performance_metric(name, 0, success=False)
    record_performance_metric(name, 2.0, success=False, error_type="TimeoutError")
    told = row(name)
    assert (told.count, told.success_count, told.error_count) == (5, 3, 2)
    assert told.errors == {"_OTHER": 1, "TimeoutError": 1}
    assert (told.min_duration, told.max_duration, told.total_duration) == (0, 60, 63.25)
    assert (told.avg_duration, told.success_rate) == (12.65, 0.6)


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        (ValueError, {"duration": -0.1}),
        (ValueError, {"duration": math.nan}),
        (ValueError, {"duration": math.inf}),
        (ValueError, {"duration": "soon"}),
        (ValueError, {"duration": 1_700_000_000_000}),
        (TypeError, {"duration": None}),
        (TypeError, {"duration": True}),
        (ConfigurationError, {"error_type": "TimeoutError"}),
        (TypeError, {"success": False, "error_type": 404}),
        (ConfigurationError, {"memory_delta": math.nan}),
        (ConfigurationError, {"memory_delta": -math.inf}),
        (TypeError, {"memory_delta": "1 MB"}),
        (ConfigurationError, {"name": ""}),
        (ConfigurationError, {"name": " "}),
        (TypeError, {"name": None}),
    ],
)
def test_what_cannot_be_is_refused(name: str, problem: type[Exception], options: dict[str, Any]) -> None:
    """Nothing of it is noted."""
    with pytest.raises(problem):
        record_performance_metric(**{"name": name, "duration": 0.5, **options})
    assert name not in get_performance_report().operations


@measure_performance("pickled")
def pickled(number: int) -> int:
    """Double."""
    return 2 * number


@traced("pickled")
def pickled_too(number: int) -> int:
    """Double."""
    return 2 * number


class Pickled:
    """A class with measured methods."""

    def __init__(self, number: int) -> None:
        self.number = number

    @measure_performance("pickled.method")
    def method(self) -> int:
        """Double."""
        return 2 * self.number

    @measure_performance("pickled.outside")
    @classmethod
    def class_outside(cls) -> str:
        """The class's name."""
        return cls.__name__

    @classmethod
    @measure_performance("pickled.inside")
    def class_inside(cls) -> str:
        """The class's name."""
        return cls.__name__

    @measure_performance("pickled.static")
    @staticmethod
    def static() -> int:
        """Four."""
        return 4

    @traced("pickled.traced")
    def traced(self) -> int:
        """Double."""
        return 2 * self.number


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_functions_pickle_by_name(protocol: int) -> None:
    """What comes back is the same object."""
    for function in (pickled, pickled_too):
        assert pickle.loads(pickle.dumps(function, protocol)) is function
        assert len(pickle.dumps(function, protocol)) < 200


@pytest.mark.parametrize("duplicate", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
def test_methods_pickle_and_copy(duplicate: Callable[[Any], Any]) -> None:
    """With their instance, or by the name of their class."""
    instance = Pickled(2)
    assert duplicate(instance.method)() == duplicate(instance.traced)() == 4
    assert duplicate(Pickled.method)(instance) == duplicate(Pickled.traced)(instance) == 4
    for owner in (instance, Pickled):
        assert duplicate(owner.class_outside)() == duplicate(owner.class_inside)() == "Pickled"
        assert duplicate(owner.static)() == 4
    assert duplicate({"method": instance.method})["method"]() == 4


def test_a_deep_copy_of_a_method_has_a_copy_of_the_instance() -> None:
    """As that of an undecorated method; a shallow copy has the instance itself."""
    instance = Pickled(2)
    deep, shallow = copy.deepcopy(instance.method), copy.copy(instance.method)
    instance.number = 50
    assert (deep(), shallow()) == (4, 100)


def test_functions_copy_as_themselves() -> None:
    """As functions do."""
    assert copy.copy(pickled) is copy.deepcopy(pickled) is pickled
    assert copy.deepcopy([pickled])[0] is pickled


def test_what_cannot_be_found_cannot_be_pickled() -> None:
    """Functions inside functions, and wrappers that do not have the name of what they wrap."""

    class Inner:
        @measure_performance("inner")
        def method(self) -> None: ...

    for each in (measure_performance("inner", lambda: 1), measure_performance("len", pickled_too.__wrapped__), Inner.method):  # type: ignore[attr-defined]
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(each)


def test_a_process_pool_gets_measured_functions(script: Callable[..., Any], tmp_path: Path) -> None:
    """By name; each process counts for itself."""
    (tmp_path / "service.py").write_text(
        "from otel_perfopt import get_performance_report, measure_performance\n"
        "@measure_performance('work')\ndef work(number):\n    return 2 * number\n"
        "def count():\n    return get_performance_report().operations['work'].count\n"
    )
    code = f"""
import json, sys
sys.path.insert(0, {str(tmp_path)!r})
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import service
if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        results = list(pool.map(service.work, range(5)))
        print(json.dumps([results, pool.submit(service.count).result()]))"""
    assert script(code) == [[0, 2, 4, 6, 8], 5]
