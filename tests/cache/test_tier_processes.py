"""Four processes, each with a memory and one file for all: whatever they do, nobody goes on with what was invalidated."""

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.tiers.sqlite_support import finished, process

PROCESSES = 4
ROUNDS = 12
STEPS = 40

WORKER = textwrap.dedent(
    """
    import json, random, sqlite3, sys, time
    from otel_perfopt import Cache, entry_options
    from otel_perfopt.tiers import SQLiteTier

    folder, (seed, number, rounds, steps, restarts) = sys.argv[1], map(int, sys.argv[2:])
    draw = random.Random(f"{seed}/{number}")
    KEYS = range(12)

    # The truth: a version for each key. Whoever changes it invalidates the key afterwards, as an application does.
    truth = sqlite3.connect(f"{folder}/truth.db", timeout=20, isolation_level=None)

    def version(key):
        return truth.execute("SELECT version FROM truth WHERE key = ?", (key,)).fetchone()[0]

    def change(keys):
        marks = ", ".join("?" * len(keys))
        truth.execute(f"UPDATE truth SET version = version + 1 WHERE key IN ({marks})", list(keys))

    def load(key):
        entry_options(tags=[f"tag {key % 3}"])
        return key, version(key)

    def new_cache():
        tier = SQLiteTier(f"{folder}/cache.db", write_delay=draw.choice([0.0, 0.005, 0.02]), poll_interval=0.01, timeout=20)
        return Cache("shared", tiers=[tier], max_size=draw.choice([3, 8, 100]), ttl=None)

    def step(cache):
        key = draw.choice(KEYS)
        what = draw.random()
        if what < 0.45:
            cache.get(key, lambda: load(key))
        elif what < 0.6:
            some = draw.sample(KEYS, 5)
            tags = [f"tag {each}" for each in range(3)]
            cache.get_many(some, lambda missing: {each: (each, version(each)) for each in missing}, tags=tags)
        elif what < 0.7:
            # Made from the truth, as loads are, and not kept if somebody has changed it meanwhile; of two that set together,
            # either may come last, so that a set must be followed by an invalidation if the truth has gone on.
            value = key, version(key)
            cache.set(key, value, tags=[f"tag {key % 3}"])
            if version(key) != value[1]:
                cache.delete(key)
        elif what < 0.85:
            change([key])
            cache.delete(key)
        elif what < 0.9:
            change([each for each in KEYS if each % 3 == key % 3])
            cache.invalidate_tag(f"tag {key % 3}")
        elif what < 0.96:
            change([key])
            cache.set(key, (key, version(key)), tags=[f"tag {key % 3}"])
            cache.delete(key)
        elif what < 0.965:
            change(list(KEYS))
            cache.clear()
        else:
            change([key])
            cache.expire(key)

    def say(line):
        print(line, flush=True)
        sys.stdin.readline()  # when all have said it

    def wrong():
        found = {key: cache.get(key) for key in KEYS}
        return {key: (value, version(key)) for key, value in found.items() if value and tuple(value) != (key, version(key))}

    cache = new_cache()
    say("ready")
    for _ in range(rounds):
        for turn in range(steps):
            step(cache)
            if restarts and draw.random() < 0.02:
                cache.close()
                cache = new_cache()
        cache.flush()
        say("done")
        deadline = time.monotonic() + 10
        while wrong() and time.monotonic() < deadline:  # until everything was told
            time.sleep(0.005)
        assert not wrong(), f"seed={seed} process={number}: {wrong()}"
        say("checked")
    loaded = [cache.get(key, lambda: load(key)) for key in KEYS]
    stats = cache.stats()
    cache.close()
    print(json.dumps([loaded, stats.hit_count, stats.miss_count]), flush=True)
    """
)

TRUTH = """
import sqlite3, sys
truth = sqlite3.connect(sys.argv[1] + "/truth.db", isolation_level=None)
truth.execute("PRAGMA journal_mode = WAL")
truth.execute("CREATE TABLE truth (key INTEGER PRIMARY KEY, version INTEGER)")
truth.executemany("INSERT INTO truth VALUES (?, 0)", [(key,) for key in range(12)])
"""


def say(child: "subprocess.Popen[str]", line: str) -> None:
    """Let a process go on."""
    assert child.stdin is not None
    child.stdin.write(f"{line}\n")
    child.stdin.flush()


def hear(child: "subprocess.Popen[str]", line: str) -> None:
    """Wait until a process says something."""
    assert child.stdout is not None
    assert child.stdout.readline() == f"{line}\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs the locks of POSIX")
@pytest.mark.parametrize("restarts", [0, 1], ids=["from start to end", "with restarts"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_quiet_nobody_serves_what_was_invalidated(tmp_path: Path, seed: int, restarts: int) -> None:
    """Loads, sets, deletes, tags, clears and expiries of four processes at once."""
    print(f"seed={seed}")
    finished(process(TRUTH, tmp_path))
    children = [process(WORKER, tmp_path, seed, number, ROUNDS, STEPS, restarts) for number in range(PROCESSES)]
    try:
        for line in ("ready", *("done", "checked") * ROUNDS):
            for child in children:
                hear(child, line)
            for child in children:
                say(child, "go on")
        answers = [finished(child) for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.communicate()
    assert len({answer.partition("]], ")[0] for answer in answers}) == 1, f"seed={seed}: {answers}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_process_that_is_killed_takes_no_deletion_with_it(tmp_path: Path) -> None:
    """What it has deleted is deleted, and what it has set may be missing, but is never half there."""
    code = """
    import random, sys
    from otel_perfopt import Cache
    cache = Cache("shared", persist=sys.argv[1] + "/cache.db", ttl=None)
    for number in range(10_000):
        cache.set(f"kept {number}", number)
        cache.set(f"gone {number}", number)
        if number % 10 == 0:
            cache.flush()
        if cache.delete(f"gone {number}"):
            print(number, flush=True)
    """
    draw = random.Random(4)
    child = process(code, tmp_path)
    assert child.stdout is not None
    last = -1
    for _ in range(draw.randrange(50, 100)):
        last = int(child.stdout.readline())
    child.kill()
    child.communicate()
    check = """
    import sys
    from otel_perfopt import Cache
    cache = Cache("shared", persist=sys.argv[1] + "/cache.db", ttl=None)
    for number in range(int(sys.argv[2]) + 1):
        assert cache.get(f"gone {number}") is None, number
        assert cache.get(f"kept {number}") in (None, number)
    assert cache.get("kept 0") == 0
    cache.close()
    print("good")
    """
    assert finished(process(check, tmp_path, last)) == "good\n"


@pytest.mark.slow
def test_figures_of_four_processes_add_up(tmp_path: Path) -> None:
    """Each saves what it has counted, once."""
    code = """
    import sys
    from otel_perfopt import Cache
    cache = Cache("shared", persist=sys.argv[1] + "/cache.db", ttl=None)
    for number in range(50):
        cache.get(number, lambda: number)
        cache.get(number)
        if number % 10 == 0:
            cache.stats()
    if sys.argv[2] == "closes":
        cache.close()
    """
    children = [process(code, tmp_path, how) for how in ("closes", "ends") * 2]
    for child in children:
        finished(child)
    ask = """
    import sys
    from otel_perfopt import Cache
    cache = Cache("shared", persist=sys.argv[1] + "/cache.db", ttl=None)
    lifetime = cache.stats().lifetime
    print(lifetime["hits"] + lifetime["misses"], lifetime["hits"] >= 200, lifetime["stale"])
    cache.close()
    """
    assert finished(process(ask, tmp_path)) == "400 True 0\n"
