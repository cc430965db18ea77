"""Four processes with a memory each, one Redis for all: whatever they and it do, nobody goes on with what was invalidated."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from otel_perfopt_redis import RedisTier

from tests.cache import test_tier_processes as files
from tests.cache.support import spawn
from tests.integrations.redis.support import TIMEOUT, Server, put, values
from tests.tiers.sqlite_support import finished, process

ROUNDS = 4
STEPS = 200

SQLITE = 'SQLiteTier(f"{folder}/cache.db", write_delay=draw.choice([0.0, 0.005, 0.02]), poll_interval=0.01, timeout=20)'
BEGIN = """
from otel_perfopt._core.backoff import Backoff
from otel_perfopt.cache import guard
from otel_perfopt_redis import RedisTier, tier as redis_tier

guard.BACKOFF = Backoff(0.02, 0.1)  # of a few seconds there need not be many in a test
redis_tier.LISTEN = 0.1
url, namespace, timeout = sys.argv.pop(), sys.argv.pop(), float(sys.argv.pop())
"""


def worker() -> str:
    """Return the code of a process: that which the tests of the SQLite tier have, with Redis instead."""
    assert SQLITE in files.WORKER
    assert "\nfolder, (seed" in files.WORKER
    code = files.WORKER.replace(SQLITE, "RedisTier(url, namespace=namespace, timeout=timeout)")
    return code.replace("\nfolder, (seed", f"{BEGIN}\nfolder, (seed", 1)


def pauses(server: Server, draw: random.Random) -> None:
    """Stop Redis for a moment."""
    with server.paused():
        threading.Event().wait(draw.choice([0.01, 0.1, 0.3]))


def cuts(server: Server, _: random.Random) -> None:
    """Close all connections."""
    server.kill_connections()


def restarts(server: Server, draw: random.Random) -> None:
    """Kill Redis, and start it with what it saved before, or with nothing."""
    server.admin.save()
    threading.Event().wait(0.05)
    server.restart(empty=draw.random() < 0.5)


def forgets(server: Server, draw: random.Random) -> None:
    """Let Redis forget some of its keys, or all, or the scripts."""
    what = draw.random()
    if what < 0.2:
        server.admin.flushall()
    elif what < 0.4:
        server.admin.script_flush()
    else:
        server.admin.delete(*draw.sample(sorted(server.admin.keys()) or [b"none"], 1))


TROUBLES: dict[str, tuple[Callable[[Server, random.Random], None], ...]] = {
    "undisturbed": (),
    "paused and cut": (pauses, cuts),
    "restarted": (restarts,),
    "forgetful": (forgets,),
    "everything": (pauses, cuts, restarts, forgets),
}


@contextmanager
def trouble(server: Server, kinds: tuple[Callable[[Server, random.Random], None], ...], draw: random.Random) -> Iterator[None]:
    """Make trouble in a thread, until the end."""
    is_over = threading.Event()

    def make() -> None:
        while kinds and not is_over.wait(draw.uniform(0.01, 0.15)):
            draw.choice(kinds)(server, draw)

    maker = spawn(make)
    try:
        yield
    finally:
        is_over.set()
        maker.result(TIMEOUT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TROUBLES)
def test_after_quiet_nobody_serves_what_was_invalidated(tmp_path: Path, own_server: Server, namespace: str, kind: str) -> None:
    """Loads, sets, deletes, tags, clears and expiries of four processes at once, and trouble beside them."""
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    draw = random.Random(seed)
    finished(process(files.TRUTH, tmp_path))
    timeout = 0.1 if TROUBLES[kind] else 5
    arguments = (ROUNDS, STEPS, 1, timeout, namespace, own_server.url)
    children = [process(worker(), tmp_path, seed, number, *arguments) for number in range(files.PROCESSES)]

    def all_say(line: str) -> None:
        for child in children:
            files.hear(child, line)

    def go_on() -> None:
        for child in children:
            files.say(child, "go on")

    try:
        all_say("ready")
        go_on()
        for _ in range(ROUNDS):
            with trouble(own_server, TROUBLES[kind], draw):
                all_say("done")
            go_on()
            all_say("checked")
            go_on()
        answers = [finished(child) for child in children]
    finally:
        own_server.resume()
        for child in children:
            if child.poll() is None:
                child.kill()
                child.communicate()
    assert len({answer.partition("]], ")[0] for answer in answers}) == 1, f"seed={seed}: {answers}"


@pytest.mark.slow
def test_a_process_that_is_killed_takes_no_deletion_with_it(
    tmp_path: Path, own_server: Server, new_tier: Callable[..., RedisTier], namespace: str
) -> None:
    """What it has deleted is deleted, and what it has set may be missing, but is never half there."""
    code = """
    import sys
    from otel_perfopt_redis import RedisTier
    from otel_perfopt.tiers import Record
    tier = RedisTier(sys.argv[1], namespace=sys.argv[2], timeout=5)
    for number in range(100_000):
        tier.write({b"%d" % number: Record(b"x" * 1000, 0, 2e9, 2e9)}, tier.mark(), replaces=True)
        if number % 10 == 0:
            tier.flush()
        tier.delete([b"%d" % (number - 5)])
        print(number - 5, flush=True)
    """
    child = process(code, own_server.url, namespace)
    assert child.stdout is not None
    last = -1
    for _ in range(random.Random(4).randrange(50, 300)):
        last = int(child.stdout.readline())
    child.kill()
    child.communicate()
    tier = new_tier()
    found = values(tier, *(b"%d" % number for number in range(last + 20)))
    assert not any(int(key) <= last for key in found)
    assert set(found.values()) <= {b"x" * 1000}
    put(tier, b"key")
