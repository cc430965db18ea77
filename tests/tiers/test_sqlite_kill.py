"""A process that writes is killed at random moments: what it had done is there, and nothing else."""

import os
import random
import signal
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from otel_perfopt.tiers.sqlite import SQLiteTier
from tests.tiers.sqlite_support import process

KILLS = 100
KEYS = [b"key %d" % number for number in range(12)]

# One process imports everything, and forks those that are killed; what they do, they tell before and after, in a file.
WRITERS = """
    import os, random, sys, time, zlib
    from otel_perfopt.tiers.base import Record
    from otel_perfopt.tiers.sqlite import SQLiteTier

    path, notes, seed = sys.argv[1:]
    keys = [b"key %d" % number for number in range(12)]

    def live(life):
        chance = random.Random(f"{seed}-{life}")
        out = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        def note(*words):
            os.write(out, (" ".join(map(str, words)) + "\\n").encode())

        def value(key, number):
            body = b"%s|%d|%s" % (key, number, b"x" * chance.choice([10, 500, 20_000]))
            return body + zlib.crc32(body).to_bytes(4, "little")

        tier = SQLiteTier(path, write_delay=0.001)
        for number in range(life * 1_000_000, (life + 1) * 1_000_000):
            chosen, what = chance.randrange(len(keys)), chance.random()
            key, now = keys[chosen], time.time()
            if what < 0.7:
                kept = chance.choice([0.003, 3600.0])
                is_set = chance.random() < 0.3
                note("write", chosen, number, kept, int(is_set))
                record = Record(value(key, number), now, now + kept, now + kept, (f"tag {chosen % 3}",))
                tier.write({key: record}, tier.mark(), replaces=is_set)
            elif what < 0.8:
                note("flush", number)
                tier.flush()
                note("flushed", number)
            elif what < 0.9:
                note("delete", chosen, number)
                tier.delete([key])
                note("deleted", chosen, number)
            elif what < 0.98:
                note("tag", chosen % 3, number)
                tier.invalidate_tag(f"tag {chosen % 3}")
                note("tagged", chosen % 3, number)
            else:
                note("clear", number)
                tier.clear()
                note("cleared", number)

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            live(int(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    """


class Oracle:
    """What the notes allow the file to contain."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self._offset = 0
        self.last = dict.fromkeys(range(len(KEYS)), -1)  # the number of the last write that was begun
        self.floor = dict.fromkeys(range(len(KEYS)), -1)  # what was written up to here is deleted
        self.sure = dict.fromkeys(range(len(KEYS)), -1)  # at least this one must be there
        self._waiting: dict[int, int] = {}
        self._sets: set[int] = set()
        self.done = 0

    def catch_up(self) -> None:
        """Read what is new."""
        with self._notes.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().splitlines()
            self._offset = file.tell()
        for line in lines:
            verb, *numbers = line.decode().split()
            getattr(self, f"_{verb}")(*map(float, numbers))
        self._sets.clear()
        self._waiting.clear()  # whoever was to write them is dead

    def _concerned(self, verb: str, which: float) -> list[int]:
        return {"delete": [int(which)], "tag": [key for key in self.last if key % 3 == which]}[verb]

    def _write(self, key: float, number: float, kept: float, is_set: float) -> None:
        self.last[int(key)] = int(number)
        if is_set:
            self._sets.add(int(key))
        if kept < 1:
            self._unsure([int(key)])
        elif is_set or int(key) not in self._sets:  # what is loaded while something that was set waits is not kept
            self._waiting[int(key)] = int(number)

    def _unsure(self, keys: list[int]) -> None:
        for key in keys:
            self.sure[key] = -1
            self._waiting.pop(key, None)

    def _gone(self, keys: list[int]) -> None:
        self.done += 1
        for key in keys:
            self.floor[key] = self.last[key]

    def _flush(self, number: float) -> None:
        pass

    def _flushed(self, number: float) -> None:
        self.sure.update(self._waiting)
        self._sets.clear()

    def _delete(self, key: float, number: float) -> None:
        self._unsure([int(key)])

    def _deleted(self, key: float, number: float) -> None:
        self._gone([int(key)])

    def _tag(self, tag: float, number: float) -> None:
        self._unsure(self._concerned("tag", tag))

    def _tagged(self, tag: float, number: float) -> None:
        self._gone(self._concerned("tag", tag))

    def _clear(self, number: float) -> None:
        self._unsure(list(self.last))

    def _cleared(self, number: float) -> None:
        self._gone(list(self.last))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of this test is."""
    return tmp_path / "cache.db"


def lives(path: Path, notes: Path, seed: int) -> Iterator[int]:
    """Let one process after the other write until it is killed."""
    chance = random.Random(seed)
    writers = process(WRITERS, path, notes, seed)
    assert writers.stdin is not None
    assert writers.stdout is not None
    with writers:
        for life in range(KILLS):
            writers.stdin.write(f"{life}\n")
            writers.stdin.flush()
            pid = int(writers.stdout.readline())
            time.sleep(chance.uniform(0.0, 0.06))  # the moment is what is random
            os.kill(pid, signal.SIGKILL)
            assert int(writers.stdout.readline()) == -signal.SIGKILL
            yield life
        writers.stdin.close()


def check(tier: SQLiteTier, oracle: Oracle) -> int:
    """Compare the file with the notes; return how many records there are."""
    now = time.time()
    found = tier.read(KEYS).records
    for chosen, key in enumerate(KEYS):
        record = found.get(key)
        number = -1
        if record is not None:
            body, checksum = record.value[:-4], record.value[-4:]
            assert zlib.crc32(body).to_bytes(4, "little") == checksum
            of, text, _ = body.split(b"|")
            number = int(text)
            assert of == key
            assert record.kept_until > now
            assert record.tags == (f"tag {chosen % 3}",)
            assert oracle.floor[chosen] < number <= oracle.last[chosen], "what was deleted is back"
        assert number >= oracle.sure[chosen], "what was written is lost"
    return len(found)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and os.fork")
def test_a_writer_is_killed_a_hundred_times(path: Path) -> None:
    """Every reopening finds consistent, unexpired records with their checksums, and none that was deleted before."""
    seed = random.randrange(10**6)
    print(f"seed: {seed}")
    oracle, found, wal = Oracle(path.parent / "notes"), 0, 0
    (path.parent / "notes").touch()
    for _ in lives(path, path.parent / "notes", seed):
        oracle.catch_up()
        wal += Path(f"{path}-wal").exists()
        tier = SQLiteTier(path)
        found += check(tier, oracle)
        tier.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not list(path.parent.glob("*.damaged*"))
    assert found > KILLS
    assert oracle.done > KILLS
    assert wal > KILLS // 2  # there was something to recover
