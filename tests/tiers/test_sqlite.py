"""The SQLite tier, method by method, for one process."""

import gc
import math
import os
import sqlite3
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.testing import ManualClock
from otel_perfopt.tiers.base import Record, TierUsage
from otel_perfopt.tiers.sqlite import SQLiteTier
from otel_perfopt.tiers.sqlite_pending import MANY
from tests.tiers.sqlite_support import NOW, TIMEOUT, let_write, process, put, record, values

Open = Callable[..., SQLiteTier]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of this test is."""
    return tmp_path / "folder" / "cache.db"


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


# records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "each",
    [
        record(b""),
        record(b"x" * 100_000),
        record(b"\0\xff", "a", "b c", "é \udcff", ""),
        Record(b"for ever", -5.0, math.inf, math.inf, ()),
        record(b"stale", fresh=-10.0),
    ],
    ids=["empty", "large", "tags", "for ever", "stale"],
)
@pytest.mark.parametrize("where", ["waiting", "written", "reopened"])
def test_a_record_is_given_back_as_it_is(new: Open, each: Record, where: str) -> None:
    tier = new()
    tier.write({b"key": each, b"": each}, tier.mark())
    if where != "waiting":
        tier.flush()
    if where == "reopened":
        tier.close()
        tier = new()
    assert tier.read([b"key", b"other", b""]).records == {b"key": each, b"": each}
    assert tier.read([b"key"]).records == {b"key": each}


def test_what_is_not_there(new: Open) -> None:
    tier = new()
    assert tier.read([]).records == {}
    assert values(tier, b"a", b"b") == {}
    assert not tier.delete([b"a"])
    assert not tier.delete([])
    assert not tier.expire([b"a"])
    tier.write({}, tier.mark())
    tier.flush()
    tier.invalidate_tag("tag")
    tier.clear()


def test_a_record_is_there_until_it_is_not_kept_any_more(new: Open, clock: ManualClock) -> None:
    """Stale ones included."""
    tier = new()
    put(tier, b"a")
    clock.advance(119)
    assert values(tier, b"a") == {b"a": b"value"}
    clock.advance(1)
    assert values(tier, b"a") == {}
    tier.write({b"b": record()}, tier.mark())
    assert values(tier, b"b") == {}  # while it waits, too


def test_the_last_write_of_a_key_wins(new: Open) -> None:
    tier = new()
    mark = tier.mark()
    for value in (b"1", b"2"):
        tier.write({b"a": record(value)}, mark)
    assert values(tier, b"a") == {b"a": b"2"}
    tier.flush()
    put(tier, b"a", value=b"3")
    assert values(tier, b"a") == {b"a": b"3"}
    assert tier.usage().entries == 1


def test_what_was_set_is_not_replaced_by_what_was_loaded_before(new: Open) -> None:
    """Neither while it waits nor when it is written."""
    tier = new()
    mark = tier.mark()
    tier.write({b"a": record(b"set")}, tier.mark(), replaces=True)
    tier.write({b"a": record(b"loaded")}, mark)
    assert values(tier, b"a") == {b"a": b"set"}
    tier.flush()
    tier.write({b"a": record(b"loaded")}, mark)
    tier.flush()
    assert values(tier, b"a") == {b"a": b"set"}
    put(tier, b"a", value=b"loaded later")
    assert values(tier, b"a") == {b"a": b"loaded later"}


# writing behind -----------------------------------------------------------------------------------------


def test_records_are_written_when_they_have_waited(new: Open, clock: ManualClock) -> None:
    """Together, and not before."""
    tier, other = new(write_delay="100ms"), new()
    mark = tier.mark()
    tier.write({b"a": record()}, mark)
    let_write(clock, 0.09)
    tier.write({b"b": record()}, mark)
    assert values(other, b"a", b"b") == {}
    let_write(clock, 0.01)
    assert values(other, b"a", b"b") == {b"a": b"value", b"b": b"value"}
    tier.write({b"c": record()}, mark)
    let_write(clock, 0.1)
    assert values(other, b"c") == {b"c": b"value"}


def test_many_records_are_written_at_once(new: Open, clock: ManualClock) -> None:
    tier, other = new(write_delay=1000), new()
    tier.write({str(number).encode(): record() for number in range(MANY)}, tier.mark())
    let_write(clock, 0)
    assert values(other, b"1", b"999") == {b"1": b"value", b"999": b"value"}


def test_who_writes_too_much_has_to_wait(new: Open) -> None:
    """So that what waits does not grow without end."""
    tier, other = new(write_delay=1000), new()
    mark = tier.mark()
    tier.write({b"a": record(b"x" * 64 * 2**20)}, mark)
    assert not tier._writer.pending.records
    assert values(other, b"a") == {b"a": b"x" * 64 * 2**20}


def test_a_tier_that_nobody_knows_any_more_still_writes(new: Open, path: Path, clock: ManualClock) -> None:
    tier = SQLiteTier(path, clock=clock)
    tier.write({b"a": record()}, tier.mark())
    gone = weakref.ref(tier)
    del tier
    let_write(clock)
    gc.collect()
    assert gone() is None
    assert values(new(), b"a") == {b"a": b"value"}


def test_close_writes_and_a_later_call_opens_again(new: Open, path: Path) -> None:
    tier = new()
    tier.write({b"a": record()}, tier.mark())
    tier.close()
    assert [file.name for file in path.parent.iterdir()] == ["cache.db"]  # nothing is open
    assert values(tier, b"a") == {b"a": b"value"}
    tier.close()
    tier.close()


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_what_waits_is_written_at_exit(new: Open, path: Path, end: str) -> None:
    code = """
    import sys, time
    from otel_perfopt.tiers.base import Record
    from otel_perfopt.tiers.sqlite import SQLiteTier
    sys.excepthook = lambda *_: None
    tier = SQLiteTier(sys.argv[1], write_delay=1000)
    tier.write({b"a": Record(b"value", 0.0, 4e9, 4e9)}, tier.mark())
    """
    child = process(f"{code}\n    {end}\n", path)
    child.communicate(timeout=40)
    assert list(path.parent.iterdir()) == [path]
    assert values(new(), b"a") == {b"a": b"value"}


# deleting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", [False, True])
def test_delete(new: Open, waiting: bool, clock: ManualClock) -> None:
    tier, other = new(), new()
    tier.write({key: record() for key in (b"a", b"b", b"c")}, tier.mark())
    if not waiting:
        tier.flush()
    assert tier.delete([b"a", b"b"])
    assert values(tier, b"a", b"b", b"c") == values(other, b"a", b"b", b"c") == {b"c": b"value"}
    assert not tier.delete([b"a", b"b"])
    clock.advance(60)
    assert not tier.delete([b"c"])  # was stale
    assert values(other, b"c") == {}


@pytest.mark.parametrize("waiting", [False, True])
def test_expire(new: Open, waiting: bool) -> None:
    """What is stale is still there."""
    tier, other = new(), new()
    tier.write({key: record() for key in (b"a", b"b")}, tier.mark())
    if not waiting:
        tier.flush()
    assert tier.expire([b"a"])
    for each in (tier, other):
        found = each.read([b"a", b"b"]).records
        assert found[b"a"] == record()._replace(fresh_until=0.0)
        assert found[b"b"] == record()
    assert not tier.expire([b"a"])


@pytest.mark.parametrize("waiting", [False, True])
def test_invalidate_tag(new: Open, waiting: bool) -> None:
    tier, other = new(), new()
    tier.write({b"a": record(b"1", "x", "y"), b"b": record(b"2", "y"), b"c": record(b"3")}, tier.mark())
    if not waiting:
        tier.flush()
    tier.invalidate_tag("x")
    tier.invalidate_tag("other")
    assert values(tier, b"a", b"b", b"c") == values(other, b"a", b"b", b"c") == {b"b": b"2", b"c": b"3"}
    assert not tier.delete([b"a"])
    put(tier, b"a", tags=("x",))
    assert values(other, b"a") == {b"a": b"value"}
    assert tier.delete([b"a"])


@pytest.mark.parametrize("waiting", [False, True])
def test_clear(new: Open, waiting: bool) -> None:
    tier, other = new(), new()
    tier.write({b"a": record(b"1", "x"), b"b": record(b"2")}, tier.mark())
    if not waiting:
        tier.flush()
    tier.clear()
    assert values(tier, b"a", b"b") == values(other, b"a", b"b") == {}
    assert tier.usage().entries == 0


def test_a_deletion_is_made_although_another_one_of_the_same_key_was_just_committed(
    new: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has not been taken off the list yet, when something new is there."""
    tier, other = new(), new()
    pending = tier._writer.pending
    settle = pending.settle
    deleted: list[bool] = []
    thread = threading.Thread(target=lambda: deleted.append(tier.delete([b"a"])))

    def settle_late(*arguments: Any) -> None:
        monkeypatch.setattr(pending, "settle", settle)
        put(other, b"a", value=b"new")
        (committed,) = pending.changes.values()
        thread.start()
        while committed in pending.changes.values():  # until the other thread has asked for its own
            assert thread.is_alive()
        settle(*arguments)

    put(tier, b"a", value=b"old")
    monkeypatch.setattr(pending, "settle", settle_late)
    assert tier.delete([b"a"])
    thread.join(TIMEOUT)
    assert deleted == [True]
    assert values(other, b"a") == {}


@pytest.mark.parametrize("change", ["delete", "tag", "clear"])
@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("when", ["before the write", "while it waits"])
def test_a_late_write_brings_nothing_back(new: Open, change: str, by: str, replaces: bool, when: str) -> None:
    """A value that was made before an invalidation, and comes after it; by this tier or by another one."""
    tier = new()
    changing = tier if by == "itself" else new()
    late = {b"a": record(b"old", "x")}

    def invalidate() -> None:
        {"delete": lambda: changing.delete([b"a"]), "tag": lambda: changing.invalidate_tag("x"), "clear": changing.clear}[
            change
        ]()

    mark = tier.mark()
    if when == "before the write":
        invalidate()
        tier.write(late, mark, replaces=replaces)
    else:
        tier.write(late, mark, replaces=replaces)
        invalidate()
    assert values(tier, b"a") == {}
    tier.flush()
    assert values(tier, b"a") == values(changing, b"a") == {}
    put(tier, b"a", value=b"new", tags=("x",))
    assert values(changing, b"a") == {b"a": b"new"}


def test_a_late_write_of_what_has_expired_is_stale(new: Open) -> None:
    """A load that began before may still store its value, but nobody takes it for fresh."""
    tier, other = new(), new()
    mark = tier.mark()
    other.expire([b"a"])
    tier.write({b"a": record()}, mark)
    for _ in range(2):
        assert tier.read([b"a"]).records == {b"a": record()._replace(fresh_until=0.0)}
        tier.flush()


def test_a_mark_of_a_read_counts_as_well(new: Open) -> None:
    tier, other = new(), new()
    mark = tier.read([b"a"]).mark
    other.delete([b"b"])
    tier.write({b"a": record()}, mark)  # nothing of it has changed
    other.delete([b"c"])
    tier.write({b"c": record()}, mark)
    tier.flush()
    assert values(other, b"a", b"c") == {b"a": b"value"}


def test_a_mark_that_is_too_old_is_not_trusted(new: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed since is not known any more."""
    monkeypatch.setattr("otel_perfopt.tiers.sqlite_history.KEEP", 3)
    monkeypatch.setattr("otel_perfopt.tiers.sqlite_changes.KEEP", 3)
    tier = new()
    marks = []
    for _ in range(5):
        marks.append(tier.mark())
        tier.delete([b"other"])
    for number, mark in enumerate(marks):
        tier.write({str(number).encode(): record()}, mark)
    tier.flush()
    assert set(values(tier, *(str(number).encode() for number in range(5)))) == {b"2", b"3", b"4"}
    with closing(sqlite3.connect(tier.path)) as connection:
        assert connection.execute("SELECT count(*) FROM changes").fetchone() == (3,)


def test_a_clock_that_goes_back_brings_nothing_back(new: Open, path: Path) -> None:
    """Serials decide."""
    now = [NOW]
    tier = SQLiteTier(path, clock=lambda: now[0])
    put(tier, b"deleted", b"expired")
    put(tier, b"tagged", tags=("x",))
    mark = tier.mark()
    tier.delete([b"deleted"])
    tier.expire([b"expired"])
    tier.invalidate_tag("x")
    for now[0] in (NOW - 1e6, 0.0, NOW + 1e6, NOW):
        tier.write({b"deleted": record()}, mark)
        tier.flush()
        found = tier.read([b"deleted", b"expired", b"tagged"]).records
        assert all(each.fresh_until <= now[0] for each in found.values())
        assert set(found) <= {b"expired"}
    tier.close()


# room ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [50, 3_000, 30_000])
def test_the_file_does_not_grow_beyond_its_limit(new: Open, path: Path, size: int) -> None:
    """However much is written; what was written last is there."""
    limit = 512 * 2**10
    tier = new(max_bytes=limit)
    count = 4 * limit // (size + 100)
    keys = [f"{number:020}".encode()[::-1] for number in range(count)]
    for start in range(0, count, 50):
        put(tier, *keys[start : start + 50], value=os.urandom(size) if size > 100 else b"x" * size)
    tier.close()
    assert path.stat().st_size <= limit * 1.05
    there = set(tier.read(keys).records)
    assert there == set(keys[-len(there) :])
    assert len(there) * (size + 40) > limit * 0.4
    usage = tier.usage()
    assert usage.entries == len(there)
    assert 0.5 * limit < usage.size <= (usage.max_size or 0) == limit


@pytest.mark.parametrize("keys", [[b"read"], [b"read", b"another"]], ids=["alone", "with others"])
def test_what_was_read_lately_has_a_second_chance(new: Open, keys: list[bytes]) -> None:
    tier = new(max_bytes=512 * 2**10)
    put(tier, b"read", b"not read", value=b"x" * 1000)
    for number in range(6):
        assert tier.read(keys).records
        put(tier, *(f"{number}-{each}".encode() for each in range(100)), value=b"x" * 1000)
    assert set(values(tier, b"read", b"not read")) == {b"read"}


def test_a_record_that_is_too_large_is_not_kept(new: Open) -> None:
    """And what it was to replace is gone."""
    tier = new(max_bytes=2**20)
    put(tier, b"a", b"b", value=b"old")
    put(tier, b"a", value=b"x" * 300_000, replaces=True)
    assert values(tier, b"a", b"b") == {b"b": b"old"}


def test_what_nobody_can_get_is_swept(new: Open, clock: ManualClock) -> None:
    """A few rows with every write; and the tags that made them so are forgotten after a round."""
    tier = new(max_bytes=None)
    put(tier, *(b"expired %d" % number for number in range(100)))
    clock.advance(121)
    fresh = record(now=NOW + 121)
    mark = tier.mark()
    tier.write({b"tagged %d" % number: fresh._replace(tags=("x",)) for number in range(100)}, mark)
    tier.flush()
    tier.invalidate_tag("x")

    def tags() -> int:
        with closing(sqlite3.connect(tier.path)) as connection:
            return int(connection.execute("SELECT count(*) FROM tags").fetchone()[0])

    assert tags() == 1
    for number in range(60):
        tier.write({b"new": fresh._replace(value=b"%d" % number)}, tier.mark())
        tier.flush()
    assert tier.usage().entries == 1
    assert tags() == 0
    tier.write({b"late": fresh._replace(tags=("x",))}, mark)  # the history knows it still
    tier.flush()
    assert values(tier, b"late", b"tagged 1") == {}


def test_a_tag_that_is_invalidated_in_the_middle_of_a_round_is_kept_until_the_next_one(new: Open) -> None:
    """Its records may be among those that this round has looked at already."""
    tier = new(max_bytes=None)
    keys = [b"%d" % number for number in range(200)]
    put(tier, *keys, tags=("x",))
    rounds = 0
    while not rounds:
        put(tier, b"new", value=os.urandom(4))
        with closing(sqlite3.connect(tier.path)) as connection:
            (cursor,) = connection.execute("SELECT cursor FROM meta").fetchone()
        rounds += 0 < cursor < 100
    tier.invalidate_tag("x")
    for _ in range(60):
        put(tier, b"new", value=os.urandom(4))
        assert values(tier, keys[0], keys[-1]) == {}
    assert tier.usage().entries == 1


def test_usage(new: Open) -> None:
    tier = new(max_bytes=None)
    empty = tier.usage()
    assert empty == TierUsage(0, empty.size, None)
    put(tier, *(b"%d" % number for number in range(100)), value=b"x" * 10_000)
    assert tier.usage().entries == 100
    assert tier.usage().size > empty.size + 1_000_000
    tier.clear()
    assert tier.usage() == empty


# the rest -----------------------------------------------------------------------------------------------


def test_counts_outlive_the_process(new: Open) -> None:
    tier, other = new(), new()
    assert tier.add_counts({}) == {}
    assert tier.add_counts({"hits": 2, "misses": 1}) == {"hits": 2, "misses": 1}
    assert other.add_counts({"hits": 3, "é \udcff": 1}) == {"hits": 5, "misses": 1, "é \udcff": 1}
    tier.clear()
    tier.close()
    assert new().add_counts({}) == {"hits": 5, "misses": 1, "é \udcff": 1}


def test_only_the_owner_can_read_it(new: Open, path: Path) -> None:
    """Whatever the umask; and what SQLite makes beside it, too."""
    before = os.umask(0)
    try:
        put(new(), b"a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 3


def test_nothing_is_made_before_it_is_used(new: Open, path: Path) -> None:
    tier = new(gitignore=True)
    assert not path.parent.exists()
    tier.mark()
    assert (path.parent / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    "option",
    [
        {"max_bytes": 1000},
        {"max_bytes": 1e6},
        {"max_bytes": True},
        {"write_delay": -1},
        {"poll_interval": 0},
        {"timeout": "soon"},
    ],
)
def test_options_that_cannot_work_are_refused(path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        SQLiteTier(path, **option)
