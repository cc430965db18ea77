"""The SQLite tier when its file is full, locked, read-only, damaged, foreign or newer: an error or a warning, and it goes on."""

import logging
import os
import random
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt import Cache
from otel_perfopt.errors import ConfigurationError, TierError, Undecodable
from otel_perfopt.telemetry import background
from otel_perfopt.testing import ManualClock
from otel_perfopt.tiers.base import Change, Tier
from otel_perfopt.tiers.codec import Codec
from otel_perfopt.tiers.keys import encode_key
from otel_perfopt.tiers.sqlite import SQLiteTier
from otel_perfopt.tiers.sqlite_rows import FORMAT
from tests.tiers.sqlite_support import NOW, TIMEOUT, let_write, put, record, values

KEYS = [b"key %d" % number for number in range(50)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of this test is."""
    return tmp_path / "cache.db"


@pytest.fixture
def clock() -> ManualClock:
    """The time of day."""
    return ManualClock(NOW)


@pytest.fixture
def tier(path: Path, clock: ManualClock) -> Iterator[SQLiteTier]:
    """A tier that does not wait for locks."""
    tier = SQLiteTier(path, clock=clock, timeout=0)
    yield tier
    tier._database.close()


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, as anybody may open it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let another one be in the middle of writing."""
    with opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(tier: SQLiteTier) -> Iterator[None]:
    """Let the disk have no more room; there are no pages to use again either."""
    tier.mark()
    writer = tier._database._file.writer  # type: ignore[union-attr]
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    assert writer.execute(f"PRAGMA max_page_count = {pages}").fetchone() == (pages,)
    yield
    writer.execute("PRAGMA max_page_count = 1000000")


USES: dict[str, Callable[[Tier], object]] = {
    "read": lambda tier: tier.read([b"a"]),
    "read several": lambda tier: tier.read([b"a", b"b"]),
    "mark": lambda tier: tier.mark(),
    "delete": lambda tier: tier.delete([b"a"]),
    "expire": lambda tier: tier.expire([b"a"]),
    "tag": lambda tier: tier.invalidate_tag("x"),
    "clear": lambda tier: tier.clear(),
    "counts": lambda tier: tier.add_counts({"hits": 1}),
    "usage": lambda tier: tier.usage(),
}
CHANGES = {name: USES[name] for name in ("delete", "tag", "clear")}


# locked, full, read-only --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USES)
def test_who_writes_waits_for_others_no_longer_than_promised(tier: SQLiteTier, path: Path, name: str) -> None:
    """And who reads does not wait for them."""
    put(tier, b"a")
    with locked(path):
        if name in ("delete", "expire", "tag", "clear", "counts"):
            with pytest.raises(TierError, match="is locked") as info:
                USES[name](tier)
            assert info.value.context == {"path": str(path)}
        else:
            USES[name](tier)
    USES[name](tier)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_failed_is_not_forgotten(tier: SQLiteTier, path: Path, clock: ManualClock, change: str) -> None:
    """What it concerns is not given to anybody here, and it is made with the next transaction."""
    other = SQLiteTier(path, clock=clock)
    tier.write({b"a": record(b"old", "x")}, tier.mark())
    tier.flush()
    mark = tier.mark()
    with locked(path):
        with pytest.raises(TierError):
            CHANGES[change](tier)
        tier.write({b"a": record(b"late", "x")}, mark)
        assert values(tier, b"a") == {}
        assert values(other, b"a") == {b"a": b"old"}  # nobody could tell it
    assert values(tier, b"a") == {}
    tier.flush()
    assert values(tier, b"a") == values(other, b"a") == {}
    other.close()


def test_an_expiry_that_failed_is_not_forgotten(tier: SQLiteTier, path: Path) -> None:
    put(tier, b"a")
    with locked(path):
        with pytest.raises(TierError):
            tier.expire([b"a"])
        assert tier.read([b"a"]).records[b"a"].fresh_until == 0
    tier.flush()
    assert tier.read([b"a"]).records[b"a"].fresh_until == 0


def test_what_cannot_be_written_is_tried_again(
    tier: SQLiteTier, path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With one warning for all that fails until it works."""
    tier.write({b"a": record()}, tier.mark())
    with locked(path):
        with pytest.raises(TierError):
            tier.flush()
        for _ in range(3):
            let_write(clock, 1)
        assert values(tier, b"a") == {b"a": b"value"}
    assert caplog.text.count("cannot be written") == 1
    let_write(clock, 1)
    tier.close()
    with opened(path) as connection:
        assert connection.execute("SELECT key FROM entries").fetchall() == [(b"a",)]
    tier.write({b"b": record()}, tier.mark())
    with locked(path):
        let_write(clock, 1)
    assert caplog.text.count("cannot be written") == 2


def test_too_much_that_cannot_be_written_is_dropped(tier: SQLiteTier, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning; what was set loses at least what was there before."""
    put(tier, b"set", b"loaded", value=b"old")
    with locked(path):
        tier.write({b"set": record(b"new")}, tier.mark(), replaces=True)
        tier.write({b"loaded": record(b"new")}, tier.mark())
        with pytest.raises(TierError):
            tier.write({b"large": record(b"x" * 64 * 2**20)}, tier.mark())
        assert "was dropped" in caplog.text
        assert values(tier, b"set", b"loaded", b"large") == {b"loaded": b"old"}
    tier.flush()
    assert values(tier, b"set", b"loaded") == {b"loaded": b"old"}


@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk(tier: SQLiteTier, change: str) -> None:
    """What waits is kept and tried again; what is to be deleted is deleted all the same."""
    tier.write({b"a": record(b"old", "x")}, tier.mark())
    tier.flush()
    mark = tier.mark()
    with full(tier):
        tier.write({key: record(b"x" * 5_000) for key in KEYS}, mark)
        with pytest.raises(TierError, match="full"):
            tier.flush()
        assert len(values(tier, *KEYS)) == len(KEYS)
        CHANGES[change](tier)
        assert values(tier, b"a") == {}
    with opened(tier.path) as connection:
        assert change == "tag" or connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    tier.flush()
    assert len(values(tier, *KEYS)) == (0 if change == "clear" else len(KEYS))
    assert values(tier, b"a") == {}


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
        for each in (folder, *folder.iterdir()):
            each.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such permissions")
@pytest.mark.parametrize("there", [False, True], ids=["new", "existing"])
def test_a_folder_that_is_read_only(clock: ManualClock, there: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are within one that only root can enter
        tier = SQLiteTier(Path(folder) / "cache.db", clock=clock)
        if there:
            put(tier, b"a")
            tier.close()
        with read_only(Path(folder)):
            with pytest.raises(TierError, match="cannot be used"):
                tier.delete([b"b"])
            SQLiteTier(Path(folder) / "cache.db")
            with pytest.raises(TierError, match="cannot be used"):
                SQLiteTier(Path(folder) / "new" / "cache.db").mark()
        assert values(tier, b"a") == ({b"a": b"value"} if there else {})
        tier.close()


@pytest.mark.parametrize("name", USES)
def test_a_folder_that_is_a_file(path: Path, name: str) -> None:
    path.write_text("a file")
    tier = SQLiteTier(path / "cache.db")
    with pytest.raises(TierError, match="cannot be used"):
        USES[name](tier)
    told: list[Change] = []
    tier.watch(told.append)  # waits for better times


def test_a_watch_that_begins_in_bad_times_has_missed_everything(tmp_path: Path, clock: ManualClock) -> None:
    folder = tmp_path / "folder"
    folder.write_text("a file")
    tier = SQLiteTier(folder / "cache.db", clock=clock)
    told: list[Change] = []
    tier.watch(told.append)
    let_write(clock, 1)
    assert told == []
    folder.unlink()
    tier.mark()
    let_write(clock, 1)
    assert told == [Change()]
    tier.close()


# damage -------------------------------------------------------------------------------------------------


def spoil(path: Path, spoiled: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a file."""
    path.write_bytes(spoiled(path.read_bytes()))


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda content: b"this is no database at all, but a letter to somebody" * 1000,
        lambda content: b"\0" * 60 + content[60:],
        lambda content: content[:100] + b"\xff" * (len(content) - 100),
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"CREATE TABLE entries", b"CREATE TABLE entrjes"),
    ],
    ids=["foreign", "header", "pages", "half", "schema"],
)
@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_a_damaged_file_is_set_aside(
    tier: SQLiteTier, path: Path, name: str, spoiled: Callable[[bytes], bytes], is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and a new one takes its place; it is not looked at before it is used."""
    put(tier, *KEYS, value=b"x" * 1000, tags=("x",))
    tier.close()
    if is_open:
        tier.mark()
    spoil(path, spoiled)
    with caplog.at_level(logging.WARNING, "otel_perfopt"):
        SQLiteTier(path)
        assert not list(path.parent.glob("*.damaged-*"))
        USES[name](tier)
        for _ in range(2):  # what was made when nobody knew yet may be dropped
            put(tier, b"a", tags=("x",))
        assert values(tier, b"a", *KEYS).items() >= {b"a": b"value"}.items()
        assert background.wait(TIMEOUT)
    if list(path.parent.glob("*.damaged-1")):
        assert caplog.text.count("a damaged cache file was set aside") == 1
        assert values(tier, b"a", *KEYS) == {b"a": b"value"}
    else:
        assert is_open  # it was all in memory


@pytest.mark.parametrize("seed", range(4))
def test_damage_at_random_places(path: Path, clock: ManualClock, seed: int) -> None:
    """Nothing but what was written is ever given back, and the tier can be used; of values, the codec notices the damage."""
    chance = random.Random(seed)
    codec = Codec(bytes, compress_above=None)
    tier = SQLiteTier(path, clock=clock)
    lost = 0
    for _ in range(50):
        tier.clear()
        written = {
            key: record(codec.encode(chance.randbytes(chance.choice([10, 1_000, 10_000]))), f"tag {key[-1]}") for key in KEYS[:20]
        }
        tier.write(written, tier.mark())
        tier.close()
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 20])):
            content[chance.randrange(100, len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        found = dict(tier.read(KEYS[:20]).records)
        for key, each in found.items():
            assert each == written[key]._replace(value=each.value)
            if each != written[key]:
                with pytest.raises(Undecodable):
                    codec.decode(each.value)
                lost += 1
        lost += len(written) - len(found)
        put(tier, b"a")
        assert values(tier, b"a") == {b"a": b"value"}
    assert lost
    tier.close()
    assert background.wait(TIMEOUT)


def flipped(data: bytes) -> Iterator[bytes]:
    """The same data with one bit changed, in every byte."""
    for place, byte in enumerate(data):
        yield data[:place] + bytes([byte ^ 1 << place % 8]) + data[place + 1 :]


@pytest.mark.parametrize("column", ["head", "value"])
@pytest.mark.parametrize("codec", [Codec(), Codec(pickle_key=b"sixteen bytes or more")], ids=["checksum", "signature"])
def test_a_flipped_bit_is_a_miss_and_one_warning(
    path: Path, codec: Codec[Any], column: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte is covered by the checksum of its row or by the seal of its value."""

    def cache() -> Cache[str, Any]:
        return Cache("flipped", persist=path, codec=codec, max_size=0, ttl=None)

    value = {"name": "Ada", "numbers": list(range(60))}
    writer = cache()
    writer.set("key", value, tags=["a tag"])
    writer.close()
    with opened(path) as connection:
        (data,) = connection.execute(f"SELECT {column} FROM entries").fetchone()
        rows = connection.execute("SELECT * FROM entries").fetchall()
        for damaged in flipped(data):
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
            connection.execute(f"UPDATE entries SET {column} = ?", (damaged,))
            caplog.clear()
            reader = cache()
            assert [reader.get("key") for _ in range(2)] == [None, None]
            reader.close()
            assert background.wait(TIMEOUT)
            assert len(caplog.records) == 1
        connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
    reader = cache()
    assert reader.get("key") == value
    reader.close()


def test_a_key_in_the_place_of_another_is_a_miss(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Although the other one can be asked for."""
    cache: Cache[str, str] = Cache("renamed", persist=path, max_size=0, ttl=None)
    cache.set("a", "value")
    cache.flush()
    with opened(path) as connection:
        connection.execute("UPDATE entries SET key = ?", (encode_key("b"),))
    assert [cache.get("a"), cache.get("b")] == [None, None]
    assert caplog.text.count("damaged records of a cache file are deleted") == 1
    cache.close()


def test_a_value_in_the_place_of_another_is_a_miss(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Although its own seal is right."""
    cache: Cache[str, str] = Cache("swapped", persist=path, max_size=0, ttl=None)
    cache.set_many({"a": "x" * 100, "b": "y" * 100})
    cache.flush()
    with opened(path) as connection:
        rows = connection.execute("SELECT id, value FROM entries").fetchall()
        swapped = [(value, number) for (number, _), (_, value) in zip(rows, reversed(rows), strict=True)]
        connection.executemany("UPDATE entries SET value = ? WHERE id = ?", swapped)
    assert [cache.get("a"), cache.get("b")] == [None, None]
    assert caplog.text.count("damaged records of a cache file are deleted") == 1
    cache.close()


def test_a_damaged_record_is_deleted(tier: SQLiteTier, path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning for all, and the others are there."""
    put(tier, b"a", b"b", b"c", b"d", value=b"x" * 5000)
    with opened(path) as connection:
        connection.execute("UPDATE entries SET value = zeroblob(5000) WHERE key = x'61'")
        connection.execute("UPDATE entries SET head = x'00' WHERE key = x'62'")
        connection.execute("UPDATE entries SET head = 'text', value = 3 WHERE key = x'63'")
    assert set(values(tier, b"a", b"b", b"c", b"d")) == {b"d"}
    assert caplog.text.count("damaged records of a cache file are deleted") == 1
    let_write(clock)
    assert tier.usage().entries == 1
    put(tier, b"a")
    assert values(tier, b"a") == {b"a": b"value"}


def test_a_damaged_state_is_a_damaged_file(tier: SQLiteTier, path: Path) -> None:
    put(tier, b"a")
    with opened(path) as connection:
        connection.execute("UPDATE meta SET packed = zeroblob(28)")
    assert values(tier, b"a") == {}
    assert Path(f"{path}.damaged-1").exists()


def test_marks_of_a_file_that_was_set_aside_mean_nothing(tier: SQLiteTier, path: Path, clock: ManualClock) -> None:
    """What was invalidated since is not known any more; and watchers are told just this."""
    told: list[Change] = []
    tier.watch(told.append)
    put(tier, b"a")
    mark = tier.mark()
    tier.close()
    path.write_bytes(b"x" * 10_000)
    assert values(tier, b"a") == {}
    tier.write({b"a": record()}, mark)
    tier.flush()
    assert values(tier, b"a") == {}
    let_write(clock, 1)
    assert told == [Change()]


# foreign, newer and older -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_of_something_else_is_left_alone(path: Path, mode: str) -> None:
    """It is refused where the option is; nothing in it changes."""
    with opened(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE orders (number INTEGER)")
    content = path.read_bytes()
    with pytest.raises(ConfigurationError, match="a database of something else; give the cache file its own"):
        SQLiteTier(path)
    assert path.read_bytes() == content


def make_version(path: Path, version: int) -> None:
    """Let a file say that it is of another version."""
    with opened(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def test_a_file_of_a_newer_version_is_left_alone(tier: SQLiteTier, path: Path) -> None:
    put(tier, b"a")
    tier.close()
    make_version(path, FORMAT.version + 1)
    with pytest.raises(ConfigurationError, match="newer version"):
        SQLiteTier(path)


@pytest.mark.parametrize("name", USES)
def test_a_file_that_becomes_one_of_those_later_is_no_reason_to_fail(tier: SQLiteTier, path: Path, name: str) -> None:
    """Not even for a service that runs while its successor has begun; its cache goes on without the file."""
    put(tier, b"a")
    tier.close()
    make_version(path, FORMAT.version + 1)
    with pytest.raises(TierError, match="newer version"):
        USES[name](tier)
    make_version(path, FORMAT.version)
    USES[name](tier)


@pytest.mark.parametrize("name", USES)
def test_a_file_of_an_older_version_is_set_aside(
    tier: SQLiteTier, path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning that says why, when it is first used; what was in it is there, beside the new one."""
    put(tier, b"a")
    tier.close()
    make_version(path, FORMAT.version - 1)
    successor = SQLiteTier(path, clock=tier._clock)
    USES[name](successor)
    put(successor, b"b")
    assert values(successor, b"a", b"b") == {b"b": b"value"}
    successor.close()
    assert background.wait(TIMEOUT)
    assert caplog.text.count("was set aside") == caplog.text.count("an older version of this library") == 1
    with opened(Path(f"{path}.damaged-1")) as connection:
        assert connection.execute("SELECT key FROM entries").fetchall() == [(b"a",)]


# interruptions ------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """As Ctrl-C."""


def interrupt(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Let a step raise once."""
    step = getattr(where, name)

    def fail(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(where, name, step)
        raise Interrupted

    monkeypatch.setattr(where, name, fail)


@pytest.mark.parametrize("step", ["write", "change", "finish", "_sweep", "_log"])
def test_ctrl_c_in_the_middle_of_a_transaction(tier: SQLiteTier, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Nothing of it is there; what it was to do is done by the next one, and what was to be deleted is not given away."""
    from otel_perfopt.tiers.sqlite_changes import Transaction

    put(tier, b"a")
    tier.write({b"b": record()}, tier.mark())
    interrupt(monkeypatch, Transaction, step)
    with pytest.raises(Interrupted):
        tier.delete([b"a"])
    assert values(tier, b"a", b"b") == {b"b": b"value"}
    with opened(tier.path) as connection:
        assert connection.execute("SELECT key FROM entries").fetchall() == [(b"a",)]
    tier.flush()
    with opened(tier.path) as connection:
        assert connection.execute("SELECT key FROM entries").fetchall() == [(b"b",)]


def test_a_reader_that_is_interrupted_leaves_no_transaction(tier: SQLiteTier, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tier, b"a")
    interrupt(monkeypatch, tier, "_stored")
    with pytest.raises(Interrupted):
        tier.read([b"a", b"b"])
    put(tier, b"b")
    assert values(tier, b"a", b"b") == {b"a": b"value", b"b": b"value"}


def test_a_reader_that_is_interrupted_leaves_no_statement(tier: SQLiteTier) -> None:
    """Whoever got its connection next would see the file as it was then."""

    class Interrupting(sqlite3.Cursor):
        def fetchone(self) -> Any:
            raise Interrupted

    put(tier, b"a", value=b"old")
    assert values(tier, b"a") == {b"a": b"old"}
    file = tier._database.file
    assert file is not None
    file.idle.put(file.idle.get_nowait().connection.cursor(Interrupting))
    with pytest.raises(Interrupted):
        tier.read([b"a"])
    put(tier, b"a", value=b"new")
    assert tier.read([b"a", b"b"]).records == {b"a": record(b"new")}
    assert values(tier, b"a") == {b"a": b"new"}


def test_a_finalizer_in_the_middle_of_a_transaction(tier: SQLiteTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """May delete, write, read and close; its deletion is committed when the transaction around it is."""
    from otel_perfopt.tiers.sqlite_changes import Transaction

    put(tier, b"a", b"b", b"c")
    finish = Transaction.finish
    seen = []

    def finalize(transaction: Transaction) -> None:
        monkeypatch.setattr(Transaction, "finish", finish)
        tier.delete([b"b"])
        tier.write({b"d": record()}, tier.mark())
        seen.append(set(tier.read([b"b", b"c", b"d"]).records))
        with pytest.raises(TierError):
            tier.add_counts({"hits": 1})
        tier.close()
        finish(transaction)

    monkeypatch.setattr(Transaction, "finish", finalize)
    assert tier.delete([b"a"])
    assert seen == [{b"c", b"d"}]
    with opened(tier.path) as connection:
        assert connection.execute("SELECT key FROM entries ORDER BY key").fetchall() == [(b"c",), (b"d",)]


def test_user_code_runs_without_locks(tier: SQLiteTier, path: Path, clock: ManualClock) -> None:
    """A callback may use the tier, also in a way that another thread has to take part in."""
    other = SQLiteTier(path, clock=clock)
    seen = []

    def on_change(change: Change) -> None:
        thread = threading.Thread(target=lambda: seen.append((tier.delete([b"a"]), tier.read([b"a"]).records)))
        thread.start()
        thread.join(TIMEOUT)

    put(tier, b"a")
    tier.watch(on_change)
    other.delete([b"b"])
    let_write(clock, 1)
    assert seen == [(True, {})]
    other.close()


def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a deployment that replaced it: a relative path means nothing then."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigurationError, match=r"'cache\.db' is relative"):
        SQLiteTier("cache.db")
    monkeypatch.chdir(tmp_path)
    SQLiteTier("cache.db").close()
