"""The file of states: shared by threads and processes, and never the worse for a crash, a stranger or a damage."""

import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt import sqlite_files
from otel_perfopt.errors import ConfigurationError, PerfOptError
from otel_perfopt.state import StateStore
from otel_perfopt.testing import ManualClock
from tests.cache.support import TIMEOUT

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store of this test is."""
    return tmp_path / "folder" / "state.db"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, as anybody may open it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def process(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Run code in a process of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_states_are_merged_and_kept(path: Path) -> None:
    """By this store, and by the next one for the same file."""
    store, clock = StateStore(path), ManualClock(1000.0)
    assert store.get("a") is None
    assert not path.exists()  # nothing is made in order to read nothing
    assert store.write({"a": {"n": 1, "deep": {"x": [None, True, 1.5, "é \udcff"]}}, "b": {}}) == {
        "a": {"n": 1, "deep": {"x": [None, True, 1.5, "é \udcff"]}},
        "b": {},
    }
    assert StateStore(path, clock=clock).write({"a": {"n": 2}})["a"] == store.get("a")
    assert store.get("a") == {"n": 2, "deep": {"x": [None, True, 1.5, "é \udcff"]}}
    assert (store.get("b"), store.get("c")) == ({}, None)
    assert store.write({}) == {}
    with opened(path) as connection:
        assert connection.execute("SELECT updated_at FROM task_state WHERE task_id = 'a'").fetchone() == (1000.0,)


def test_only_the_owner_can_read_it(path: Path) -> None:
    """Whatever the umask, and while it is being written, too."""
    before = os.umask(0)
    try:
        StateStore(path).write({"a": {"n": 1}})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE task_state SET updated_at = 0")
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
        assert len(list(path.parent.iterdir())) == 3


def test_a_batch_is_one_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If something ends it in the middle, nothing of it is there."""
    store = StateStore(path)
    store.write({"a": {"n": 1}})
    calls = iter([None, KeyboardInterrupt()])
    write_one = store._write_one

    def interrupted(*arguments: Any) -> Any:
        if (error := next(calls)) is not None:
            raise error
        return write_one(*arguments)

    monkeypatch.setattr(store, "_write_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write({"a": {"n": 2}, "b": {"n": 2}})
    assert (store.get("a"), store.get("b")) == ({"n": 1}, None)


def test_a_task_that_cannot_be_written_is_the_only_one(path: Path) -> None:
    """The others of its batch are written."""
    store = StateStore(path)
    written = store.write({"set": {"n": {1}}, "good": {"n": 1}, "odd \udcff": {"n": 1}, "list": [1]})  # type: ignore[dict-item]
    assert written.pop("good") == {"n": 1} == store.get("good")
    assert {type(error) for error in written.values()} == {ValueError}
    assert "the state of task 'set' could not be written" in str(written["set"])
    assert store.get("set") is None


@pytest.mark.parametrize("damage", ["", "{", "[1]", "3"])
def test_a_row_that_is_no_state(path: Path, damage: str) -> None:
    """Is an error for those who want it, and no trouble for others."""
    store = StateStore(path)
    store.write({"a": {"n": 1}, "b": {"n": 1}})
    with opened(path) as connection:
        connection.execute("UPDATE task_state SET state = ? WHERE task_id = 'a'", (damage,))
    written = store.write({"a": {"n": 2}, "b": {"n": 2}})
    assert isinstance(written["a"], ValueError)
    assert written["b"] == {"n": 2}
    with pytest.raises(ValueError, match="damaged"):
        store.get("a")


def test_threads_write_at_once(path: Path) -> None:
    """From the first moment on, when there is no file yet; no update is lost."""
    barrier = threading.Barrier(8, timeout=TIMEOUT)

    def write(number: int) -> None:
        store = StateStore(path, timeout=TIMEOUT)
        barrier.wait()
        for step in range(10):
            store.write({"shared": {f"{number}-{step}": step}, f"own-{number}": {"step": step}})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert len(StateStore(path).get("shared") or {}) == 80
    assert [StateStore(path).get(f"own-{number}") for number in range(8)] == [{"step": 9}] * 8


WRITE = """
    import sys
    from otel_perfopt.state import StateStore
    store, number = StateStore(sys.argv[1], timeout=30), sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(40):
        store.write({"shared": {f"{number}-{step}": step}, f"own-{number}": {"step": step}})
    """


def test_two_processes_write_at_once(path: Path) -> None:
    """Both make the file, and no update is lost."""
    processes = [process(WRITE, path, number) for number in range(2)]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in processes:
        each.communicate(timeout=40)
        assert each.returncode == 0
    assert len(StateStore(path).get("shared") or {}) == 80
    assert list(path.parent.iterdir()) == [path]  # nothing was set aside, and nothing is left open


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_killed_writer_leaves_a_readable_file(path: Path) -> None:
    """In the middle of a transaction, with the file open: what was committed is there, and others can write."""
    code = """
    import json, os, signal, sys
    from otel_perfopt.state import StateStore
    class Deadly(StateStore):
        def _write_one(self, connection, task_id, changes):
            result = super()._write_one(connection, task_id, changes)
            if task_id == "last":
                os.kill(os.getpid(), signal.SIGKILL)
            return result
    store = Deadly(sys.argv[1])
    store.write({"a": {"n": 1}})
    store.write({"a": {"n": 2}, "last": {"n": 2}})
    """
    killed = process(code, path)
    killed.communicate(timeout=40)
    assert killed.returncode == -signal.SIGKILL
    assert Path(f"{path}-wal").exists()
    store = StateStore(path)
    assert (store.get("a"), store.get("last")) == ({"n": 1}, None)
    assert store.write({"a": {"m": 3}}) == {"a": {"n": 1, "m": 3}}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_writes_as_well(path: Path) -> None:
    """It has no connection of its parent's."""
    store = StateStore(path, timeout=TIMEOUT)
    store.write({"parent": {"n": 1}})
    code = """
    import os, sys
    from otel_perfopt.state import StateStore
    store = StateStore(sys.argv[1])
    store.write({"before": {"n": 1}})
    pid = os.fork()
    store.write({"child" if pid == 0 else "parent": {"pid": os.getpid()}})
    if pid == 0:
        os._exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    forked = process(code, path)
    forked.communicate(timeout=40)
    assert forked.returncode == 0
    assert store.get("child") != store.get("parent")
    assert store.get("before") == {"n": 1}


def test_a_writer_that_does_not_end_is_waited_for_no_longer_than_promised(path: Path) -> None:
    """With timeout=0 not at all; readers do not wait for writers."""
    store = StateStore(path, timeout=0)
    store.write({"a": {"n": 1}})
    with opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(PerfOptError, match="is locked") as info:
            store.write({"a": {"n": 2}})
        assert (info.value.code, info.value.context) == ("STATE_STORE", {"path": str(path)})
        assert store.get("a") == {"n": 1}
    assert store.write({"a": {"n": 2}}) == {"a": {"n": 2}}


def spoil(path: Path, spoiled: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a file."""
    path.write_bytes(spoiled(path.read_bytes()))


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda content: b"this is no database at all, but a letter to somebody" * 100,
        lambda content: b"\0" * 100 + content[100:],
        lambda content: content[:100] + b"\xff" * (len(content) - 100),
        lambda content: content[: len(content) // 2],
    ],
    ids=["foreign", "header", "pages", "half"],
)
@pytest.mark.parametrize("use", ["get", "write"])
def test_a_damaged_file_is_set_aside(
    path: Path, spoiled: Callable[[bytes], bytes], use: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning that says where it is; a new one takes its place, and the old one is not touched."""
    store = StateStore(path)
    store.write({f"task-{number}": {"text": "x" * 500} for number in range(50)})
    for number in (1, 2):
        spoil(path, spoiled)
        content = path.read_bytes()
        with caplog.at_level(logging.WARNING, "otel_perfopt"):
            if use == "get":
                assert store.get("task-1") is None
            else:
                assert store.write({"task-1": {"n": 1}}) == {"task-1": {"n": 1}}
        aside = Path(f"{path}.damaged-{number}")
        assert aside.read_bytes() == content
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600
        assert str(aside) in caplog.text
        assert store.write({"task-1": {"n": 2}}) == {"task-1": {"n": 2}}


def test_a_damaged_file_that_somebody_else_has_replaced_is_left_alone(path: Path) -> None:
    """The new one is not the one in which the damage was."""
    store = StateStore(path)
    store.write({"a": {"n": 1}})
    assert sqlite_files.set_aside(path, path.stat().st_ino + 1) is None
    assert store.get("a") == {"n": 1}


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    """It is in use, perhaps, and nothing in it changes."""
    path.parent.mkdir()
    with opened(path) as connection:
        connection.execute("CREATE TABLE orders (number INTEGER)")
    content = path.read_bytes()
    for use in (lambda: StateStore(path).get("a"), lambda: StateStore(path).write({"a": {}})):
        with pytest.raises(ConfigurationError, match="a database of something else"):
            use()
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    """Its states may mean something that is not known here."""
    store = StateStore(path)
    store.write({"a": {"n": 1}})
    with opened(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(ConfigurationError, match="newer version"):
        store.write({"a": {"n": 2}})
    with opened(path) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert store.get("a") == {"n": 1}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder; root, who may write everywhere, is nobody meanwhile."""
    is_root = os.geteuid() == 0
    for each in (*folder.iterdir(), folder):
        each.chmod(0o555)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such permissions")
@pytest.mark.parametrize("there", [False, True], ids=["new", "existing"])
def test_a_folder_that_is_read_only(there: bool) -> None:
    """The error says which file, and what is there stays as it is."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are within one that only root can enter
        store = StateStore(Path(folder) / "state.db")
        if there:
            store.write({"a": {"n": 1}})
        with read_only(Path(folder)):
            for each in (store, StateStore(Path(folder) / "new" / "state.db")):
                with pytest.raises(PerfOptError, match="cannot be used") as info:
                    each.write({"a": {"n": 2}})
                assert info.value.code == "STATE_STORE"
        assert store.get("a") == ({"n": 1} if there else None)


def test_a_folder_that_is_a_file(path: Path) -> None:
    """The same."""
    path.parent.write_text("a file")
    with pytest.raises(PerfOptError, match="cannot be used") as info:
        StateStore(path).write({"a": {"n": 1}})
    assert info.value.context == {"path": str(path)}
    with pytest.raises(PerfOptError, match="cannot be used"):
        StateStore(path).get("a")


@pytest.mark.parametrize("timeout", [-1, "soon", None, float("nan")])
def test_a_timeout_that_cannot_work_is_refused(path: Path, timeout: Any) -> None:
    """At once."""
    with pytest.raises(ConfigurationError, match="timeout"):
        StateStore(path, timeout=timeout)


def test_what_is_in_the_file_is_plain_json(path: Path) -> None:
    """Anybody can read it."""
    StateStore(path).write({"a": {"n": [1, {"m": None}]}})
    with opened(path) as connection:
        (text,) = connection.execute("SELECT state FROM task_state").fetchone()
    assert json.loads(text) == {"n": [1, {"m": None}]}
