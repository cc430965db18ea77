"""A forked child: cached values, no counts, and no memory of what the parent's threads were doing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
ROOT = Path(__file__).parents[2]


def run_script(script: str) -> str:
    """Run Python code in a process of its own, that fails when it hangs."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    return done.stdout


PRELUDE = """
import asyncio, os, sys, threading, time, traceback
from otel_perfopt import Cache, cached

def in_child(check):
    pid = os.fork()
    if pid == 0:
        threading.Timer(20, os._exit, (3,)).start()
        try:
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child: {os.waitstatus_to_exitcode(status)}"
"""


def test_a_child_has_values_and_no_flights() -> None:
    """It counts from zero, and loads what was being loaded in the parent, for threads and for coroutines."""
    script = """
cache = Cache("parent", max_size=10)
cache.set("known", 1)
cache.get("known")
entered, opened = threading.Event(), threading.Event()

def slow():
    entered.set()
    opened.wait(20)
    return "parent"

leader = threading.Thread(target=cache.get, args=("busy", slow))
leader.start()
entered.wait(20)
follower = threading.Thread(target=cache.get, args=("busy", slow))
follower.start()
while cache.stats().load_waiters < 1:
    time.sleep(0.001)
plain_entered = threading.Event()

async def occupy():
    return await cache.get_async("plain", lambda: (plain_entered.set(), opened.wait(20), "parent")[2])

looping = threading.Thread(target=lambda: asyncio.run(occupy()))
looping.start()
plain_entered.wait(20)

def check():
    stats = cache.stats()
    assert (stats.hit_count, stats.miss_count, stats.loads_in_flight, stats.load_waiters) == (0, 0, 0, 0), stats
    assert cache.get("known") == 1
    assert cache.get("busy", lambda: "child") == "child"
    assert asyncio.run(cache.get_async("plain", lambda: "child")) == "child"
    assert cache.stats().hit_count == 1
    cache.set_many({number: number for number in range(30)})
    assert len(cache) == 10
    cache.clear()

in_child(check)
opened.set()
for thread in (leader, follower, looping):
    thread.join(20)
assert (cache.get("busy"), cache.get("plain")) == ("parent", "parent")
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_children_of_a_busy_process_do_not_hang() -> None:
    """Forks at any moment, while threads load, wait for each other, evict, delete and clear."""
    script = """
cache = Cache("busy", max_size=5)
other = Cache("other", max_size=5, policy="lru")
stop = threading.Event()

@cached(max_size=5)
def nested(number):
    return 0 if number <= 0 else 1 + nested(number - 1)

class Thing:
    @cached(max_size=5)
    def method(self, number):
        return number

def churn(seed):
    number = seed
    while not stop.is_set():
        number = (number * 1103515245 + 12345) % 2**31
        key = number % 9
        cache.get(key, lambda: other.get(key, lambda: key))
        other.set(key, key)
        nested(key)
        Thing().method(key)
        if key == 3:
            cache.delete(number % 5)
        if key == 4:
            cache.clear()
            nested.cache.clear()

async def churn_async():
    while not stop.is_set():
        for key in range(9):
            await cache.get_async(key, lambda: other.get(key, lambda: key))
            cache.delete(key)
        await asyncio.sleep(0)

threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
threads.append(threading.Thread(target=lambda: asyncio.run(churn_async())))
for thread in threads:
    thread.start()

def check():
    for tier, limit in ((cache, 5), (other, 5), (nested.cache, 5), (Thing.method.cache, 5)):
        assert len(tier) <= limit
        assert len(tier._store.policy) == len(tier) == tier.stats().weight
        assert tier.stats().loads_in_flight == tier.stats().miss_count == 0
    for key in range(9):
        assert cache.get(key, lambda: other.get(key, lambda: key)) == key
        assert nested(key) == key
        assert Thing().method(key) == key

        async def on_a_loop():
            assert other.get(f"blocking {key}", lambda: nested(key)) == key
            return await cache.get_async(f"async {key}", lambda: other.get(f"inner {key}", lambda: key))

        assert asyncio.run(on_a_loop()) == key

for _ in range(25):
    in_child(check)
stop.set()
for thread in threads:
    thread.join(20)
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_a_fork_in_the_middle_of_a_change_leaves_the_child_in_order() -> None:
    """Another thread is about to evict; the child has no such thread, and no half of its step."""
    script = """
class Key:
    calls = 0
    def __hash__(self):
        Key.calls += 1
        if Key.calls == stop_at and threading.current_thread() is not threading.main_thread():
            entered.set()
            opened.wait(20)
        return id(self)

for policy in ("s3fifo", "lru"):
    for stop_at in range(1, 12):
        entered, opened = threading.Event(), threading.Event()
        cache = Cache("mid-change", max_size=2, policy=policy)
        cache.set_many({Key(): 1, Key(): 2})
        Key.calls = 0

        def change():
            cache.set(Key(), 3)
            entered.set()

        thread = threading.Thread(target=change)
        thread.start()
        entered.wait(20)

        def check():
            for number in range(5):
                assert len(cache._store.policy) == len(cache) == cache.stats().weight <= 2
                cache.set(number, number)
                assert cache.get(number) == number

        in_child(check)
        opened.set()
        thread.join(20)
        check()
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_a_fork_inside_a_load_lets_both_finish() -> None:
    """The child's only thread is in the middle of a load, and stores its value in the child's cache."""
    script = """
cache = Cache("forked inside")

def load():
    pid = os.fork()
    if pid == 0:
        return "child"
    assert os.waitpid(pid, 0)[1] == 0
    return "parent"

value = cache.get("outer", lambda: cache.get("inner", load))
if value == "child":
    ok = cache.get("inner") == cache.get("outer") == "child" and cache.stats().loads_in_flight == 0
    os._exit(0 if ok else 1)
assert cache.get("inner") == "parent"
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"
