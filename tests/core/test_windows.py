"""Windows of aggregated events."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt._core.windows import Window

VALUES = st.one_of(st.integers(-1000, 1000), st.booleans(), st.sampled_from(["a", "b"]), st.none())


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), VALUES)))
def test_a_window_agrees_with_looking_at_all_events(events: list[dict[str, Any]]) -> None:
    """Count, the extremes and sums of numbers, and what all that have an attribute agree on."""
    window = Window()
    window.fold(events[:2])
    window.fold(events[2:])
    result = window.attributes()
    assert result.pop("count") == len(events)
    for name in "xyz":
        values = [event[name] for event in events if name in event]
        numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
        others = [value for value in values if not isinstance(value, int) or isinstance(value, bool)]
        if numbers:
            assert result.pop(f"{name}.sum") == sum(numbers)
            assert result.pop(f"{name}.min") == min(numbers)
            assert result.pop(f"{name}.max") == max(numbers)
        if others and all(value == others[0] for value in others):
            assert result.pop(name) == others[0]
    assert result == {}
