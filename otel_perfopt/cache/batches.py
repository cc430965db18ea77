"""The parts of a call for many keys: the loads that it answers, what came of each key, and what its loader returns."""

import inspect
import threading
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any

from otel_perfopt._core.flight import ABSENT, Aborted, Failed, Loaded, Node, Outcome
from otel_perfopt.cache.load import Load
from otel_perfopt.single_flight import Deadline, is_coroutine_function
from otel_perfopt.single_flight.job import Job

__all__ = ("Answers", "Batch", "call_with", "checked_mapping", "one_of", "part_of")


class Batch(Node):
    """The loads that one call of a loader answers, and what runs it.

    Attributes:
        loads: the loads, until all have ended.
        wanted: those that somebody waits for.
        is_complete: whether all of them are known, so that the call can begin.
        is_started: whether somebody else than the caller makes the call, or waits for it.
        job: the call, if a worker makes it.
    """

    __slots__ = ("is_complete", "is_started", "job", "loads", "wanted")

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[Load] = []
        self.wanted: set[Load] = set()
        self.is_complete = threading.Event()
        self.is_started = False
        self.job: Job | None = None

    def add(self, load: Load) -> None:
        """Take one more load."""
        self.loads.append(load)
        self.wanted.add(load)
        load.waiting_for.add(self)

    def keys(self) -> list[Hashable]:
        """Return the keys that are to be loaded."""
        return [load.key for load in self.loads]

    def is_last(self, load: Load) -> bool:
        """Note that nobody wants one of the loads any more, and return whether that was the last one."""
        self.wanted.discard(load)
        return not self.wanted


class Answers:
    """What came of each key.

    Attributes:
        values: the values.
        failure: the first key that cannot be had, and why.
        deadline: when to stop waiting.
        is_second: whether this is not the first attempt.
    """

    def __init__(self, values: dict[Any, Any], deadline: Deadline | None) -> None:
        self.values = values
        self.failure: tuple[Any, Failed | Aborted] | None = None
        self.deadline = deadline
        self.is_second = False

    def note(self, key: Any, outcome: Outcome) -> None:
        """Note one answer."""
        if not isinstance(outcome, Loaded):
            self.failure = self.failure or (key, outcome)
        elif outcome.value is not ABSENT:
            self.values[key] = outcome.value


def part_of(outcome: Outcome, key: Hashable) -> Outcome:
    """Return what a call that answers many keys has come to for one of them."""
    if not isinstance(outcome, Loaded):
        return outcome
    try:
        return Loaded(outcome.value.get(key, ABSENT))
    except Exception as error:  # noqa: BLE001 - the mapping's, and this key's alone
        return Failed(error, error.__traceback__)


def call_with(loader: Callable[..., Any], keys: Callable[[], list[Hashable]]) -> Any:
    """Call a loader with keys that are known only now."""
    return loader(keys())


def checked_mapping(values: Any) -> Mapping[Any, Any]:
    """Return what a loader of many keys has returned, if that is a mapping.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"a loader of many keys returns a mapping from keys to values, not {type(values).__name__}")
    return values


def one_of(loader: Callable[..., Any], key: Hashable) -> Callable[[], Any]:
    """Return a loader of one key, which is there, from one of many."""

    async def later(values: Awaitable[Any]) -> Any:
        return checked_mapping(await values)[key]

    async def load_async() -> Any:
        return await later(loader([key]))

    def load() -> Any:
        values = loader([key])
        return later(values) if inspect.isawaitable(values) else checked_mapping(values)[key]

    return load_async if is_coroutine_function(loader) else load
