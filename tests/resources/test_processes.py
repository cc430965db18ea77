"""Command executors: what a command gets and gives, and that nothing hangs, is lost or stays behind."""

import ast
import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt.errors import ConfigurationError, PerfOptError
from otel_perfopt.processes import (
    CommandError,
    CommandFailed,
    CommandNotStarted,
    CommandResult,
    CommandTimeout,
    ExecutorBroken,
    OutputTooLarge,
    ProcessExecutor,
    executor,
    worker,
)
from otel_perfopt.processes.session import kill_session
from tests.interruptions import interrupted_at
from tests.resources.processes import Witness, python, run_python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs process groups")

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture
def make() -> Iterator[Callable[..., ProcessExecutor]]:
    """Make executors that are destroyed at the end."""
    made: list[ProcessExecutor] = []

    def new(**options: Any) -> ProcessExecutor:
        made.append(ProcessExecutor(**options))
        return made[-1]

    yield new
    for each in made:
        each.destroy()


@pytest.fixture
def runner(make: Callable[..., ProcessExecutor]) -> ProcessExecutor:
    return make(grace=0.2)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    it = Witness(tmp_path / "witness")
    yield it
    it.close()


def code(text: str, *arguments: str) -> list[str]:
    """The command that runs Python code."""
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


def is_in_order(runner: ProcessExecutor) -> bool:
    """Whether an executor gives the right answer to the next question."""
    return runner.execute(["echo", "in order"]).text == "in order\n"


# what a command gets and gives ----------------------------------------------------------------------


def test_what_comes_of_a_command(runner: ProcessExecutor) -> None:
    result = runner.execute(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert result[:4] == (("sh", "-c", "echo out; echo err >&2; exit 3"), 3, b"out\n", b"err\n")
    assert 0 < result.seconds < 30
    assert runner.execute(["sh", "-c", "kill -9 $$"]).returncode == -9


def test_many_commands_have_one_worker(runner: ProcessExecutor) -> None:
    """It lives on, and is the parent of each command."""
    parents = {runner.execute(["sh", "-c", "echo $PPID"]).text for _ in range(5)}
    assert parents == {f"{runner._process.pid}\n"}
    assert int(parents.pop()) != os.getpid()


@pytest.mark.parametrize("command", ["git log -1", b"git log -1", ""])
def test_a_string_is_refused_without_a_shell(runner: ProcessExecutor, command: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a list of arguments, such as .*; a line for the shell needs shell=True"):
        runner.execute(command)


def test_a_shell_takes_a_string(runner: ProcessExecutor) -> None:
    assert runner.execute("echo $((1 + 2)) | cat", shell=True).text == "3\n"
    with pytest.raises(TypeError, match="with shell=True it is one line of text"):
        runner.execute(["echo", "$HOME"], shell=True)


def test_without_a_shell_nothing_is_interpreted(runner: ProcessExecutor) -> None:
    odd = "$HOME; `id` * \\ \"'\n|"
    assert runner.execute(["printf", "%s", odd]).text == odd


def test_arguments_that_are_none(runner: ProcessExecutor) -> None:
    with pytest.raises(ValueError, match="must at least name a program"):
        runner.execute([])
    numbers: Any = ["sleep", 1]
    with pytest.raises(TypeError, match="int"):
        runner.execute(numbers)
    assert is_in_order(runner)


def test_arguments_may_be_paths_and_bytes(runner: ProcessExecutor, tmp_path: Path) -> None:
    result = runner.execute(["printf", "%s|%s", tmp_path, b"\xff\xfe"])
    assert result.stdout == os.fsencode(tmp_path) + b"|\xff\xfe"
    assert result.args == ("printf", "%s|%s", str(tmp_path), b"\xff\xfe")


@pytest.mark.parametrize("name", ["two words", "bücher", "line\nbreak", os.fsdecode(b"\xe9")])
def test_odd_working_directories(runner: ProcessExecutor, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    assert os.fsdecode(runner.execute(["pwd", "-P"], cwd=folder).stdout) == f"{folder.resolve()}\n"


def test_the_service_s_environment_and_folder_as_they_are_now(
    runner: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as they were when the worker started."""
    monkeypatch.setenv("ODD", os.fsdecode(b"\xff"))
    monkeypatch.chdir(tmp_path)
    assert runner.execute(["printenv", "ODD"]).stdout == b"\xff\n"
    assert runner.execute(["pwd", "-P"]).text == f"{tmp_path.resolve()}\n"
    (tmp_path / "below").mkdir()
    assert runner.execute(["pwd", "-P"], cwd="below").text == f"{tmp_path.resolve()}/below\n"


def test_a_given_environment_is_all_of_it(runner: ProcessExecutor) -> None:
    assert runner.execute(["/usr/bin/env"], env={"A": "1", "B": ""}).text == "A=1\nB=\n"
    assert runner.execute(["/usr/bin/env"], env={}).text == ""


def test_binary_input_and_output(runner: ProcessExecutor) -> None:
    data = bytes(range(256)) * 3
    assert runner.execute(["cat"], input=data).stdout == data
    assert runner.execute(["cat"]).stdout == b""


def test_input_that_is_no_bytes(runner: ProcessExecutor) -> None:
    """It is refused before anything is sent."""
    for data in ("text", 5, ["line"]):
        wrong: Any = data
        with pytest.raises(TypeError, match="input must be bytes, not "):
            runner.execute(["cat"], input=wrong)
    assert is_in_order(runner)


def test_text_replaces_what_is_no_utf_8_and_keeps_line_ends() -> None:
    assert CommandResult(("x",), 0, b"a\r\nb\xff\xc3\xa4\r", b"", 0.1).text == "a\r\nb\N{REPLACEMENT CHARACTER}ä\r"


def test_commands_begin_with_signals_as_they_should_be(make: Callable[..., ProcessExecutor]) -> None:
    """Nothing ignored or blocked, neither by the worker nor because the thread that started it blocked it."""
    text = """
import signal as s
print(s.pthread_sigmask(s.SIG_BLOCK, ()), *[s.getsignal(number) is s.SIG_IGN for number in (s.SIGINT, s.SIGTERM, s.SIGCHLD)])
"""

    def blocked() -> ProcessExecutor:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        return make(grace=0.2)

    with ThreadPoolExecutor(1) as pool:
        runner = pool.submit(blocked).result()
    result = runner.execute([sys.executable, "-S", "-c", text])
    assert result.text == "set() False False False\n"


# a result that is no success ------------------------------------------------------------------------


def test_check_returns_a_success(runner: ProcessExecutor) -> None:
    assert runner.execute(["echo", "yes"]).check().text == "yes\n"


def test_check_raises_with_command_exit_code_and_the_end_of_stderr() -> None:
    result = CommandResult(("git", "log", "two words"), 128, b"out", b"x" * 5000 + b"\nfatal: \xff no such thing\n", 0.1)
    with pytest.raises(CommandFailed) as caught:
        result.check()
    error = caught.value
    assert str(error).startswith("\"git log 'two words'\" ended with exit code 128: ...xxx")
    assert str(error).endswith("\nfatal: \N{REPLACEMENT CHARACTER} no such thing")
    assert len(str(error)) < 700
    assert (error.code, error.context) == ("COMMAND_FAILED", {"command": result.args, "returncode": 128})
    assert (error.stdout, error.stderr) == (result.stdout, result.stderr)
    assert isinstance(error, CommandError)


@pytest.mark.parametrize(("returncode", "text"), [(-9, "signal SIGKILL"), (-77, "signal 77"), (1, "exit code 1")])
def test_check_tells_signals_from_exit_codes(returncode: int, text: str) -> None:
    with pytest.raises(CommandFailed, match=f"^'x' ended with {text}$"):
        CommandResult(("x",), returncode, b"", b"", 0.1).check()


def test_errors_arrive_in_other_processes_as_they_were() -> None:
    with pytest.raises(CommandFailed) as caught:
        CommandResult((b"x",), 1, b"out", b"err", 0.1).check()
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(error), error.stdout, error.stderr, error.context) == (str(caught.value), b"out", b"err", caught.value.context)


# commands that cannot be started --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "cwd", "name", "where"),
    [
        (["no-such-program"], None, "ENOENT", "no-such-program"),
        (["/no/such/program"], None, "ENOENT", "/no/such/program"),
        (["pwd"], "/no/such/folder", "ENOENT", "/no/such/folder"),
        (["pwd"], "/dev/null", "ENOTDIR", "/dev/null"),
        (["/dev/null"], None, "EACCES", "/dev/null"),
        (["/"], None, "EACCES", "/"),
        (["echo", "x" * 5_000_000], None, "E2BIG", "echo"),
        (["echo", "a\0b"], None, "invalid", ""),
    ],
)
def test_what_cannot_be_started(runner: ProcessExecutor, command: list[str], cwd: str | None, name: str, where: str) -> None:
    with pytest.raises(CommandNotStarted) as caught:
        runner.execute(command, cwd=cwd)
    error = caught.value
    assert f"({name})" in str(error)
    assert len(str(error)) < 400
    assert (error.code, error.context["errno"], error.context["where"]) == ("COMMAND_NOT_STARTED", name, where)
    assert name == "invalid" or hasattr(errno, name)
    assert is_in_order(runner)


def test_a_working_directory_that_is_gone(runner: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(CommandNotStarted, match=r"the working directory of this process is gone \(ENOENT\)"):
        runner.execute(["pwd"])
    monkeypatch.chdir(tmp_path)
    assert is_in_order(runner)


# a lot of data --------------------------------------------------------------------------------------


def test_megabytes_on_both_outputs_at_once(runner: ProcessExecutor) -> None:
    """First one, then the other, then both in turns: whoever reads only one of them waits for ever."""
    text = """
import os, sys
for order in ((1,), (2,), (1, 2) * 4):
    for file in order:
        data = memoryview(bytes([96 + file]) * 3_000_000)
        while data:
            data = data[os.write(file, data):]
"""
    result = runner.execute(code(text), timeout=50)
    assert (result.stdout, result.stderr) == (b"a" * 15_000_000, b"b" * 15_000_000)


def test_a_huge_input_comes_back(runner: ProcessExecutor) -> None:
    data = os.urandom(1_000_000) * 20
    assert runner.execute(["cat"], input=data, timeout=50).stdout == data


def test_a_huge_input_that_nobody_reads(runner: ProcessExecutor) -> None:
    assert runner.execute(["true"], input=b"x" * 20_000_000).returncode == 0
    assert runner.execute(["head", "-c", "3"], input=b"x" * 20_000_000).stdout == b"xxx"
    assert is_in_order(runner)


def test_more_output_than_allowed_is_an_error(make: Callable[..., ProcessExecutor], witness: Witness) -> None:
    runner = make(max_output=1000, grace=0.2)
    with pytest.raises(OutputTooLarge, match="printed more than max_output=1000 bytes and was ended") as caught:
        runner.execute(witness.shell("printf err >&2; yes"))
    witness.wait_for_end()
    assert len(caught.value.stdout) + len(caught.value.stderr) == 1000
    assert caught.value.code == "COMMAND_OUTPUT_TOO_LARGE"
    assert is_in_order(runner)


def test_as_much_output_as_allowed_is_none(make: Callable[..., ProcessExecutor]) -> None:
    runner = make(max_output=1000)
    assert len(runner.execute(code("print('x' * 499); import sys; print('x' * 499, file=sys.stderr)")).stdout) == 500
    assert make(max_output=0).execute(["true"]).returncode == 0
    with pytest.raises(OutputTooLarge):
        make(max_output=0).execute(["echo"])
    assert len(make(max_output=None).execute(["head", "-c", "70000000", "/dev/zero"]).stdout) == 70_000_000


# time -----------------------------------------------------------------------------------------------


def test_a_timeout_ends_the_whole_group_and_keeps_what_was_printed(runner: ProcessExecutor, witness: Witness) -> None:
    command = witness.shell("echo so far; echo complaint >&2; sleep 1000 & sleep 1000 | sleep 1000")
    with pytest.raises(CommandTimeout) as caught:
        runner.execute(command, timeout=0.3)
    witness.wait_for_end()
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.stdout, error.stderr) == (b"so far\n", b"complaint\n")
    assert (error.code, error.context) == ("COMMAND_TIMEOUT", {"command": tuple(command), "timeout": 0.3})
    assert "took longer than 0.3 s and was ended with its process group" in str(error)
    assert is_in_order(runner)


def test_a_timeout_ends_what_does_not_want_to_end(runner: ProcessExecutor, witness: Witness) -> None:
    """After the time of grace nobody is asked any more."""
    with pytest.raises(CommandTimeout) as caught:
        runner.execute(
            witness.shell("trap 'echo no' TERM; (trap '' TERM; sleep 1000) & while :; do sleep 1000; done"), timeout=0.3
        )
    witness.wait_for_end()
    assert caught.value.stdout == b"no\n"
    assert is_in_order(runner)


def test_a_timeout_lets_a_command_clean_up(make: Callable[..., ProcessExecutor], tmp_path: Path) -> None:
    """SIGTERM comes first."""
    runner = make(grace=30)
    with pytest.raises(CommandTimeout) as caught:
        runner.execute(["sh", "-c", f"trap 'touch {tmp_path}/clean; echo bye; exit' TERM; sleep 1000 & wait"], timeout=0.3)
    assert (tmp_path / "clean").exists()
    assert caught.value.stdout == b"bye\n"


@pytest.mark.parametrize("timeout", [0, -1, "soon", True])
def test_timeouts_that_are_none(runner: ProcessExecutor, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        runner.execute(["true"], timeout=timeout)
    for other in ("1m", "1000d", 1e-3 * 2**40):
        assert runner.execute(["true"], timeout=other).returncode == 0


def test_a_worker_that_does_not_answer_is_ended_with_its_command(
    runner: ProcessExecutor, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout also holds when the worker cannot keep it."""
    monkeypatch.setattr(executor, "_MARGIN", 0.0)
    with pytest.raises(CommandTimeout, match="was ended with its worker, which did not answer"):
        runner.execute(witness.shell("kill -STOP $PPID; sleep 1000"), timeout=0.3)
    witness.wait_for_end()
    assert not runner.is_alive()


# what a command leaves behind -----------------------------------------------------------------------


def test_a_grandchild_that_keeps_the_pipes_open_holds_nobody_up(runner: ProcessExecutor, witness: Witness) -> None:
    assert runner.execute(witness.shell("sleep 1000 & echo done")).text == "done\n"
    witness.wait_for_end()
    assert is_in_order(runner)


def test_a_grandchild_that_keeps_nothing_open_is_ended_as_well(runner: ProcessExecutor, witness: Witness) -> None:
    assert runner.execute(witness.shell("sleep 1000 </dev/null >/dev/null 2>&1 & echo done")).text == "done\n"
    witness.wait_for_end()


def test_output_of_a_grandchild_that_is_soon_done_is_read(runner: ProcessExecutor) -> None:
    """The command ends before the one that it started has printed all."""
    assert runner.execute("(sleep 0.05; echo later) & echo now", shell=True).text == "now\nlater\n"


def test_a_grandchild_with_a_session_of_its_own_is_let_go(runner: ProcessExecutor, witness: Witness) -> None:
    """It is out of reach by its own wish, and holds nobody up, even with the pipes open."""
    text = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    witness = open({str(witness.path)!r}, 'wb', 0)
    time.sleep(1000)
"""
    pid = int(runner.execute(code(text)).text)
    assert is_in_order(runner)
    os.kill(pid, signal.SIGKILL)  # it is still there
    witness.wait_for_end()


# interruptions --------------------------------------------------------------------------------------


def test_ctrl_c_in_the_service_ends_the_command(runner: ProcessExecutor, witness: Witness) -> None:
    def interrupt() -> None:
        witness.wait_for_start()
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        interruption = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            runner.execute(witness.shell("sleep 1000"))
        interruption.result()
    witness.wait_for_end()
    assert not runner.is_alive()
    with pytest.raises(ExecutorBroken, match="was interrupted there: take another one"):
        runner.execute(["echo"])


def test_interrupted_at_any_line_it_is_in_order_or_says_that_it_is_not(make: Callable[..., ProcessExecutor]) -> None:
    """No answer ever goes to another question."""
    runner, line, broken, fine = make(grace=0.2), 1, 0, 0
    while interrupted_at(line, partial(runner.execute, ["echo", "interrupted"], env={}), ("processes/",)):
        if runner.is_alive():
            fine += 1
            assert is_in_order(runner)
        else:
            broken += 1
            with pytest.raises(ExecutorBroken):
                runner.execute(["echo"])
            runner.destroy()
            runner = make(grace=0.2)
        line += 1
    assert broken > 10
    assert fine > 10


def test_a_signal_handler_that_wants_the_executor_at_work(runner: ProcessExecutor, witness: Witness) -> None:
    """It is refused, and the command at work ends in peace."""
    refused: list[BaseException] = []

    def handler(*_: object) -> None:
        try:
            runner.execute(["echo", "from the handler"])
        except ExecutorBroken as error:
            refused.append(error)

    def ring() -> None:
        witness.wait_for_start()
        os.kill(os.getpid(), signal.SIGUSR1)
        go_on.write_text("all ")

    go_on = witness.path.with_name("go on")
    os.mkfifo(go_on)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with ThreadPoolExecutor(1) as pool:
            ringing = pool.submit(ring)
            result = runner.execute(witness.shell(f"cat '{go_on}'; echo mine"))
            ringing.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result.text == "all mine\n"
    assert [str(error) for error in refused] == [
        "the executor is in the middle of another command, or was interrupted there: take another one"
    ]
    assert is_in_order(runner)


# processes that die ---------------------------------------------------------------------------------


def test_a_worker_killed_between_two_commands(runner: ProcessExecutor) -> None:
    assert runner.is_alive()
    os.kill(runner._process.pid, signal.SIGKILL)
    with pytest.raises(ExecutorBroken, match="the worker has ended; what became of 'echo' is not known") as caught:
        runner.execute(["echo"])
    assert caught.value.code == "EXECUTOR_BROKEN"
    assert not runner.is_alive()
    runner.destroy()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_ended_during_a_command(runner: ProcessExecutor, witness: Witness, number: signal.Signals) -> None:
    """The command ends as well: by the worker, or else by the service."""
    with pytest.raises(ExecutorBroken, match="the worker has ended") as caught:
        runner.execute(witness.shell(f"kill -{number.name[3:]} $PPID; trap '' TERM; sleep 1000"), timeout=50)
    witness.wait_for_end()
    assert caught.value.context["returncode"] == (-9 if number == signal.SIGKILL else 0)
    assert not runner.is_alive()


@pytest.mark.parametrize("has_proc", [True, False])
def test_the_whole_session_of_a_killed_worker_ends(witness: Witness, monkeypatch: pytest.MonkeyPatch, has_proc: bool) -> None:
    """Also a group of its own in there; where there is no /proc, `ps` tells the processes."""
    if not has_proc:
        if not os.access("/bin/ps", os.X_OK):
            pytest.skip("needs /bin/ps, of the package procps")
        monkeypatch.setattr(os.path, "isdir", lambda path: False)
    command = witness.shell("set -m; sleep 1000 & sleep 1000")
    with subprocess.Popen(command, start_new_session=True) as leader:
        witness.wait_for_start()
        leader.kill()
        kill_session(leader.pid)
        witness.wait_for_end()


def test_ctrl_c_in_the_terminal_is_not_for_the_worker(runner: ProcessExecutor) -> None:
    """It is in another session, and does not mind if it is sent one."""
    assert os.getsid(runner._process.pid) == runner._process.pid
    assert runner.execute(["sh", "-c", "kill -INT $PPID; echo fine"]).text == "fine\n"
    assert is_in_order(runner)


SERVICE = """
import sys
from otel_perfopt.processes import ProcessExecutor
runner = ProcessExecutor(grace=float(sys.argv[2]))
print("ready", flush=True)
if sys.argv[1]:
    runner.execute(["sh", "-c", sys.argv[1]])
else:
    sys.stdin.read()
"""


@pytest.mark.parametrize("rest", ["sleep 1000", "trap '' TERM; (trap '' TERM; sleep 1000) & sleep 1000", None])
def test_a_service_that_is_killed_leaves_no_process(witness: Witness, rest: str | None) -> None:
    """Neither the worker nor what it executes; the worker writes its complaints to the service's stderr, so it holds that."""
    command = "" if rest is None else witness.shell(rest)[-1]
    with python(SERVICE, command, 0.2, stdin=subprocess.PIPE) as service:
        assert service.stdout is not None
        assert service.stderr is not None
        service.stdout.readline()
        if rest is not None:
            witness.wait_for_start()
        service.kill()
        assert service.stderr.read() == b""  # until nobody has it any more
    if rest is not None:
        witness.wait_for_end()


def test_a_forked_child_does_not_keep_the_worker_of_a_killed_service(witness: Witness) -> None:
    """The child has no copy of the channel."""
    script = f"""
import os, signal, sys
from otel_perfopt.processes import ProcessExecutor
runner = ProcessExecutor(grace=0.2)
read, write = os.pipe()
if os.fork() == 0:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)
    os.close(write)
    os.read(read, 1)  # until the test ends
    os._exit(0)
print(os.getpid(), flush=True)
runner.execute({witness.shell("sleep 1000")!r})
"""
    with python(script) as service:
        witness.wait_for_start()
        service.kill()
        witness.wait_for_end()
        assert service.stderr is not None
        assert service.stderr.read() == b""


# several threads, several processes -----------------------------------------------------------------


def test_threads_take_turns(runner: ProcessExecutor) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: runner.execute(["echo", str(number)]).text, range(100)))
    assert answers == [f"{number}\n" for number in range(100)]


def test_at_work_it_is_alive(runner: ProcessExecutor, witness: Witness) -> None:
    go = witness.path.with_name("go")
    os.mkfifo(go)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(runner.execute, witness.shell(f"cat '{go}'"))
        witness.wait_for_start()
        assert runner.is_alive()
        go.write_text("done")
        assert work.result().text == "done"
    assert runner.is_alive()


def test_a_forked_child_has_to_make_its_own(make: Callable[..., ProcessExecutor]) -> None:
    printed = run_python("""
import os, traceback
from otel_perfopt.processes import ExecutorBroken, ProcessExecutor
runner = ProcessExecutor()
runner.execute(["true"])
runner._turn.acquire()  # by somebody who does not exist in the child
pid = os.fork()
if pid == 0:
    try:
        assert not runner.is_alive()
        try:
            runner.execute(["true"])
        except ExecutorBroken as error:
            assert str(error) == f"this executor belongs to process {os.getppid()}; a forked child makes its own"
        else:
            raise AssertionError
        runner.destroy()
        own = ProcessExecutor()
        assert own.execute(["echo", "child"]).text == "child\\n"
        own.destroy()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
runner._turn.release()
assert runner.is_alive()
print(runner.execute(["echo", "parent"]).text)
runner.destroy()
""")
    assert printed == b"parent\n\n"


# the end --------------------------------------------------------------------------------------------


def test_destroy_ends_the_worker_and_may_be_called_again(runner: ProcessExecutor) -> None:
    pid = runner._process.pid
    runner.destroy()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    runner.destroy()
    assert not runner.is_alive()
    with pytest.raises(ExecutorBroken, match="the executor was destroyed: take another one"):
        runner.execute(["true"])
    assert repr(runner) == f"<ProcessExecutor with worker {pid}, broken>"


@pytest.mark.parametrize("rest", ["sleep 1000", "trap '' TERM; sleep 1000", "trap '' TERM; kill -STOP $PPID; sleep 1000"])
def test_destroy_ends_a_command_of_another_thread(runner: ProcessExecutor, witness: Witness, rest: str) -> None:
    """Also one that does not want to end, and also when the worker cannot help."""
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(runner.execute, witness.shell(rest))
        witness.wait_for_start()
        runner.destroy()
        with pytest.raises(ExecutorBroken):
            work.result()
    witness.wait_for_end()
    assert runner._channel.fileno() == -1


def test_an_executor_that_is_forgotten_ends_its_worker() -> None:
    """The worker sees that nobody is there."""
    printed = run_python("""
import warnings
warnings.simplefilter("ignore", ResourceWarning)
from otel_perfopt.processes import ProcessExecutor
process = ProcessExecutor()._process
print(process.wait(30))
""")
    assert printed == b"0\n"


@LINUX
def test_no_file_descriptor_is_lost(make: Callable[..., ProcessExecutor], monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        runner = ProcessExecutor(grace=0.1)
        runner.execute(["true"], input=b"x")
        with pytest.raises(CommandError):
            runner.execute(["no-such-program"])
        runner.destroy()
        os.kill((broken := ProcessExecutor())._process.pid, signal.SIGKILL)
        with pytest.raises(ExecutorBroken):
            broken.execute(["true"])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ExecutorBroken):
        ProcessExecutor()
    assert os.listdir("/proc/self/fd") == before


@LINUX
def test_no_file_descriptor_is_lost_in_the_worker(runner: ProcessExecutor) -> None:
    def open_files() -> list[str]:
        return os.listdir(f"/proc/{runner._process.pid}/fd")

    before = open_files()
    for command in (["true"], ["no-such-program"], ["sh", "-c", "sleep 1000 &"], ["cat"]):
        for data in (None, b"x" * 1_000_000):
            with suppress(CommandNotStarted):
                runner.execute(command, input=data)
    assert open_files() == before


# how it is made -------------------------------------------------------------------------------------


def test_the_worker_imports_the_standard_library_alone() -> None:
    """It starts without site-packages; and a look at what it has loaded."""
    tree = ast.parse(Path(worker.__file__).read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_worker_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in ("/bin/false", str(tmp_path / "missing")):
        monkeypatch.setattr(sys, "executable", path)
        with pytest.raises(ExecutorBroken, match="the worker did not start") as caught:
            ProcessExecutor()
        assert caught.value.context["python"] == path
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ConfigurationError, match=r"sys\.executable is empty"):
        ProcessExecutor()


@pytest.mark.parametrize(
    "options",
    [{"max_output": -1}, {"max_output": 1.5}, {"max_output": "1 MB"}, {"max_output": True}, {"grace": -1}, {"grace": None}],
)
def test_options_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ProcessExecutor(**options)


def test_codes() -> None:
    classes: Sequence[type[PerfOptError]] = (
        CommandError, CommandNotStarted, CommandFailed, CommandTimeout, OutputTooLarge, ExecutorBroken,
    )  # fmt: skip
    assert len({each.default_code for each in classes}) == len(classes)


@given(st.lists(st.text() | st.integers(-(2**53), 2**53) | st.none()), st.binary(), st.binary(), st.integers(1, 7))
def test_messages_arrive_as_they_were_sent(content: list[Any], first: bytes, second: bytes, piece: int) -> None:
    """In however small pieces."""
    near, far = socket.socketpair()
    with near, far:
        worker.send(near, content, first, second)
        received = worker.receive(lambda buffer: far.recv_into(buffer, min(piece, len(buffer))))
        assert received == (content, bytearray(first), bytearray(second))
        near.close()
        with pytest.raises(EOFError):
            worker.receive(far.recv_into)


def test_a_turn_ends_with_its_caller(runner: ProcessExecutor) -> None:
    """No thread of the library stays after a call."""
    before = threading.active_count()
    runner.execute(["true"], timeout=30)
    assert threading.active_count() == before
