"""The arithmetic and the output of the benchmarks, on invented times; what they measure is not for a test."""

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import output
from benchmarks.catalogue import BENCHMARKS, GROUPS, choose
from benchmarks.harness import Benchmark, Contestant, Result, Round, Slice, Spread, Turn, rotated, run_round, timed
from benchmarks.hit_ratio import TRACES, asking, ours, replaying, requests


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def contestant(name: str, costs: Iterator[float] | None = None, log: list[str] | None = None, package: str = "") -> Contestant:
    """One whose slices cost what is given, and leave a trace."""

    def build(_: Turn) -> Slice:
        def run() -> float:
            if log is not None:
                log.append(name)
            return next(costs) if costs is not None else 1.0

        return run

    return Contestant(name, build, package)


def absent(name: str, error: Exception) -> Contestant:
    """One whose library is not there."""

    def build(_: Turn) -> Slice:
        raise error

    return Contestant(name, build, "the-peer")


def result(rounds: list[dict[str, float]], *, limit: float | None = 2.0, measure: str = "ratio", names: str = "abc") -> Result:
    benchmark = Benchmark("name", "title", tuple(contestant(name) for name in names), limit, measure)  # type: ignore[arg-type]
    return Result(benchmark, tuple(Round(costs) for costs in rounds))


def printed(*results: Result, quick: bool = False) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO(), highlight=False)
    output.print_table(results, quick=quick, console=console)
    return console.export_text().splitlines()


# harness ------------------------------------------------------------------------------------------------


def test_a_slice_costs_the_time_of_one_operation() -> None:
    clock = Clock()
    run = timed(lambda: clock.advance(3.0), laps=4, operations=10, clock=clock)
    assert run() == pytest.approx(0.3)


def test_the_order_rotates() -> None:
    assert [rotated("abc", by) for by in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert rotated([], 5) == []


def test_contestants_take_turns_and_each_round_begins_with_another_one() -> None:
    log: list[str] = []
    benchmark = Benchmark("name", "title", tuple(contestant(name, log=log) for name in "ab"), limit=1)
    run_round(benchmark, Turn(number=1, slices=3))
    assert "".join(log) == "ab" + "ba" + "ab" + "ba"  # the first pair warms up


def test_a_round_takes_the_median_slice() -> None:
    costs = iter([99.0, 5.0, 1.0, 2.0])  # the first one warms up
    benchmark = Benchmark("name", "title", (contestant("a", costs), contestant("b")), limit=1)
    assert run_round(benchmark, Turn(slices=3)) == Round({"a": 2.0, "b": 1.0})


def test_a_missing_peer_says_what_to_install() -> None:
    benchmark = Benchmark("name", "title", (contestant("a"), absent("b", ModuleNotFoundError("no b"))), limit=1)
    assert run_round(benchmark, Turn(slices=1)) == Round({"a": 1.0}, {"b": "pip install the-peer"})


def test_a_peer_that_fails_says_why() -> None:
    benchmark = Benchmark("name", "title", (contestant("a"), absent("b", TypeError("another version"))), limit=1)
    assert run_round(benchmark, Turn(slices=1)).missing == {"b": "failed: another version"}


def test_the_library_itself_may_not_fail() -> None:
    def build(_: Turn) -> Slice:
        raise ModuleNotFoundError("otel_perfopt")

    with pytest.raises(ModuleNotFoundError):
        run_round(Benchmark("name", "title", (Contestant("a", build),), limit=1), Turn())


def test_quick_does_little_but_something() -> None:
    assert [Turn(quick=True).count(full) for full in (1, 10, 1000)] == [1, 1, 20]
    assert Turn().count(1000) == 1000


# results ------------------------------------------------------------------------------------------------


def test_spread_is_the_median_and_the_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0)


def test_the_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """Not the ratio of the medians: a busy machine slows both sides of one round."""
    found = result([{"a": 2.0, "b": 1.0}, {"a": 30.0, "b": 10.0}, {"a": 16.0, "b": 4.0}])
    assert found.compared("a") == Spread(3.0, 2.0, 4.0)
    assert found.cost("a") == Spread(16.0, 2.0, 30.0)


def test_a_distance_is_in_points() -> None:
    found = result([{"a": 0.50, "b": 0.51}, {"a": 0.42, "b": 0.40}], measure="points")
    assert found.compared("a") == pytest.approx((0.5, -1.0, 2.0))


@pytest.mark.parametrize(
    ("measure", "limit", "holds"),
    [("ratio", 2.0, True), ("ratio", 1.9, False), ("seconds", 4.0, True), ("seconds", 3.9, False)],
)
def test_a_limit_is_about_the_median(measure: str, limit: float, holds: bool) -> None:
    rounds = [{"a": 4.0, "b": 2.0}, {"a": 4.0, "b": 2.0}, {"a": 99.0, "b": 2.0}]
    assert result(rounds, limit=limit, measure=measure).holds() is holds


@pytest.mark.parametrize(("limit", "holds"), [(2.0, True), (1.9, False)])
def test_a_limit_in_points_is_about_every_trace(limit: float, holds: bool) -> None:
    rounds = [{"a": 0.5, "b": 0.5}, {"a": 0.48, "b": 0.4999}, {"a": 0.6, "b": 0.6}]
    assert result(rounds, limit=limit, measure="points").holds() is holds


def test_without_the_base_nothing_can_be_told() -> None:
    assert result([{"a": 1.0}]).holds() is None
    assert result([{"a": 1.0, "b": 1.0}, {"a": 1.0}]).holds() is None


def test_without_a_limit_nothing_is_judged() -> None:
    found = result([{"a": 9.0, "b": 1.0}], limit=None)
    assert found.holds() is None
    assert printed(found)[-1] == "0 of 0 limits hold."


# output -------------------------------------------------------------------------------------------------


def test_table() -> None:
    rounds = [{"a": 250e-9, "b": 100e-9, "c": 50e-9}, {"a": 260e-9, "b": 100e-9, "c": 40e-9}]
    lines = printed(result(rounds, limit=3.5))
    assert [line.split() for line in lines if line.strip()] == [
        ["cost", "against", "range", "limit"],
        ["title"],
        ["a", "255", "ns", "2.5x", "2.5-2.6", "3.5x", "✓"],
        ["b", "100", "ns", "1x"],
        ["c", "45", "ns", "0.45x", "0.40-0.50"],
        ["1", "of", "1", "limits", "hold."],
    ]
    assert max(map(len, lines)) <= 80


def test_table_says_what_is_missed_and_what_is_missing() -> None:
    missed = result([{"a": 3.0, "b": 1.0}], names="ab")
    benchmark = Benchmark("other", "title", (contestant("a"), absent("b", ModuleNotFoundError())), limit=1)
    untold = Result(benchmark, (run_round(benchmark, Turn()),))
    text = "\n".join(printed(missed, untold))
    assert "✗" in text
    assert "b: pip install the-peer" in text
    assert "0 of 2 limits hold." in text
    assert "Missed: name." in text
    assert "missing: other." in text


def test_a_quick_run_is_not_judged() -> None:
    text = "\n".join(printed(result([{"a": 3.0, "b": 1.0}]), quick=True))
    assert "the figures mean nothing" in text
    assert "✗" not in text
    assert "Missed" not in text


def test_table_of_points() -> None:
    text = "\n".join(printed(result([{"a": 0.5, "b": 0.51}, {"a": 0.4, "b": 0.4}], measure="points", names="ab")))
    assert "45.0%" in text
    assert "-1.00 to +0.00" in text
    assert "±2" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ns"), (50e-9, "50 ns"), (1.5e-6, "1.5 us"), (0.1, "100 ms"), (2.0, "2 s")],
)
def test_costs_are_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert output.cost_text(seconds, "ratio") == text


def test_a_cost_in_bytes() -> None:
    found = result([{"a": 300.4, "b": 200.0}], measure="bytes", limit=1.5)
    assert ["a", "300", "B", "1.50x", "1.50-1.50", "1.5x", "✗"] in [line.split() for line in printed(found)]


def test_json_has_every_round_and_the_versions() -> None:
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 4.0, "b": 1.0}, {"a": 3.0, "b": 1.0}]
    found = json.loads(json.dumps(output.as_dict([result(rounds, names="ab")], quick=False)))
    (benchmark,) = found["benchmarks"]
    assert benchmark["rounds"] == rounds
    assert benchmark["costs"]["a"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert benchmark["compared"]["a"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert benchmark["holds"] is False
    assert found["environment"]["python"]
    assert found["environment"]["libraries"]["opentelemetry-sdk"]


# the program --------------------------------------------------------------------------------------------


def test_every_benchmark_has_a_name_of_its_own() -> None:
    assert len(BENCHMARKS) == sum(map(len, GROUPS.values()))
    for name, group in GROUPS.items():
        assert name not in BENCHMARKS or group == (BENCHMARKS[name],)


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))
def test_contestants_have_names_of_their_own(benchmark: Benchmark) -> None:
    names = [contestant.name for contestant in benchmark.contestants]
    assert len(set(names)) == len(names) >= 2
    assert benchmark.contestants[0].package in ("", "otel-perfopt[redis]")


def test_choosing() -> None:
    assert choose([]) == list(BENCHMARKS.values())
    assert choose(["cached", "cache", "cached"]) == list(GROUPS["cache"])
    assert choose(["import", "cached"]) == [BENCHMARKS["import"], BENCHMARKS["cached"]]


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--rounds", "many"], ["--only", "nothing"], ["--what"]])
def test_bad_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err


def test_a_missed_limit_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "run_isolated", lambda *_: Round({"otel_perfopt": 9.0, "functools.lru_cache": 1.0}))
    file = tmp_path / "found.json"
    assert program.main(["--only", "cached-two", "--rounds", "2", "--json", str(file)]) == 0
    captured = capsys.readouterr()
    assert "Missed: cached-two." in captured.out
    assert captured.err.count("\n") == 2
    assert len(json.loads(file.read_text())["benchmarks"][0]["rounds"]) == 2


def test_ctrl_c_is_said_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> Round:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "run_isolated", interrupt)
    assert program.main(["--only", "cached"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"


# the traces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(TRACES)))
def test_traces_are_the_same_every_time(number: int) -> None:
    trace = requests(Turn(number, quick=True))
    assert trace == requests(Turn(number, quick=True))
    assert len(trace) == pytest.approx(2000, rel=0.01)
    assert len(set(trace)) > 100


def test_what_is_asked_for_is_there_the_next_time() -> None:
    there: dict[int, str] = {}
    ask = asking(there.get, there.__setitem__)
    assert [ask(key) for key in (0, 1, 0, 0)] == [False, False, True, True]


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_a_replayed_trace_costs_its_hit_ratio(policy: Literal["s3fifo", "lru"]) -> None:
    """With room for all, only the first request for a key is no hit."""
    turn = Turn(quick=True)
    trace = requests(turn)
    replay = replaying(partial(ours, policy), 1.0)(turn)
    assert replay() == 1 - len(set(trace)) / len(trace)
