"""The demo's service with this library: caches, pools, batches and a lazy value around the plain functions of the workload.

The caches are those of the specification, whose files one run leaves to the next. Also how both services report the state of
what they have analysed: the plain one writes each report at once, the other one in batches.
"""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, get_type_hints

from otel_perfopt import (
    BatchProcessor,
    Cache,
    cached,
    create_lazy_loader,
    get_batch_processor,
    measure_performance,
    pooled,
)
from otel_perfopt.cli.inputs import Inputs
from otel_perfopt.cli.repository import Output, git, git_command, git_environment
from otel_perfopt.cli.workload import PLAIN, Git, Service, git_info, head_commit, task_spec
from otel_perfopt.errors import PerfOptError
from otel_perfopt.pool import ResourcePool
from otel_perfopt.presets import CACHES, git_worktrees, process_executors
from otel_perfopt.processes import ProcessExecutor
from otel_perfopt.state import State, StateStore, TaskUpdate, set_state_writer
from otel_perfopt.worktrees import Worktree

__all__ = ("BatchedReports", "Library", "PlainReports", "Reports", "open_library")

R = TypeVar("R")


class Reports(Protocol):
    """Takes the state of files that were analysed."""

    def send(self, path: str, analyses: int) -> None:
        """Report that a file has been analysed so many times."""

    def finish(self) -> Mapping[str, State]:
        """Return the last state of each file, when everything is written."""


class PlainReports:
    """Asks git for the commit and writes the state, for each report.

    Args:
        root: the root of the repository.
        store: where the states are written.
    """

    def __init__(self, root: str, store: StateStore) -> None:
        self._root, self._store = root, store
        self._last: dict[str, State] = {}

    def send(self, path: str, analyses: int) -> None:
        """Write the state of a file."""
        update = _update(path, analyses, head_commit(self._root))
        written = self._store.write({update.task_id: update.changes})[update.task_id]
        if isinstance(written, Exception):
            raise written
        self._last[path] = written

    def finish(self) -> Mapping[str, State]:
        """Return the last state of each file."""
        return self._last


class BatchedReports:
    """Asks git for the commit once, and writes the states in batches.

    Args:
        root: the root of the repository.
        store: where the states are written.
        git: runs git.
    """

    def __init__(self, root: str, store: StateStore, git: Git) -> None:
        set_state_writer(store.write)
        self._processor: BatchProcessor[TaskUpdate, State] = get_batch_processor("state_updates")
        self._commit = create_lazy_loader(partial(head_commit, root, git))
        self._last: dict[str, Future[Any]] = {}

    def send(self, path: str, analyses: int) -> None:
        """Add the state of a file to the next batch."""
        self._last[path] = self._processor.add(_update(path, analyses, self._commit.get()))

    def finish(self) -> Mapping[str, State]:
        """Write what is left, and return the last state of each file."""
        self._processor.flush()
        return {path: future.result() for path, future in self._last.items()}


class Library(NamedTuple):
    """The service with this library.

    Attributes:
        service: its parts.
        git: runs git.
        caches: those of its parts.
        made: the answers that it made, each by its part and what that was asked about; not those that a cache had.
        notes: what could not be had, and why.
    """

    service: Service
    git: Git
    caches: tuple[Cache, ...] = ()
    made: AbstractSet[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = ()

    def is_kept(self) -> bool:
        """Whether the answers are in files, for the next run."""
        return all(cache.stats().lifetime for cache in self.caches)

    def forget(self) -> None:
        """Forget all answers, those of other runs included."""
        for cache in self.caches:
            cache.clear()


@contextmanager
def open_library(root: str, inputs: Inputs) -> Iterator[Library]:
    """Open the pools and the caches, and close them afterwards; the repository is left as it was.

    Args:
        root: the root of the repository.
        inputs: what the answers are made from.
    """
    notes: list[str] = []
    with ExitStack() as stack:
        executors = _open("process_executors", process_executors, stack, notes)
        worktrees = _open("git_worktrees", partial(git_worktrees, root, read_only=True), stack, notes)
        library = _library(executors, worktrees, inputs)
        for cache in library.caches:
            stack.callback(cache.close)
        yield library._replace(notes=tuple(notes))


def _open(name: str, make: Callable[[], ResourcePool[R]], stack: ExitStack, notes: list[str]) -> ResourcePool[R] | None:
    """Open a pool for as long as the stack lasts; None, with a note, where there can be none."""
    try:
        pool = make()
        stack.callback(pool.close)
        pool.open()
    except PerfOptError as error:
        notes.append(f"Without {name}: {error}")
        return None
    return pool


def _library(
    executors: ResourcePool[ProcessExecutor] | None, worktrees: ResourcePool[Worktree] | None, inputs: Inputs
) -> Library:
    """Return the service with everything that there is, each part cached and measured under its own name."""
    run_git: Git = git if executors is None else pooled(executors)(_git_by)
    # The commit is in the keys: whatever is checked out meanwhile, the answers are about this one.
    info = partial(git_info, commit=inputs.commit)
    spec: Callable[..., Any] = partial(task_spec, git=run_git, commit=inputs.commit)
    if worktrees is not None:
        spec = pooled(worktrees)(partial(_spec_of_checkout, spec))
    parts: Mapping[str, Callable[..., Any]] = PLAIN._asdict() | {"git_info": info, "task_specs": spec}
    caches = {name: CACHES[name](get_type_hints(part)["return"]) for name, part in PLAIN._asdict().items()}
    made: set[tuple[str, str]] = set()
    service = {name: measure_performance(name, _remembered(name, parts[name], caches[name], inputs, made)) for name in parts}
    return Library(Service(**service), run_git, tuple(caches.values()), made)


def _remembered(
    name: str, part: Callable[..., Any], cache: Cache, inputs: Inputs, made: set[tuple[str, str]]
) -> Callable[[str, str], Any]:
    """Return a part of the service that keeps its answers by what they are made from."""

    def make(root: str, subject: str) -> Any:
        made.add((name, subject))
        answer = part(root, subject)
        if not inputs.still_hold(name, root, subject, answer):
            remembered.invalidate(root, subject)  # whoever asks now gets this answer, but it is not kept under that key
        return answer

    remembered = cached(cache=cache, key=lambda _root, subject: inputs.key(name, subject))(make)
    return remembered


def _git_by(executor: ProcessExecutor, root: str, *arguments: str) -> Output:
    return executor.execute(git_command(root, *arguments), env=git_environment())


def _spec_of_checkout(spec: Callable[[str, str], Any], worktree: Worktree, _root: str, folder: str) -> Any:
    """Look into a checkout that nobody edits meanwhile."""
    return spec(str(worktree.path), folder)


def _update(path: str, analyses: int, commit: str) -> TaskUpdate:
    name = path.encode(errors="backslashreplace").decode()
    return TaskUpdate(name, {"file": name, "analyses": analyses, "commit": commit})
