"""The sketch of frequent keys alone: what the paper promises, and what an eviction does."""

import gc
import weakref
from collections import Counter
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from otel_perfopt._core.hot import Frequent, SpaceSaving

CAPACITY = 4
STREAMS = st.lists(st.integers(0, 3) | st.integers(0, 40), max_size=300)
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "add", "add", "discard"]), st.integers(0, 12)), max_size=200)


def sketch_of(stream: Any, capacity: int = CAPACITY) -> SpaceSaving:
    """A sketch that has seen a stream."""
    sketch = SpaceSaving(capacity)
    for key in stream:
        sketch.add(key)
    return sketch


def everything(sketch: SpaceSaving) -> dict[Any, Frequent]:
    """All that a sketch holds."""
    return {found.key: found for found in sketch.top(len(sketch))}


@given(STREAMS)
@example([*range(50), 0, 0, 0])
def test_what_the_paper_promises(stream: list[int]) -> None:
    """The exact count is between the bounds, which are apart by the least count at most; no frequent key is missing."""
    sketch, exact = sketch_of(stream), Counter(stream)
    found = everything(sketch)
    assert len(found) == len(sketch) == min(CAPACITY, len(exact))
    assert sketch.total == len(stream) == sum(each.most for each in found.values())
    least = min((each.most for each in found.values()), default=0)
    for key, each in found.items():
        assert 1 <= each.least <= exact[key] <= each.most <= each.least + least
    assert {key for key, count in exact.items() if count * CAPACITY > len(stream)} <= set(found)
    assert all(exact[key] <= least for key in exact if key not in found)


@given(CHANGES)
def test_the_bounds_hold_when_keys_are_forgotten(changes: list[tuple[str, int]]) -> None:
    """A key counts from the time it was forgotten, and is never counted too little."""
    sketch, exact, added = SpaceSaving(CAPACITY), Counter[int](), 0
    for change, key in changes:
        if change == "add":
            sketch.add(key)
            exact[key] += 1
            added += 1
        elif key in sketch:
            sketch.discard(key)
            del exact[key]
        found = everything(sketch)
        assert len(found) <= CAPACITY
        assert all(each.least <= exact[key] <= each.most for key, each in found.items())
    assert sketch.total == added


def test_few_keys_are_counted_exactly() -> None:
    """The first come first, and of those that occurred as often, the one that came first."""
    assert sketch_of("abracadabra", capacity=5).top(3) == [Frequent("a", 5, 5), Frequent("b", 2, 2), Frequent("r", 2, 2)]


def test_a_newcomer_begins_with_the_count_of_whoever_goes() -> None:
    """One of those with the least count goes; of a newcomer only what it has had since then is sure."""
    sketch = sketch_of("aaabbb", capacity=2)
    gone = sketch.add("c")
    assert gone in ("a", "b")
    assert everything(sketch)["c"] == Frequent("c", 1, 4)
    assert sketch.top(1)[0].key == ({"a", "b"} - {gone}).pop()


def test_a_key_that_was_met_again_does_not_go() -> None:
    """Although it had the least count when that was last looked for."""
    sketch = sketch_of("abcd")
    sketch.add("e")
    left = [key for key in "abcd" if key in sketch]
    for key in left[:2]:
        sketch.add(key)
    assert sketch.add("f") == left[2]


def test_keys_that_are_all_as_frequent_have_next_to_nothing_for_sure() -> None:
    """Their counts alone would make them look hot: each is a fourth of all."""
    found = sketch_of(list(range(100)) * 10).top(CAPACITY)
    assert all(each.most == 250 for each in found)
    assert all(each.least <= 10 for each in found)


def test_what_goes_is_handed_over() -> None:
    """Dropping a key may run user code, which the caller has to do where it may."""

    class Key:
        pass

    sketch = SpaceSaving(1)
    first, second = Key(), Key()
    dying = weakref.ref(first)
    sketch.add(first)
    gone = sketch.add(second)
    assert gone is first
    del first, gone
    gc.collect()
    assert dying() is None
    dying = weakref.ref(second)
    held = sketch.discard(second)
    del second
    gc.collect()
    assert dying() is not None
    del held
    gc.collect()
    assert dying() is None
    assert (len(sketch), sketch.discard("unknown")) == (0, None)
