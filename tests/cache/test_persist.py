"""`persist=`: a SQLite file behind the memory, over restarts, in good times and bad ones."""

import gc
import logging
import os
import sqlite3
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt import Cache, cached
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry import background
from otel_perfopt.testing import DictTier
from otel_perfopt.tiers import Codec, SQLiteTier
from tests.cache.callers import Callers, Clock, Source
from tests.cache.support import TIMEOUT, Gate, new_cache, no_collection, passed, run, spawn
from tests.cache.tier_support import NOW
from tests.sync.test_fork import PRELUDE, run_script

BROKEN = ConnectionError("the source is down")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of this test is."""
    return tmp_path / "cache.db"


@pytest.fixture
def wall() -> Clock:
    """The time of day."""
    return Clock(NOW)


@contextmanager
def opened(path: Path, wall: Clock, **options: Any) -> Iterator[Any]:
    """A cache with a file, as a process has it from its start to its end."""
    cache = new_cache(**{"persist": path, "clock": wall, "wall_clock": wall, **options})
    yield cache
    cache.close()


def let_others_tell(wall: Clock) -> None:
    """Let caches look for what others have changed."""
    wall.advance(0.5)
    assert background.wait(TIMEOUT)


# over restarts -----------------------------------------------------------------------------------------------


def test_values_outlive_the_process(path: Path, wall: Clock, callers: Callers) -> None:
    """With the rest of their time, and their tags."""
    with opened(path, wall, ttl=100) as cache:
        cache.set("set", {"a": (1, None)}, tags=["tag"])
        assert callers.get(cache, Source("loaded"), "loaded") == "loaded"
        assert cache.get_many([1, 2], lambda keys: dict.fromkeys(keys, "many")) == {1: "many", 2: "many"}
    wall.advance(60)
    with opened(path, wall, ttl=100) as cache:
        assert cache.get("set") == {"a": (1, None)}
        assert callers.get(cache, Source(BROKEN), "loaded") == "loaded"
        assert cache.get_many([1, 2]) == {1: "many", 2: "many"}
        assert cache.stats().hits_by_tier == {"memory": 0, "sqlite": 4}
        wall.advance(40)
        assert (cache.get("set"), cache.get("loaded")) == (None, None)
    with opened(path, wall, ttl=100) as cache:
        cache.set("set", 1, tags=["tag"])
        cache.invalidate_tag("tag")
    with opened(path, wall, ttl=100) as cache:
        assert cache.get("set") is None


def test_bug_a_cache_that_was_closed_goes_on(path: Path, wall: Clock) -> None:
    """The next use opens the file again; it was not watched meanwhile, and so the memory knew less than the file."""
    with opened(path, wall) as cache, opened(path, wall) as peer:
        cache.set("key", "value")
        cache.close()
        assert cache.get("key") == "value"
        cache.close()
        peer.delete("key")
        assert cache.get("key") is None
        cache.set("key", "value")
        cache.clear()
        cache.close()
        assert cache.get("key") is None


@pytest.mark.parametrize("change", ["delete", "expire", "tag", "clear"])
def test_changes_are_committed_before_they_return(path: Path, wall: Clock, change: str) -> None:
    """Whoever looks into the file then does not find the value; without a flush."""
    with opened(path, wall) as ours, opened(path, wall) as theirs:
        ours.set("key", "old", tags=["tag"])
        ours.flush()
        assert theirs.get("key") == "old"
        with opened(path, wall) as changing:
            actions = {
                "delete": lambda: changing.delete("key"),
                "expire": lambda: changing.expire("key"),
                "tag": lambda: changing.invalidate_tag("tag"),
                "clear": changing.clear,
            }
            actions[change]()
            with opened(path, wall) as fresh:
                assert fresh.get("key") is None
        let_others_tell(wall)
        assert (ours.get("key"), theirs.get("key")) == (None, None)


def test_a_record_that_waits_to_be_written_loses_against_a_peers_delete(path: Path, wall: Clock) -> None:
    """It was made before."""
    with opened(path, wall) as ours, opened(path, wall) as theirs:
        ours.get("other")
        assert ours.get("key", Source("old")) == "old"
        theirs.delete("key")
        ours.flush()
        let_others_tell(wall)
        assert (ours.get("key"), theirs.get("key")) == (None, None)


def test_a_load_that_a_peers_delete_overtakes_is_not_kept(path: Path, wall: Clock) -> None:
    """Neither in memory nor in the file."""
    with opened(path, wall) as ours, opened(path, wall) as theirs:
        gate = Gate("old")
        load = spawn(ours.get, "key", gate)
        passed(gate.entered)
        theirs.delete("key")
        gate.opened.set()
        assert load.result(TIMEOUT) == "old"
        let_others_tell(wall)
        ours.flush()
        assert (ours.get("key"), theirs.get("key")) == (None, None)


def test_what_one_sets_the_other_gets(path: Path, wall: Clock) -> None:
    """Once it is written, and the other one has looked."""
    with opened(path, wall) as ours, opened(path, wall) as theirs:
        ours.set("key", "first")
        ours.flush()
        assert theirs.get("key") == "first"
        ours.set("key", "second")
        ours.flush()
        let_others_tell(wall)
        assert theirs.get("key") == "second"


def test_stale_records_stand_in_after_a_restart(path: Path, wall: Clock, callers: Callers) -> None:
    """The source is down when the process begins."""
    options = {"ttl": 10, "stale_for": 100}
    with opened(path, wall, **options) as cache:
        cache.set("key", "old")
    wall.advance(20)
    with opened(path, wall, **options) as cache:
        assert callers.get(cache, Source(BROKEN)) == "old"
        assert cache.stats().stale_count == 1


@dataclass(frozen=True)
class User:
    """A value of a class."""

    name: str


def test_values_of_a_class(path: Path, wall: Clock) -> None:
    """With `value_type=`, or with a codec; one that has changed is a miss."""
    for options in ({"value_type": User}, {"codec": Codec(User)}):
        with opened(path, wall, **options) as cache:
            cache.set("key", User("Ada"))
        with opened(path, wall, **options) as cache:
            assert cache.get("key") == User("Ada")
    with opened(path, wall, codec=Codec(User, version=2)) as cache:
        assert cache.get("key") is None


# the file ----------------------------------------------------------------------------------------------------


def test_true_makes_a_file_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that git does not see, readable by its owner only."""
    monkeypatch.chdir(tmp_path)
    with closing(Cache("my/users", persist=True)) as cache:
        assert not (tmp_path / ".worktrees").exists()  # nothing is opened before it is used
        cache.set("key", "value")
    file = tmp_path / ".worktrees/.cache/my%2Fusers.db"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (file.parent / ".gitignore").read_text() == "*\n"


def test_a_decorated_function_persists(path: Path, wall: Clock) -> None:
    """Under its name; what another one of the name has kept is found."""
    calls = []
    for _ in range(2):

        @cached(name="squares", persist=str(path), clock=wall, wall_clock=wall)
        def square(number: int) -> int:
            calls.append(number)
            return number * number

        assert (square(3), square(3)) == (9, 9)
        square.cache.close()
    assert calls == [3]


def test_the_file_is_behind_all_other_tiers(path: Path, wall: Clock) -> None:
    """And what it has goes to them."""
    with opened(path, wall) as cache:
        cache.set("key", "value")
    near = DictTier(clock=wall)
    with opened(path, wall, tiers=[near]) as cache:
        assert cache.get("key") == "value"
        assert cache.stats().hits_by_tier == {"memory": 0, "dict": 0, "sqlite": 1}
    assert near.usage().entries == 1


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    """When the cache is made."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name)")
        connection.commit()
    with pytest.raises(ConfigurationError, match="database of something else"):
        Cache("test", persist=path)


# bad times ---------------------------------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of."""
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_damaged_file_is_set_aside_and_the_cache_works_on(path: Path, wall: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning; what is set then is there after a restart."""
    with opened(path, wall) as cache:
        cache.set("key", "old")
    path.write_bytes(b"this was a database once" * 200)
    with opened(path, wall) as cache:
        assert cache.get("key", Source("new")) == "new"
    assert len(warnings(caplog)) == 1
    assert path.with_name("cache.db.damaged-1").exists()
    with opened(path, wall) as cache:
        assert cache.get("key") == "new"


def test_a_file_that_is_damaged_while_it_is_used(path: Path, wall: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Memory cannot be sure of anything any more."""
    with opened(path, wall, max_size=1) as cache:
        for number in range(100):
            cache.set(number, "x" * 100)
        cache.flush()
        cache._behind.guards[0].tier._database.close()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(os.urandom(path.stat().st_size))
        for number in range(10):
            assert cache.get(number, Source("new")) in ("new", "x" * 100)
        cache.delete(3)
        assert cache.get(3) is None
    assert warnings(caplog)


@contextmanager
def full(cache: Any) -> Iterator[None]:
    """Let the disk have no more room."""
    tier = cache._behind.guards[0].tier
    tier.mark()
    writer = tier._database._file.writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    yield
    writer.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_is_warned_of_and_the_cache_works_on(path: Path, wall: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Deletions are still made; what could not be written is written when there is room."""
    with opened(path, wall) as cache:
        cache.set("key", "old")
        cache.flush()
        with full(cache):
            for number in range(50):
                cache.set(number, os.urandom(5000))
            cache.flush()
            assert cache.get(7) is not None
            assert cache.delete("key") is True
            with closing(SQLiteTier(path, clock=wall)) as other:
                assert other.usage().entries == 0
        assert warnings(caplog)
        wall.advance(60)
        cache.flush()
    with opened(path, wall) as cache:
        assert cache.get(7) is not None
        assert cache.get("key") is None


@pytest.mark.skipif(sys.platform == "win32", reason="has no such permissions")
def test_a_folder_that_is_read_only_is_warned_of_and_the_cache_works_on(wall: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """From memory and loaders."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are within one that only root can enter
        Path(folder).chmod(0o555)
        if is_root:
            os.seteuid(65534)
        try:
            with opened(Path(folder, "cache.db"), wall) as cache:
                cache.set("key", "value")
                assert (cache.get("key"), cache.get("other", Source("loaded"))) == ("value", "loaded")
                assert cache.delete("key") is True
                cache.clear()
                assert cache.stats().lifetime == {}
        finally:
            if is_root:
                os.seteuid(0)
            Path(folder).chmod(0o700)
    assert [text.split("'")[1] for text in warnings(caplog)] == ["a tier of a cache fails; the cache goes on without it"]


def test_a_file_that_another_one_keeps_locked(path: Path, wall: Clock) -> None:
    """Nobody in this process gets what could not be deleted; and later it is."""
    tier = SQLiteTier(path, timeout=0, clock=wall)
    with opened(path, wall, persist=False, tiers=[tier], max_size=0) as cache:
        cache.set("key", "old")
        cache.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            cache.delete("key")
            assert cache.get("key") is None
            other.execute("COMMIT")
        wall.advance(60)
        assert cache.get("key") is None
        assert SQLiteTier(path, clock=wall).usage().entries == 0


# figures ----------------------------------------------------------------------------------------------------


def test_figures_add_up_over_restarts_and_processes(path: Path, wall: Clock) -> None:
    """Hits of all tiers, misses, stale answers, evictions."""
    for round_number in range(1, 4):
        with opened(path, wall, max_size=2) as cache, opened(path, wall) as peer:
            for number in range(3):
                cache.get(number, Source())
            cache.get(2)
            peer.get("nothing")
            peer.close()
            lifetime = cache.stats().lifetime
        assert lifetime["hits"] + lifetime["misses"] == 5 * round_number
        assert lifetime["misses"] == 3 + round_number
    with opened(path, wall) as cache:
        assert cache.stats().lifetime == lifetime
        assert cache.stats().hit_count == 0


def test_figures_are_saved_at_the_end_of_a_process(tmp_path: Path) -> None:
    """Without a close, also by a forked child, which counts what it does itself."""
    script = """
    import os, sys
    from otel_perfopt import Cache
    cache = Cache("users", persist=sys.argv[1] if len(sys.argv) > 1 else os.environ["CACHE_FILE"], ttl=None)
    cache.get(1, lambda: "one"), cache.get(1), cache.get(2)
    if (child := os.fork()) == 0:
        assert cache.stats().hit_count == 0 and cache.stats().hits_by_tier == {"memory": 0, "sqlite": 0}, cache.stats()
        assert cache.get(1) == "one"
        cache.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    os.environ["CACHE_FILE"] = str(tmp_path / "cache.db")
    try:
        run_script(PRELUDE + _dedent(script))
    finally:
        del os.environ["CACHE_FILE"]
    with closing(new_cache(persist=tmp_path / "cache.db", ttl=None)) as cache:
        lifetime = cache.stats().lifetime
        assert (lifetime["hits"], lifetime["misses"]) == (2, 2)
        assert cache.get(1) == "one"


def _dedent(script: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in script.splitlines()) + "\n"


# garbage and forks --------------------------------------------------------------------------------------------


def test_a_dropped_cache_and_its_file_are_let_go(path: Path, wall: Clock) -> None:
    """The watch does not keep it alive; what was waiting is written all the same."""
    cache = new_cache(persist=path, clock=wall, wall_clock=wall)
    cache.set("key", "value")
    cache.get("other", Source())
    tier = cache._behind.guards[0].tier
    with no_collection():
        reference = weakref.ref(cache)
        del cache
        assert reference() is None
    tier.close()
    reference = weakref.ref(tier)
    del tier
    gc.collect()
    assert reference() is None
    with opened(path, wall) as cache:
        assert cache.get("key") == "value"


def test_bug_after_a_fork_the_parent_goes_on_watching(tmp_path: Path) -> None:
    """What the child deletes the parent loses; the file was closed for the fork, and memory alone did not open it again."""
    script = """
    import os, sys, time
    from otel_perfopt import Cache
    from otel_perfopt.tiers import SQLiteTier
    cache = Cache("users", tiers=[SQLiteTier(os.environ["CACHE_FILE"], poll_interval=0.01)], ttl=None)
    cache.set("key", "old")
    cache.flush()
    assert cache.get("key") == "old"
    if (child := os.fork()) == 0:
        assert cache.get("key") == "old"
        cache.delete("key")
        cache.get("new", lambda: "child")
        cache.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    deadline = time.monotonic() + 20
    while cache.get("key") is not None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert cache.get("key") is None
    assert cache.get("new") == "child"
    """
    os.environ["CACHE_FILE"] = str(tmp_path / "cache.db")
    try:
        run_script(PRELUDE + _dedent(script))
    finally:
        del os.environ["CACHE_FILE"]


def test_coroutines_use_the_file_too(path: Path, wall: Clock) -> None:
    """All of the async methods."""

    async def main() -> None:
        cache = new_cache(persist=path, clock=wall, wall_clock=wall)
        await cache.set_async("key", "value")
        await cache.flush_async()
        assert await cache.get_async("key") == "value"
        assert await cache.get_many_async(["key", "other"], lambda keys: dict.fromkeys(keys, "new")) == {
            "key": "value",
            "other": "new",
        }
        await cache.aclose()

    run(main())
    with opened(path, wall) as cache:
        assert (cache.get("key"), cache.get("other")) == ("value", "new")
