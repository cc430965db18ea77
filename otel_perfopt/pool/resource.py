"""A resource as its pool knows it, with its present holder. Nothing is written onto the resource itself."""

import reprlib
import weakref
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from otel_perfopt._core.slots import Slot
from otel_perfopt.pool.stacks import Holder, Place, describe_holder, describe_place, present_callers

__all__ = ("Resource", "describe_holders", "short")

MAX_HOLDERS = 10


class Resource(Slot):
    """A slot with its resource and its holder.

    Attributes:
        id: names the resource in events and messages.
        find: returns the resource, or None if it was collected.
        rest: what `value` is while somebody holds the resource: nothing if its collection can be noticed, or else the resource.
        origin: the span in which it was created.
        since: when the present lease began.
        holder: who has it.
        code: the function in which it was acquired.
        offset: where in it.
        callers: a lease, and the places that it was acquired from.
        context: the OpenTelemetry context in which it was acquired.
        noted: the lease that all this is about; a caller may have got the resource, and not have noticed yet.
        reported: the lease of which it was said that it takes too long.
    """

    __slots__ = (
        "callers", "code", "context", "find", "holder", "id", "noted", "offset", "origin", "reported", "rest", "since"
    )  # fmt: skip

    code: CodeType
    offset: int

    def __init__(self, number: int, pool: str) -> None:
        super().__init__(number)
        self.id = f"{pool}-{number}"
        self.find: Callable[[], Any] = lambda: None
        self.rest: Any = None
        self.origin: SpanContext | None = None
        self.since = 0.0
        self.holder: Holder = 0
        self.callers: tuple[int, tuple[Place, ...]] = 0, ()
        self.context: Context | None = None
        self.noted = self.reported = 0

    def hold(self, value: Any, pool: Callable[[], Any]) -> None:
        """Keep a new resource; tell the pool, if it still exists, when it is collected while somebody holds it."""

        def lose(_: object) -> None:
            owner = pool()
            if owner is not None:
                owner._lose(self.lease, None)  # nothing happens if that lease has ended

        self.value = value
        try:
            self.find = weakref.ref(value, lose)
        except TypeError:  # such as a tuple
            self.find, self.rest = lambda: value, value

    def made_in_span(self, value: Any) -> Any:
        """Note the present span as that of the creation of `value`, and return it."""
        self.origin = trace.get_current_span().get_span_context()
        return value

    def facts(self, now: float) -> dict[str, Any]:
        """Return who holds the resource since when and from where, for a program to read."""
        span = trace.get_current_span(self.context or Context()).get_span_context()
        return {
            "resource_id": self.id,
            "seconds": round(now - self.since, 3),
            "holder": describe_holder(self.holder),
            "trace_id": trace.format_trace_id(span.trace_id) if span.is_valid else None,
            "stack": [describe_place(place) for place in self.stack()],
        }

    def stack(self) -> list[Place]:
        """Return the place where the resource was acquired, and its callers as far as they are known."""
        lease, callers = self.callers
        return [(self.code, self.offset), *(callers if lease == self.lease else present_callers(self.holder, self.code))]


def describe_holders(resources: Iterable[Resource], now: float, caller: Holder) -> list[str]:
    """Return who holds what for how long, the longest first."""
    held = sorted(resources, key=lambda resource: resource.since)
    lines = [
        f"{resource.id}, for {now - resource.since:.1f} s, by {describe_holder(resource.holder)}"
        + (", which is the caller itself" if resource.holder == caller else "")
        + f", acquired at {describe_place((resource.code, resource.offset))}"
        for resource in held[:MAX_HOLDERS]
    ]
    return lines + ([f"and {len(held) - MAX_HOLDERS} more"] if len(held) > MAX_HOLDERS else [])


def short(value: Any) -> str:
    """Return a short text for any object, even for one whose ``__repr__`` raises."""
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001 - this goes into a message about something else
        return f"<{type(value).__name__} at {id(value):#x}>"
