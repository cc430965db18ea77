"""The named caches, pools and batch processor of the specification: declared here, built at their first use."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_perfopt.cache.cache import Cache
from otel_perfopt.durations import Duration
from otel_perfopt.registry import BATCH_REGISTRY, CACHE_REGISTRY, POOL_REGISTRY

if TYPE_CHECKING:
    from otel_perfopt.batch import BatchProcessor
    from otel_perfopt.pool import ResourcePool
    from otel_perfopt.processes import ProcessExecutor
    from otel_perfopt.state import State, TaskUpdate
    from otel_perfopt.worktrees import Worktree

__all__ = (
    "CACHES",
    "compilation",
    "dependencies",
    "git_info",
    "git_worktrees",
    "process_executors",
    "state_updates",
    "task_specs",
)


def task_specs(value_type: Any = None) -> Cache[Any, Any]:
    """Return a cache of what there is to do; see `git_info`."""
    return _cache("task_specs", 100, "10m", value_type)


def git_info(value_type: Any = None) -> Cache[Any, Any]:
    """Return a cache of what git says.

    Its entries are also in the file ``.worktrees/.cache/git_info.db`` of the folder that is the current one now. The file is made
    when the cache is first used. What has no bytes is kept in memory only, with one warning.

    Args:
        value_type: the type of the values, such as a dataclass, if they are more than builtin types; see
            `otel_perfopt.tiers.Codec`.

    >>> git_info(value_type=tuple[str, ...]).max_size
    500
    """
    return _cache("git_info", 500, "1m", value_type)


def dependencies(value_type: Any = None) -> Cache[Any, Any]:
    """Return a cache of what depends on what; see `git_info`."""
    return _cache("dependencies", 200, "1h", value_type)


def compilation(value_type: Any = None) -> Cache[Any, Any]:
    """Return a cache of what was compiled; see `git_info`."""
    return _cache("compilation", 50, "30m", value_type)


def _cache(name: str, max_size: int, ttl: Duration, value_type: Any) -> Cache[Any, Any]:
    return Cache(name, max_size=max_size, ttl=ttl, persist=True, unencodable="memory", value_type=value_type)


def git_worktrees(repository: str | Path | None = None, *, read_only: bool = False) -> "ResourcePool[Worktree]":
    """Return a pool of git worktrees, each at the commit that the repository was at when it was made.

    The repository is left as it was when the pool is closed or the process ends.

    Args:
        repository: a folder in the repository; None for the current folder.
        read_only: whether its users only read, so that a worktree need not be cleaned when it is returned, nor looked at
            before it is used again.

    Raises:
        ConfigurationError: there is no repository that can have worktrees.
    """
    from otel_perfopt.pool import ResourcePool  # noqa: PLC0415 - most services need none
    from otel_perfopt.worktrees import GitWorktrees, Worktree  # noqa: PLC0415

    return ResourcePool(
        "git_worktrees",
        GitWorktrees(repository).create,
        min_size=2,
        max_size=10,
        idle_timeout="10m",
        validate=None if read_only else Worktree.is_valid,
        reset=None if read_only else Worktree.reset,
    )


def process_executors() -> "ResourcePool[ProcessExecutor]":
    """Return a pool of long-lived worker processes that execute commands."""
    from otel_perfopt.pool import ResourcePool  # noqa: PLC0415
    from otel_perfopt.processes import ProcessExecutor  # noqa: PLC0415

    return ResourcePool("process_executors", ProcessExecutor, min_size=3, max_size=20, validate=ProcessExecutor.is_alive)


def state_updates() -> "BatchProcessor[TaskUpdate, State]":
    """Return a batch processor that writes updates of the state of tasks, one write for each task of a batch.

    Whoever adds an update gets the whole state of its task after the batch. `set_state_writer` says where it is written.
    """
    from otel_perfopt.batch import BatchProcessor  # noqa: PLC0415

    def write(updates: "Sequence[TaskUpdate]") -> "Sequence[State | Exception]":
        from otel_perfopt.state import apply_updates  # noqa: PLC0415 - SQLite is not needed before

        return apply_updates(updates)

    return BatchProcessor("state_updates", write, batch_size=20, batch_timeout=0.2)


CACHES = {"task_specs": task_specs, "git_info": git_info, "dependencies": dependencies, "compilation": compilation}
for _name, _build in CACHES.items():
    CACHE_REGISTRY.declare(_name, _build)
POOL_REGISTRY.declare("git_worktrees", git_worktrees)
POOL_REGISTRY.declare("process_executors", process_executors)
BATCH_REGISTRY.declare("state_updates", state_updates)
