"""The command line and the demo: what they print, how they end, what they leave behind."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import otel_perfopt
from otel_perfopt.cli import demo, main
from otel_perfopt.cli.demo import run_both, summary
from otel_perfopt.cli.inputs import Inputs, read_inputs
from otel_perfopt.cli.library import Library, open_library
from otel_perfopt.cli.runs import Run, choose_sample, differences
from otel_perfopt.cli.workload import Analysis, Compiled, GitInfo, Service, TaskSpec
from tests.cli.support import COMMAND, PYTHONPATH, assert_consistent, everything_in, wait_until

Capture = pytest.CaptureFixture[str]


# what it prints -------------------------------------------------------------------------------------


def test_the_demo_compares_both_services_and_prints_the_report(root: Path, capsys: Capture) -> None:
    assert main(["demo", "--repo", str(root), "--requests", "60", "--seed", "4"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "\x1b" not in printed.out
    assert max(len(line) for line in printed.out.replace(str(root), "").splitlines()) <= 80
    for text in ("3 Python files", "60 for 3 files", "seed 4", "task_specs", "Speed-up:", "of the possible gain"):
        assert text in printed.out
    assert "Answers: the same from both services, for 60 requests compared." in printed.out
    assert otel_perfopt.get_performance_report().to_text(width=80).strip().splitlines()[0] in printed.out


def test_the_working_directory_s_repository_is_the_default(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(root / "pkg")
    assert main(["demo", "--requests", "3"]) == 0
    assert f"Repository: {root.resolve()}\n" in capsys.readouterr().out


def test_a_single_request_has_nothing_to_gain(root: Path, capsys: Capture) -> None:
    assert main(["demo", "--repo", str(root), "--requests", "1"]) == 0
    assert "nothing was asked for twice" in capsys.readouterr().out


def test_an_odd_path_is_printed_on_one_line(root: Path, capsys: Capture) -> None:
    odd = root.rename(root.with_name("od\nd \udce9")) if os.fsencode("\udce9") == b"\xe9" else root
    assert main(["demo", "--repo", str(odd), "--requests", "3"]) == 0
    assert "od\\nd \\udce9" in capsys.readouterr().out


def test_different_answers_are_shown_and_end_with_1(root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def wrong(root: str, inputs: Inputs) -> Iterator[Library]:
        with open_library(root, inputs) as library:
            yield library._replace(service=library.service._replace(dependencies=lambda root, path: ("nonsense",) * 100))

    monkeypatch.setattr(demo, "open_library", wrong)
    assert main(["demo", "--repo", str(root), "--requests", "10"]) == 1
    printed = capsys.readouterr().out
    assert "Answers: 10 of 10 differ." in printed
    assert "request 0, dependencies: plain" in printed
    assert max(len(line) for line in printed.replace(str(root), "").splitlines()) <= 80


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_progress_bar_is_for_terminals(root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["demo", "--repo", str(root), "--requests", "3"]) == 0
    assert "plain and with the library" in terminal.getvalue()
    assert "\x1b" not in capsys.readouterr().out


# bad usage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "", "1000001"])
def test_a_bad_number_of_requests(value: str, capsys: Capture) -> None:
    assert main(["demo", f"--requests={value}"]) == 2
    error = capsys.readouterr().err
    assert f"argument --requests: {value!r} is not a number from 1 to 1,000,000" in error
    assert "for example 2000" in error


def test_other_bad_arguments(capsys: Capture) -> None:
    assert main(["demo", "--seed", "x"]) == 2
    assert "argument --seed: 'x' is not a whole number" in capsys.readouterr().err
    assert main([]) == 2
    assert "demo" in capsys.readouterr().err
    assert main(["nonsense"]) == 2
    assert main(["demo", "--help"]) == 0


def test_a_bad_repository(tmp_path: Path, capsys: Capture) -> None:
    assert main(["demo", "--repo", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is not in a git repository: give the path of" in printed.err
    assert "Traceback" not in printed.err


def test_without_git(root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root))
    for repo in (["--repo", str(root)], []):
        assert main(["demo", *repo]) == 2
        assert "git was not found on PATH: install git" in capsys.readouterr().err


# the measurement ------------------------------------------------------------------------------------


class Watch:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def part(self, seconds: float) -> Callable[[str, str], str]:
        """Return a part of a service that takes this long."""

        def answer(root: str, subject: str) -> str:
            self.now += seconds
            return subject

        return answer


class Kept:
    """Takes reports at a cost of time, and writes nothing."""

    def __init__(self, watch: Watch, seconds: float = 0.0) -> None:
        self._watch, self._seconds = watch, seconds
        self._states: dict[str, Mapping[str, object]] = {}

    def send(self, path: str, analyses: int) -> None:
        self._watch.now += self._seconds
        self._states[path] = {"analyses": analyses}

    def finish(self) -> Mapping[str, Mapping[str, object]]:
        return self._states


STREAM = ["p/a", "p/b", "p/a", "q/c", "p/a"]


def timed_run(watch: Watch, seconds: tuple[float, ...], numbers: range = range(5), *, report: float = 0.0) -> Run:
    run = Run(Service(*(watch.part(each) for each in seconds)), "root", STREAM, Kept(watch, report), watch)
    for number in numbers:
        run.send(number)
    return run


def test_the_possible_gain_is_what_was_asked_for_before() -> None:
    run = timed_run(Watch(), (1.0, 2.0, 4.0, 8.0))
    assert (run.requests, run.seconds) == (5, 75.0)
    assert run.spent == {"git_info": 5, "dependencies": 10, "compilation": 20, "task_specs": 40}
    # "p/a" is asked for twice again; the folder "p" three times.
    assert run.again == {"git_info": 2, "dependencies": 4, "compilation": 8, "task_specs": 24}


def test_the_summary_relates_what_was_saved_to_the_possible_gain() -> None:
    watch = Watch()
    lines = "\n".join(summary(timed_run(watch, (1.0, 2.0, 4.0, 8.0)), timed_run(watch, (1.0, 1.0, 4.0, 3.0))))
    together = next(line for line in lines.splitlines() if line.startswith("these together"))
    assert together.split() == ["these", "together", "75.00", "s", "45.00", "s", "30.00", "s", "38.00", "s", "79%"]
    assert "1.7 times as fast" in lines
    assert "estimated" not in lines


def test_a_sample_is_scaled_and_said_to_be_one() -> None:
    watch = Watch()
    part = timed_run(watch, (1.0, 2.0, 4.0, 8.0), range(0, 5, 4))
    lines = " ".join(" ".join(summary(part, timed_run(watch, (1.0, 1.0, 4.0, 3.0)))).split())
    assert "evenly spaced sample of 2 of the 5 requests" in lines
    assert "these together 75.00 s 45.00 s 30.00 s 37.50 s 80%" in lines


def test_state_updates_count_for_the_speed_up_and_not_for_the_gain() -> None:
    watch = Watch()
    plain = timed_run(watch, (1.0, 2.0, 4.0, 8.0), report=5.0)
    lines = summary(plain, timed_run(watch, (1.0, 1.0, 4.0, 3.0), report=1.0))
    assert ["state_updates", "25.00", "s", "5.00", "s", "20.00", "s", "-", "-"] in [line.split() for line in lines]
    assert "2.0 times as fast" in "\n".join(lines)  # 100 s against 50 s
    assert "79% of the possible gain" in " ".join(lines)


def test_the_possible_gain_has_what_came_from_another_run() -> None:
    """So that nobody saves more than is possible."""
    watch = Watch()
    plain, fast = timed_run(watch, (1.0, 2.0, 4.0, 8.0)), timed_run(watch, (0.5, 1.0, 0.0, 0.0))
    lines = summary(plain, fast, fast.first.keys())
    assert "these together 75.00 s 7.50 s 67.50 s 75.00 s 90%" in [" ".join(line.split()) for line in lines]
    assert "Warm start: 11 of the 11 different answers came from another run" in " ".join(lines)
    assert "what was asked for before or came from another run, 90% of the possible gain." in " ".join(" ".join(lines).split())
    lines = summary(plain, fast, {("git_info", "p/b"), ("task_specs", "q")})
    assert "git_info 5.00 s 2.50 s 2.50 s 3.00 s 83%" in [" ".join(line.split()) for line in lines]  # "p/a" twice, "p/b" once
    assert "task_specs 40.00 s 0 ms 40.00 s 32.00 s 125%" in [" ".join(line.split()) for line in lines]
    assert "dependencies 10.00 s 5.00 s 5.00 s 4.00 s 125%" in [" ".join(line.split()) for line in lines]
    assert "Warm start: 2 of the 11 different answers" in " ".join(lines)


@pytest.mark.parametrize(("seconds", "size"), [(1e6, 5), (80.0, 5), (30.0, 2), (0.1, 1)])
def test_the_plain_service_gets_as_much_as_there_is_time_for(seconds: float, size: int) -> None:
    watch = Watch()
    sample = choose_sample(timed_run(watch, (1.0, 2.0, 4.0, 8.0), range(0)), 5, seconds)
    assert len([number for number in range(5) if number in sample]) == size


def test_both_services_are_sent_what_they_should_get(root: Path) -> None:
    files = ["pkg/a.py", "b with space.py", "pkg/broken.py", "gone.py"] * 30
    with open_library(str(root), read_inputs(str(root), files)) as library:
        plain, fast = run_both(str(root), files[:100], library, plain_seconds=1e-9)
    assert 1 <= plain.requests < 100
    assert fast.requests == 100
    assert plain.answers.keys() == fast.answers.keys()
    assert plain.answers == fast.answers
    assert fast.states.keys() == set(files)
    assert {state["commit"] for state in fast.states.values()} == {state["commit"] for state in plain.states.values()}
    assert differences(plain, fast) == []


def answered(answers: dict[int, Analysis], states: Mapping[str, Mapping[str, object]] | None = None) -> Run:
    """Return a run with these answers, and with these states of files that were analysed once."""
    run = timed_run(Watch(), (0.0,) * 4, range(0))
    run.answers, run.states, run.analyses = answers, states or {}, dict.fromkeys(states or {}, 1)
    return run


def test_differences_name_the_first_part_that_is_not_the_same() -> None:
    info, spec = GitInfo("main", "1", "a", "0", "s"), TaskSpec((), (), (), False)
    right = Analysis(info, ("os",), Compiled(1, 2, "3"), spec)
    assert differences(answered({1: right, 2: right}), answered({1: right, 3: right})) == []
    wrong = right._replace(compilation="SyntaxError", task_specs="no")
    (found,) = differences(answered({1: right}), answered({1: wrong}))
    assert found.startswith("request 1, compilation: plain Compiled(")
    assert found.endswith("cached 'SyntaxError'")


def test_differences_tell_states_that_are_not_the_same() -> None:
    right = {"a.py": {"file": "a.py", "analyses": 1, "commit": "1"}}
    assert differences(answered({}, right), answered({}, right)) == []
    for wrong in ({"file": "b.py"}, {"commit": "2"}, {"analyses": 2}):
        (found,) = differences(answered({}, right), answered({}, {"a.py": right["a.py"] | wrong}))
        assert found.startswith("state of a.py: plain {")


def test_without_worktrees_the_demo_says_why_and_goes_on(root: Path, capsys: Capture) -> None:
    (root / ".worktrees").write_text("in the way")
    assert main(["demo", "--repo", str(root), "--requests", "10"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Without git_worktrees: " in printed
    assert "Answers: the same" in printed


def test_the_repository_is_left_as_it_was(root: Path, capsys: Capture) -> None:
    before = everything_in(root)
    assert main(["demo", "--repo", str(root), "--requests", "10"]) == 0
    assert "git_worktrees" in capsys.readouterr().out
    assert everything_in(root) == before


# interruption ---------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo on the standard library, in a session of its own and with its own folder for temporary files."""
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    env = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": PYTHONPATH}
    env["GIT_CEILING_DIRECTORIES"] = str(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "demo", "--requests", "1000000"],
        cwd=tmp_path / "here",
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def in_session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["making the repository", "running"])
@pytest.mark.parametrize(("number", "send"), [(signal.SIGINT, os.killpg), (signal.SIGINT, os.kill), (signal.SIGTERM, os.kill)])
def test_an_interrupted_demo_leaves_nothing_behind(
    command: subprocess.Popen[str], tmp_path: Path, phase: str, number: int, send: Callable[[int, int], None]
) -> None:
    temporary = tmp_path / "temporary"
    if phase == "running":
        assert command.stdout is not None
        while not command.stdout.readline().startswith("Requests:"):
            assert command.poll() is None
    else:
        wait_until(lambda: any(temporary.iterdir()), command)
    workers = psutil.Process(command.pid).children(recursive=True)  # some are in sessions of their own
    send(command.pid, number)
    _, error = command.communicate()
    # A worker that is just starting gets the signal as well, before it has a session of its own; its pool says so.
    said = [line for line in error.splitlines() if "the worker did not start" not in line]
    assert (command.returncode, said) == (130, ["interrupted"])
    assert list(temporary.iterdir()) == []
    assert_consistent(tmp_path / "here")
    assert psutil.wait_procs([*workers, *in_session(command.pid)], timeout=5)[1] == []


@pytest.mark.slow
def test_after_a_killed_demo_another_one_cleans_up(root: Path, capsys: Capture) -> None:
    """No stray worktree, branch or process, and the repository is what it was before the first."""
    before = everything_in(root)
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    arguments = [sys.executable, "-c", COMMAND, "demo", "--requests", "1000000", "--repo", str(root)]
    with subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, text=True, start_new_session=True) as process:
        try:
            wait_until(lambda: len(list(root.glob(".worktrees/pool-*/pkg"))) >= 2, process)
            workers = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
    assert len(list(root.glob(".worktrees/pool-*/pkg"))) >= 2
    assert len(workers) >= 3
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert main(["demo", "--repo", str(root), "--requests", "10"]) == 0
    assert "Answers: the same" in capsys.readouterr().out
    assert everything_in(root) == before


def test_a_reader_that_goes_away_is_no_error(root: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    arguments = [sys.executable, "-c", COMMAND, "demo", "--requests", "3", "--repo", str(root)]
    ended = subprocess.run(arguments, env=env, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_main_works_outside_the_main_thread_and_restores_the_signals(root: Path, capsys: Capture) -> None:
    before = signal.getsignal(signal.SIGTERM)
    arguments = ["demo", "--repo", str(root), "--requests", "2"]
    with ThreadPoolExecutor() as pool:
        assert pool.submit(main, arguments).result() == 0
    assert main(arguments) == 0
    assert signal.getsignal(signal.SIGTERM) is before
