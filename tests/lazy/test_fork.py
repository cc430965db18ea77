"""A forked child: values stay, loads in progress are the parent's."""

import os

import pytest

from tests.sync.test_fork import PRELUDE, run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
PRELUDE += "from otel_perfopt.lazy import LazyLoader, lazy\n"


def test_a_child_loads_what_is_being_loaded_in_the_parent() -> None:
    """For threads, for coroutines, and for the method of an instance; a value that is there needs no load."""
    script = """
entered, opened = threading.Barrier(4), threading.Event()
parent = os.getpid()

def slow():
    if os.getpid() != parent:
        return "child"
    entered.wait(20)
    opened.wait(20)
    return "parent"

class Service:
    @lazy
    def value(self):
        return slow()

known = LazyLoader(lambda: os.getpid())
known.get()
busy, awaited, service = LazyLoader(slow), LazyLoader(slow), Service()
threads = [threading.Thread(target=target) for target in (busy.get, service.value, lambda: asyncio.run(awaited.get_async()))]
threads.append(threading.Thread(target=busy.get))
for thread in threads:
    thread.start()
entered.wait(20)

def check():
    assert known.get() == parent
    assert busy.get() == service.value() == asyncio.run(awaited.get_async()) == "child"
    busy.reset()
    assert busy.get() == "child"

in_child(check)
opened.set()
for thread in threads:
    thread.join(20)
assert busy.get() == service.value() == awaited.get() == "parent"
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_a_fork_inside_a_load_lets_both_finish() -> None:
    """The child's only thread is in the middle of a load, and keeps its value in the child."""
    script = """
def load():
    pid = os.fork()
    if pid == 0:
        return "child"
    assert os.waitpid(pid, 0)[1] == 0
    return "parent"

loader = LazyLoader(load)
value = loader.get()
if value == "child":
    os._exit(0 if loader.get() == "child" and loader.loaded else 1)
assert loader.get() == value == "parent"
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_children_of_a_busy_process_do_not_hang() -> None:
    """Forks at any moment, while threads load, reset, wait for each other and look up methods."""
    script = """
class Service:
    @lazy
    def value(self):
        return [self]

loaders = [LazyLoader(lambda: number) for number in range(3)]
service, stop = Service(), threading.Event()

def churn():
    while not stop.is_set():
        for loader in loaders:
            loader.get()
            loader.reset()
        Service().value()
        service.value.reset()
        service.value()

async def churn_async():
    while not stop.is_set():
        for loader in loaders:
            await loader.get_async()
            loader.reset()

threads = [threading.Thread(target=churn) for _ in range(3)]
threads.append(threading.Thread(target=lambda: asyncio.run(churn_async())))
for thread in threads:
    thread.start()

def check():
    for loader in loaders:
        loader.get()
        loader.reset()
        asyncio.run(loader.get_async())
    assert service.value() == [service]
    assert Service().value()

for _ in range(25):
    in_child(check)
stop.set()
for thread in threads:
    thread.join(20)
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"
