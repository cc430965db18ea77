"""A storm of callers over pools: who loses what."""

from benchmarks.storm.outcome import SIZE, Outcome
from benchmarks.storm.tasks import AsyncPool, TaskStorm
from benchmarks.storm.threads import Pool, ThreadStorm

__all__ = ("SIZE", "AsyncPool", "Outcome", "Pool", "TaskStorm", "ThreadStorm")
