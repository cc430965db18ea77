"""Updates of a batch: grouped by task, merged in order, and each caller gets the state of its own task."""

import copy
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt.state import State, StateStore, TaskUpdate, apply_updates, set_state_writer

UPDATES = st.builds(
    TaskUpdate, st.sampled_from(["a", "b", "c"]), st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(), max_size=3)
)


class Table:
    """A writer that notes how it was called."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        self.calls: list[dict[str, dict[str, Any]]] = []

    def __call__(self, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, State | Exception]:
        self.calls.append(copy.deepcopy({task: dict(new) for task, new in changes.items()}))
        for task, new in changes.items():
            self.states.setdefault(task, {}).update(new)
        return {task: dict(self.states[task]) for task in changes}


@pytest.fixture(autouse=True)
def no_writer() -> Iterator[None]:
    """Leave the default writer as it is."""
    yield
    set_state_writer(None)


def test_the_specs_mix_up_of_results() -> None:
    """Its pseudo-code returns one result per task for one update per caller: the third caller would get nothing."""
    updates = [TaskUpdate("a", {"n": 1}), TaskUpdate("b", {"n": 2}), TaskUpdate("a", {"m": 3}), TaskUpdate("c", {"n": 4})]
    a, b, c = {"n": 1, "m": 3}, {"n": 2}, {"n": 4}
    assert apply_updates(updates, Table()) == [a, b, a, c]


def test_updates_are_merged_in_order_into_one_write_per_task() -> None:
    """The last one that changes a key wins."""
    table = Table()
    updates: list[tuple[str, dict[str, Any]]] = [
        ("a", {"x": 1, "y": 1}),
        ("b", {"x": 9}),
        ("a", {"x": 2}),
        ("a", {"z": {"deep": [1]}, "x": 3}),
    ]
    apply_updates([TaskUpdate(task, new) for task, new in updates], table)
    assert table.calls == [{"a": {"x": 3, "y": 1, "z": {"deep": [1]}}, "b": {"x": 9}}]


@given(st.lists(UPDATES, max_size=12), st.integers(1, 5))
def test_batches_or_one_by_one_come_to_the_same(updates: list[TaskUpdate], size: int) -> None:
    """However updates are divided into batches, states are as if each had been written by itself; results are of their tasks."""
    expected: dict[str, dict[str, Any]] = {}
    table = Table()
    for start in range(0, len(updates), size):
        batch = updates[start : start + size]
        for update in batch:
            expected.setdefault(update.task_id, {}).update(update.changes)
        assert apply_updates(batch, table) == [expected[update.task_id] for update in batch]
    assert table.states == expected


def test_an_empty_batch_writes_nothing() -> None:
    """Nor does one with nothing valid in it."""
    table = Table()
    assert apply_updates([], table) == []
    (error,) = apply_updates(["what is this"], table)  # type: ignore[list-item]
    assert isinstance(error, TypeError)
    assert table.calls == []


def test_a_task_that_fails_fails_for_its_callers_only() -> None:
    """An error in place of a state, a state that is missing, and an item that is no update."""
    refused = OSError("refused")

    def write(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, State | Exception]:
        return {"good": {"ok": True}, "bad": refused}

    updates: list[Any] = [TaskUpdate(task, {"n": 1}) for task in ("bad", "good", "missing", "bad", "good")]
    updates.append("what is this")
    results = apply_updates(updates, write)
    assert results[:2] == results[3:5] == [refused, {"ok": True}]
    assert isinstance(results[2], LookupError)
    assert "'missing'" in str(results[2])
    assert isinstance(results[5], TypeError)


def test_a_writer_that_raises_raises_for_all() -> None:
    """What the caller, such as a batch processor, does with it is its business."""

    def write(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, State | Exception]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_updates([TaskUpdate("a", {})], write)


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), b"bytes", float("nan"), [float("inf")], {(1, 2): 3}, {"deep": [{"deeper": {1}}]}],
    ids=repr,
)
def test_a_value_that_json_cannot_hold_is_refused_where_it_comes_from(value: object) -> None:
    """Its caller learns of it before it is in a batch with others, and nothing becomes a null or a list in silence."""
    with pytest.raises(ValueError, match="JSON cannot hold the changes of task 'a'"):
        TaskUpdate("a", {"value": value})


def test_what_contains_itself_is_refused() -> None:
    """As is what is too deep."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(ValueError, match="JSON cannot hold"):
            TaskUpdate("a", {"value": value})
    while deep:  # or dropping it would recurse as well
        deep = deep.pop()


@pytest.mark.parametrize(("task_id", "changes"), [("", {}), (3, {}), (None, {}), ("a", None), ("a", [1]), ("a", "text")])
def test_what_is_no_update_is_refused(task_id: Any, changes: Any) -> None:
    """Neither the task nor the changes may be something else."""
    with pytest.raises(ValueError, match=r"task_id=|is a mapping"):
        TaskUpdate(task_id, changes)


def test_an_update_is_of_the_moment_when_it_was_made() -> None:
    """What happens to the mapping afterwards does not change it, and it can be sent to another process."""
    changes = {"files": [1], "many": 2**70, "odd": "\udcff", "nothing": None}
    update = TaskUpdate("a", changes)
    before = copy.deepcopy(changes)
    changes["files"].append(2)  # type: ignore[attr-defined]
    assert update.changes == before
    assert pickle.loads(pickle.dumps(update)) == update == TaskUpdate("a", before)


def test_the_writer_can_be_replaced() -> None:
    """By any function; None is the store in the working directory again."""
    table = Table()
    set_state_writer(table)
    assert apply_updates([TaskUpdate("a", {"n": 1})]) == [{"n": 1}]
    assert table.calls == [{"a": {"n": 1}}]
    assert apply_updates([TaskUpdate("a", {"n": 2})], Table()) == [{"n": 2}]
    assert len(table.calls) == 1


def test_by_default_states_are_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was when the first state was written."""
    monkeypatch.chdir(tmp_path)
    set_state_writer(None)
    assert apply_updates([TaskUpdate("a", {"n": 1})]) == [{"n": 1}]
    monkeypatch.chdir(tmp_path.parent)
    assert apply_updates([TaskUpdate("a", {"m": 2})]) == [{"n": 1, "m": 2}]
    assert StateStore(tmp_path / ".worktrees" / ".state" / "state.db").get("a") == {"n": 1, "m": 2}
