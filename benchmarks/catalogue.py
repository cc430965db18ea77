"""All benchmarks by name, and one round of one of them in a process of its own."""

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from benchmarks import (
    batch,
    cache,
    events,
    export,
    hit_ratio,
    imports,
    lazy,
    measure,
    memory,
    pool,
    redis,
    report,
    techniques,
    tiers,
)
from benchmarks.harness import Benchmark, Round, Turn, run_round

__all__ = ("BENCHMARKS", "GROUPS", "choose", "run_isolated")

GROUPS: dict[str, tuple[Benchmark, ...]] = {
    "cache": cache.BENCHMARKS,
    "tier": tiers.BENCHMARKS,
    "redis": redis.BENCHMARKS,
    "batch": batch.BENCHMARKS,
    "pool": pool.BENCHMARKS,
    "lazy": lazy.BENCHMARKS,
    "measure": measure.BENCHMARKS,
    "events": events.BENCHMARKS,
    "export": export.BENCHMARKS,
    "report": report.BENCHMARKS,
    "hit-ratio": hit_ratio.BENCHMARKS,
    "memory": memory.BENCHMARKS,
    "import": imports.BENCHMARKS,
    "technique": techniques.BENCHMARKS,
}
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for group in GROUPS.values() for benchmark in group}


def choose(names: Iterable[str]) -> list[Benchmark]:
    """Return the benchmarks of these names and groups, each once; all of them for no name."""
    chosen = {found.name: found for name in names or GROUPS for found in GROUPS.get(name) or (BENCHMARKS[name],)}
    return list(chosen.values())


def run_isolated(benchmark: Benchmark, turn: Turn) -> Round:
    """Run a round in a fresh process, which has its own meter provider, hash seed and memory layout."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_run_round, benchmark.name, turn).result()


def _run_round(name: str, turn: Turn) -> Round:
    return run_round(BENCHMARKS[name], turn)  # by name: what builds contestants cannot be sent to another process
