"""One storm in a process of its own, so that a pool that hangs hangs alone."""

import logging
import multiprocessing
import random
import warnings
from functools import partial
from multiprocessing.connection import Connection

from benchmarks.storm.outcome import Outcome
from benchmarks.storm.pools import ASYNC_POOLS, POOLS
from benchmarks.storm.tasks import TaskStorm
from benchmarks.storm.threads import ThreadStorm

__all__ = ("losses_of",)

LIMIT = 90.0  # seconds for one storm; those that end by themselves need a few


def losses_of(name: str, callers: str, seed: int, operations: int, *, hooks: bool) -> list[str]:
    """Let a storm rage in a process of its own, and return what the pool has lost; at the latest after `LIMIT` seconds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_rage, args=(theirs, name, callers, seed, operations, hooks), daemon=True)
    process.start()
    theirs.close()
    try:
        losses: list[str] = ours.recv() if ours.poll(LIMIT) else ["everything: it hangs"]
    except EOFError:
        losses = ["everything: the process ended"]
    finally:
        process.kill()
        process.join()
    return losses


def _rage(to: Connection, name: str, callers: str, seed: int, operations: int, hooks: bool) -> None:  # noqa: FBT001
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    random.seed(seed)
    try:
        to.send(_storm(name, callers, seed, operations, hooks=hooks).losses())
    except ModuleNotFoundError as error:
        to.send([f"(pip install {name}: {error})"])


def _storm(name: str, callers: str, seed: int, operations: int, *, hooks: bool) -> Outcome:
    if callers == "threads":
        return ThreadStorm(seed, operations).run(partial(POOLS[name], hooks=hooks))
    return TaskStorm(seed, operations).run(partial(ASYNC_POOLS[name], hooks=hooks))
