"""Updates of the state of tasks: grouped by task, so that a batch writes each task once."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otel_perfopt.state.store import UNWRITABLE, State, StateStore, dumps

__all__ = ("StateWriter", "TaskUpdate", "apply_updates", "set_state_writer")

StateWriter = Callable[[Mapping[str, Mapping[str, Any]]], Mapping[str, State | Exception]]
"""Takes the changes of each task; returns its whole state after them, or why that failed."""

_writer: StateWriter | None = None
_store: StateStore | None = None


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """A change of the state of one task.

    Args:
        task_id: which task.
        changes: the keys that change, with their new values; copied now, as JSON holds them.

    Raises:
        ValueError: there is no task, or JSON cannot hold a value.

    >>> TaskUpdate("compile", {"status": "done", "files": (1, 2)}).changes
    {'status': 'done', 'files': [1, 2]}
    """

    task_id: str
    changes: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.task_id, str) or not self.task_id:
            raise ValueError(f"task_id={self.task_id!r} must be a string, such as 'compile'")
        try:
            copied = json.loads(dumps(self.changes))
        except UNWRITABLE as error:
            raise ValueError(f"JSON cannot hold the changes of task {self.task_id!r}: {error}") from error
        object.__setattr__(self, "changes", copied)


def apply_updates(updates: Sequence[TaskUpdate], write: StateWriter | None = None) -> list[State | Exception]:
    """Write the updates of a batch: one write for each task, in which a later update of a key wins.

    Args:
        updates: in their order.
        write: what writes; the function given to `set_state_writer` by default.

    Returns:
        For each update, in the same order, the state of its task after the batch, or why that could not be written. Updates of
        one task share the object.

    Raises:
        Exception: whatever `write` raises; then it has written nothing.

    >>> def write(changes):
    ...     return {task: {"is new": True, **new} for task, new in changes.items()}
    >>> apply_updates([TaskUpdate("a", {"n": 1}), TaskUpdate("b", {"n": 2}), TaskUpdate("a", {"n": 3})], write)
    [{'is new': True, 'n': 3}, {'is new': True, 'n': 2}, {'is new': True, 'n': 3}]
    """
    merged: dict[str, dict[str, Any]] = {}
    for update in updates:
        if isinstance(update, TaskUpdate):
            merged.setdefault(update.task_id, {}).update(update.changes)
    states = (write or _current_writer())(merged) if merged else {}
    return [_result(update, states) for update in updates]


def set_state_writer(write: StateWriter | None) -> None:
    """Let `apply_updates` write with this function from now on.

    Args:
        write: takes a mapping of tasks to their changes, and returns a mapping of tasks to states; None for a `StateStore` in
            the working directory.
    """
    global _writer, _store
    _writer, _store = write, None


def _result(update: TaskUpdate, states: Mapping[str, State | Exception]) -> State | Exception:
    if not isinstance(update, TaskUpdate):
        return TypeError(f"{update!r} is no TaskUpdate")
    if update.task_id not in states:
        return LookupError(f"the state writer returned no state for task {update.task_id!r}")
    return states[update.task_id]


def _current_writer() -> StateWriter:
    global _store
    write = _writer
    if write is None:
        # Not before the first use: the working directory may have changed since the import.
        _store = store = _store or StateStore()
        write = store.write
    return write
