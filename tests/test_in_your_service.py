"""What docs/in-your-service.md says of workers that fork, which a page cannot try by itself."""

import os
import subprocess
import sys

import pytest

WORKERS = """
import os
import sys

from otel_perfopt import cached, configure, get_performance_report, shutdown


@cached(name="names")
def name(number):
    return number, os.getpid()


def figures():
    row = get_performance_report().caches["names"]
    return row.hit_count, row.miss_count


def post_fork():
    configure(service_name="shop", exporter="none")


def work():
    post_fork()
    assert figures() == (0, 0), figures()
    assert name(1) == (1, parent), "the parent's values stay"
    assert name.invalidate(1)
    assert name(1) == (1, os.getpid()), "invalidated here"
    assert figures() == (1, 1), figures()
    assert shutdown()


parent = os.getpid()
name(1), name(1)
workers = []
for _ in range(2):
    worker = os.fork()
    if not worker:
        work()
        sys.exit()  # as gunicorn ends its workers
    workers.append(worker)
assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0]
assert name(1) == (1, parent), "invalidated there, but not here"
assert figures() == (2, 1), figures()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_workers() -> None:
    """Each worker has its parent's values, and its own figures and invalidations."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", WORKERS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
