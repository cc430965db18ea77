"""Tags alone: what an invalidation takes along, and what it costs."""

import gc
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt._core.tags import RECENT, TaggedEntry, Tags
from tests.cache.support import no_collection


def entry_of(tags: Tags, *names: str, born: int | None = None, expires: float = 10.0) -> TaggedEntry:
    """Make an entry whose value began to be made now, or at some place in history."""
    return TaggedEntry("key", "value", expires, 1.0, None, tags.find(names), tags.now if born is None else born)


def test_an_invalidation_takes_along_what_has_the_tag() -> None:
    """And nothing else."""
    tags = Tags()
    red, green, both, none = (entry_of(tags, *names) for names in (["red"], ["green"], ["red", "green"], []))
    tags.invalidate("red")
    assert [entry.is_valid() for entry in (red, green, both, none)] == [False, True, False, True]


def test_what_is_made_afterwards_is_valid() -> None:
    """Until the next time."""
    tags = Tags()
    tags.invalidate("red")
    entry = entry_of(tags, "red")
    assert entry.is_valid()
    tags.invalidate("red")
    assert not entry.is_valid()


def test_what_began_before_is_not_valid_although_it_is_stored_afterwards() -> None:
    """Whether the tag was known at the time, or not."""
    for known in (False, True):
        tags = Tags()
        keeps = tags.find(["red"]) if known else ()
        born = tags.now
        tags.invalidate("red")
        assert not entry_of(tags, "red", born=born).is_valid()
        assert entry_of(tags, "red").is_valid()
        del keeps


def test_a_tag_that_nothing_has_is_remembered_for_a_while() -> None:
    """So that a load under way may come up with it, and others are not suspected."""
    tags = Tags()
    born = tags.now
    tags.invalidate("red")
    for number in range(RECENT - 1):
        tags.invalidate(f"other:{number}")
    assert not entry_of(tags, "red", born=born).is_valid()
    assert entry_of(tags, "green", born=born).is_valid()


def test_what_began_before_everything_that_is_remembered_is_not_valid() -> None:
    """Nobody knows any more which tags were invalidated: rather one load too many than a value that is wrong."""
    tags = Tags()
    born = tags.now
    tags.invalidate("red")
    for number in range(RECENT):
        tags.invalidate(f"other:{number}")
    assert "red" not in tags._known
    assert not entry_of(tags, "red", born=born).is_valid()
    assert not entry_of(tags, "green", born=born).is_valid()
    assert entry_of(tags, "red").is_valid()


def test_bug_a_tag_was_forgotten_with_its_last_entry() -> None:
    """It was known when it was invalidated, and not any more when a load came up with it."""
    tags = Tags()
    entry, born = entry_of(tags, "red"), tags.now
    tags.invalidate("red")
    del entry
    assert not entry_of(tags, "red", born=born).is_valid()


def test_a_known_tag_is_not_suspected() -> None:
    """As long as an entry has it, its own history counts."""
    tags = Tags()
    keeps, born = entry_of(tags, "green"), tags.now
    tags.invalidate("red")
    assert entry_of(tags, "green", born=born).is_valid()
    assert keeps.is_valid()


def test_an_invalid_entry_is_never_handed_out() -> None:
    """Its `expires` says so, which is all that a hit looks at."""
    tags = Tags()
    entry = entry_of(tags, "red")
    assert entry.expires == 10.0
    entry.expires = 20.0
    assert entry.expires == 20.0
    tags.invalidate("red")
    assert entry.expires == -math.inf
    entry.expires = 30.0
    assert entry.expires == -math.inf
    assert entry.fresh_until == 10.0


def test_names_are_found_once_and_shared() -> None:
    """Entries of one tag have the same object."""
    tags = Tags()
    first, second = entry_of(tags, "red", "red"), entry_of(tags, "red")
    assert len(first.tags) == 1
    assert first.tags[0] is second.tags[0]


def test_tags_go_with_their_entries() -> None:
    """However many there were: one that nothing has is remembered for its last invalidation only."""
    with no_collection():
        tags = Tags()
        for number in range(2 * RECENT):
            entry_of(tags, f"user:{number}")
        assert len(tags._known) == 0
        for number in range(2 * RECENT):
            tags.invalidate(f"nobody:{number}")
        assert len(tags._known) == RECENT
    gc.collect()


STEP = st.one_of(
    st.tuples(st.just("begin"), st.sets(st.sampled_from("abc"))),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("drop"), st.integers(0, 9)),
    st.tuples(st.just("invalidate"), st.sampled_from("abcd")),
)


@given(st.lists(STEP, max_size=40), st.booleans())
def test_against_a_history_that_forgets_nothing(steps: list[Any], late: bool) -> None:
    """An entry is never valid if one of its tags was invalidated since it began; known tags are never suspected."""
    tags = Tags()
    history: list[str] = []  # of invalidations
    begun: list[tuple[set[str], int, Any]] = []
    made: list[tuple[set[str], int, TaggedEntry]] = []
    for name, argument in steps:
        if name == "begin":
            begun.append((argument, len(history), () if late else tags.find(sorted(argument))))
        elif name == "end" and begun:
            names, since, found = begun.pop(argument % len(begun))
            found = found or tags.find(sorted(names))
            made.append((names, since, TaggedEntry("key", "value", 1.0, 1.0, None, found, since)))
        elif name == "drop" and made:
            made.pop(argument % len(made))
        elif name == "invalidate":
            tags.invalidate(argument)
            history.append(argument)
        for names, since, entry in made:
            is_invalid = bool(names & set(history[since:]))
            assert not (is_invalid and entry.is_valid())
            assert late or entry.is_valid() is not is_invalid
