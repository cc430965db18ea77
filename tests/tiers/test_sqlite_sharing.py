"""Several tiers on one file: in one process, in several, and in forked ones."""

import gc
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt.telemetry import background
from otel_perfopt.testing import ManualClock
from otel_perfopt.tiers.base import Change
from otel_perfopt.tiers.sqlite import SQLiteTier
from tests.tiers.sqlite_support import NOW, TIMEOUT, finished, let_write, process, put, record, values

Open = Callable[..., SQLiteTier]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of this test is."""
    return tmp_path / "cache.db"


@pytest.fixture
def clock() -> ManualClock:
    """The time of day."""
    return ManualClock(NOW)


@pytest.fixture
def new(path: Path, clock: ManualClock) -> Iterator[Open]:
    """Make tiers on the file."""
    made: list[SQLiteTier] = []

    def make(**options: Any) -> SQLiteTier:
        made.append(SQLiteTier(path, **{"clock": clock, **options}))
        return made[-1]

    yield make
    for tier in made:
        tier.close()


# noticing -----------------------------------------------------------------------------------------------


def test_changes_of_others_are_noticed(new: Open, clock: ManualClock) -> None:
    """In order, at the next look, and each once; loads are none."""
    watching, other = new(poll_interval="2s"), new()
    put(other, b"before", b"k")
    other.delete([b"before"])
    seen: list[Change] = []
    watching.watch(seen.append)
    put(other, b"loaded")
    put(other, b"set", replaces=True)
    other.delete([b"deleted", b"too"])
    other.expire([b"expired"])
    other.invalidate_tag("é \udcff")
    other.clear()
    let_write(clock, 1.9)
    assert seen == []
    let_write(clock, 0.1)
    expected = [Change(b"set"), Change(b"deleted"), Change(b"too"), Change(b"expired"), Change(tag="é \udcff"), Change()]
    assert seen == expected
    let_write(clock, 10)
    assert seen == expected
    other.delete([b"again"])
    let_write(clock, 2)
    assert seen == [*expected, Change(b"again")]


def test_nobody_is_told_of_what_it_has_done_itself(new: Open, clock: ManualClock) -> None:
    watching, other = new(), new()
    seen: list[Change] = []
    watching.watch(seen.append)
    for number in range(3):
        watching.delete([b"own"])
        if number == 1:
            other.delete([b"other"])
        put(watching, b"own", replaces=True)
    let_write(clock, 1)
    assert seen == [Change(b"other")]


def test_who_reads_notices_at_once(new: Open) -> None:
    """Without waiting for the timer."""
    watching, other = new(), new()
    seen: list[Change] = []
    watching.watch(seen.append)
    other.delete([b"a"])
    watching.read([b"b"])
    assert background.wait(TIMEOUT)
    assert seen == [Change(b"a")]


def test_several_watch_and_one_that_raises_is_the_only_one(
    new: Open, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    watching, other = new(), new()
    seen: list[Change] = []

    def fail(change: Change) -> None:
        raise SystemExit(3)

    watching.watch(fail)
    watching.watch(seen.append)
    other.delete([b"a"])
    let_write(clock, 1)
    assert seen == [Change(b"a")]
    assert "could not be told" in caplog.text


def test_who_has_lost_track_is_told_that_everything_may_have_changed(
    new: Open, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otel_perfopt.tiers.sqlite_history.KEEP", 3)
    watching, other = new(), new()
    seen: list[Change] = []
    watching.watch(seen.append)
    for number in range(3):
        other.delete([b"%d" % number])
    let_write(clock, 1)
    assert seen == [Change(b"%d" % number) for number in range(3)]
    for _ in range(4):
        other.delete([b"a"])
    let_write(clock, 1)
    assert seen[3:] == [Change()]


def test_the_watch_does_not_keep_a_tier_alive(path: Path, clock: ManualClock) -> None:
    tier = SQLiteTier(path, clock=clock)
    tier.watch(print)
    gone = weakref.ref(tier)
    del tier
    gc.collect()
    assert gone() is None
    let_write(clock, 10)
    assert not Path(f"{path}-wal").exists()


def test_a_closed_tier_is_not_opened_by_its_watch(new: Open, path: Path, clock: ManualClock) -> None:
    """But it goes on where it was when it is used again."""
    watching, other = new(), new()
    seen: list[Change] = []
    watching.watch(seen.append)
    watching.close()
    other.delete([b"a"])
    other.close()
    let_write(clock, 10)
    assert (seen, list(path.parent.glob("cache.db-*"))) == ([], [])
    watching.mark()
    let_write(clock, 1)
    assert seen == [Change(b"a")]


def test_two_that_set_the_same_key_end_with_the_same_value(new: Open, clock: ManualClock) -> None:
    """The one that is written last; and whoever had the other one is told."""
    one, two = new(), new()
    told: list[tuple[int, Change]] = []
    for number, tier in enumerate((one, two)):
        tier.watch(lambda change, number=number: told.append((number, change)))  # type: ignore[misc]
    for tier, value in ((one, b"1"), (two, b"2")):
        tier.write({b"a": record(value)}, tier.mark(), replaces=True)
    two.flush()
    one.flush()
    assert values(one, b"a") == values(two, b"a") == {b"a": b"1"}
    let_write(clock, 1)
    assert sorted(told) == [(0, Change(b"a")), (1, Change(b"a"))]


def test_a_load_does_not_replace_what_another_has_set_meanwhile(new: Open) -> None:
    one, two = new(), new()
    mark = one.mark()
    put(two, b"a", value=b"set", replaces=True)
    one.write({b"a": record(b"loaded")}, mark)
    assert values(one, b"a") == {b"a": b"set"}
    one.flush()
    assert values(one, b"a") == values(two, b"a") == {b"a": b"set"}


def test_a_file_that_was_removed(new: Open, path: Path, clock: ManualClock) -> None:
    """Nobody goes on with a file that is no longer there, and marks of it mean nothing in the next one."""
    one, two = new(), new()
    seen: list[Change] = []
    one.watch(seen.append)
    put(one, b"a")
    for _ in range(5):
        one.delete([b"b"])
    mark = one.mark()
    for file in path.parent.glob("cache.db*"):
        file.unlink()
    two.delete([b"a"])
    let_write(clock, 1)
    assert seen == [Change()]
    assert values(one, b"a") == {}
    one.write({b"a": record()}, mark)
    one.flush()
    assert values(one, b"a") == values(two, b"a") == {}
    put(one, b"a")
    assert values(two, b"a") == {b"a": b"value"}


# threads and processes ----------------------------------------------------------------------------------


def test_threads_use_one_tier(new: Open) -> None:
    """All at once, from the first moment on; who has deleted never sees what was before."""
    tier = new(timeout=TIMEOUT)
    barrier = threading.Barrier(8, timeout=TIMEOUT)

    def work(number: int) -> None:
        key = b"own %d" % number
        barrier.wait()
        for step in range(40):
            put(tier, key, b"shared", value=b"%d" % step)
            assert values(tier, key) == {key: b"%d" % step}
            assert tier.delete([key])
            assert values(tier, key) == {}
            if step % 10 == number:
                tier.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


PEER = """
    import sys
    from otel_perfopt.tiers.base import Record
    from otel_perfopt.tiers.sqlite import SQLiteTier
    tier, number = SQLiteTier(sys.argv[1], timeout=30), sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(100):
        key, value = f"{number}-{step}".encode(), Record(b"x" * 1000, 0.0, 4e9, 4e9)
        tier.write({key: value, b"shared": value}, tier.mark(), replaces=True)
        if step % 2:
            tier.delete([key])
        tier.add_counts({"steps": 1})
    tier.close()
    """


def test_processes_share_a_file(path: Path, clock: ManualClock) -> None:
    """From the first moment on, when there is no file yet."""
    children = [process(PEER, path, number) for number in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        finished(child)
    tier = SQLiteTier(path)
    keys = [f"{number}-{step}".encode() for number in range(2) for step in range(100)]
    assert set(tier.read([*keys, b"shared"]).records) == {b"shared", *keys[::2]}
    assert tier.add_counts({}) == {"steps": 200}
    tier.close()


def test_another_process_is_noticed(path: Path, clock: ManualClock) -> None:
    tier = SQLiteTier(path, clock=clock)
    put(tier, b"a", b"b")
    told = threading.Event()
    seen: list[Change] = []

    def on_change(change: Change) -> None:
        seen.append(change)
        told.set()

    tier.watch(on_change)
    code = """
    import sys
    from otel_perfopt.tiers.sqlite import SQLiteTier
    print(SQLiteTier(sys.argv[1], clock=lambda: 1e6).delete([b"a"]))
    """
    assert finished(process(code, path)) == "True\n"
    let_write(clock, 1)
    assert told.wait(TIMEOUT)
    assert seen == [Change(b"a")]
    assert values(tier, b"a", b"b") == {b"b": b"value"}
    tier.close()


# forks --------------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

FORK = """
    import os, sys, time
    from otel_perfopt.tiers.base import Record
    from otel_perfopt.tiers.sqlite import SQLiteTier

    def record(value):
        return Record(value, 0.0, 4e9, 4e9)

    tier = SQLiteTier(sys.argv[1], write_delay=1000)
    tier.write({b"written": record(b"1")}, tier.mark())
    tier.flush()
    tier.write({b"waiting": record(b"2")}, tier.mark())
    """


@needs_fork
def test_a_forked_child_has_connections_of_its_own(path: Path) -> None:
    """It writes what it was given, not what its parent was; and SQLite's locks are not confused.

    With a connection that was open before the fork, or a new one beside it, the parent's end would take the log away in
    which the child goes on to write.
    """
    code = """
    reading, writing = os.pipe()
    back, forth = os.pipe()
    pid = os.fork()
    if pid == 0:
        assert list(tier.read([b"written", b"waiting"]).records) == [b"written"]
        os.write(writing, b".")
        os.read(back, 1)
        tier.write({b"child": record(b"3")}, tier.mark())
        tier.flush()
        tier.delete([b"written"])
        os._exit(0)
    os.read(reading, 1)
    assert len(tier.read([b"written", b"waiting"]).records) == 2
    tier.close()
    other = SQLiteTier(sys.argv[1])
    other.mark()
    other.close()
    os.write(forth, b".")
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    assert list(tier.read([b"child", b"written", b"waiting"]).records) == [b"child", b"waiting"]
    """
    assert finished(process(FORK + code, path)) == "0\n"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT key FROM entries ORDER BY key").fetchall() == [(b"child",), (b"waiting",)]


@needs_fork
def test_a_fork_while_other_threads_are_busy(path: Path) -> None:
    """They wait for it; and the child can use the tier at once."""
    code = """
    import threading
    stopped = threading.Event()

    def work(number):
        while not stopped.is_set():
            tier.write({b"%d" % number: record(b"x" * 5000)}, tier.mark())
            tier.read([b"%d" % number, b"written"])
            tier.delete([b"%d" % number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            tier.write({b"child": record(b"3")}, tier.mark())
            tier.flush()
            os._exit(0 if list(tier.read([b"child", b"written"]).records) == [b"child", b"written"] else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stopped.set()
    for thread in threads:
        thread.join()
    print(sum(map(abs, codes)))
    """
    child = process(
        FORK.replace("import os, sys, time", "import os, sys, time, warnings; warnings.simplefilter('ignore')") + code, path
    )
    assert finished(child) == "0\n"


@needs_fork
def test_a_forked_child_watches_on(path: Path) -> None:
    """What its parent does is news to it, and the other way round."""
    code = """
    import threading
    seen, told = [], threading.Event()
    tier = SQLiteTier(sys.argv[1], poll_interval=0.01)
    tier.watch(lambda change: (seen.append(change.key), told.set()))
    back, forth = os.pipe()
    pid = os.fork()
    if pid == 0:
        tier.delete([b"of the child"])
        os.write(forth, b".")
        if not told.wait(20):
            os._exit(2)
        os._exit(0 if seen == [b"of the parent"] else 1)
    os.read(back, 1)
    tier.delete([b"of the parent"])
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told.wait(20), seen)
    """
    assert finished(process(FORK + code, path)) == "0 True [b'of the child']\n"


@needs_fork
def test_a_child_whose_file_could_not_be_closed_before_the_fork_leaves_it_alone(path: Path) -> None:
    """Because another thread did not come to an end with it, or because nobody has asked Python before forking."""
    code = """
    from otel_perfopt.errors import TierError
    from otel_perfopt.tiers import sqlite_database
    sqlite_database.Database.before_fork = lambda self: None
    pid = os.fork()
    if pid == 0:
        try:
            tier.read([b"written"])
        except TierError as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(2)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(tier.read([b"written", b"waiting"]).records))
    """
    assert finished(process(FORK + code, path)) == "0 2\n"
