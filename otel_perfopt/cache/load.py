"""One load of a cache: what is asked for, and on which terms."""

from asyncio import AbstractEventLoop
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from otel_perfopt import single_flight
from otel_perfopt._core.flight import Outcome
from otel_perfopt.cache.terms import Terms, current_terms
from otel_perfopt.durations import Duration
from otel_perfopt.single_flight.job import Job
from otel_perfopt.unset import UNSET, Unset

__all__ = ("Load", "Request")


@dataclass(frozen=True, slots=True)
class Request(single_flight.Request):
    """A wish for a value.

    Attributes:
        ttl: how long to keep it.
        tags: the tags of its entry.
        owner: the instance whose method is called; its entries go with it.
        is_refresh: whether there is a fresh value, which is getting old.
        batch: the batch that a new load joins, whose call answers it; None for a load with a call of its own.
    """

    ttl: Duration | Unset | None = UNSET
    tags: tuple[str, ...] = ()
    owner: object = None
    is_refresh: bool = False
    batch: Any = None


class Load(single_flight.Load):
    """A load that makes an entry.

    Args:
        request: what to load.
        terms: what its entry is made with.
        loop: the event loop that runs it; None for a load that runs in a thread.
        job: the part that runs in a worker, if there is one.
    """

    __slots__ = ("batch", "is_refresh", "terms")

    def __init__(self, request: Request, terms: Terms, loop: AbstractEventLoop | None, job: Job | None) -> None:
        super().__init__(request, loop, job)
        self.terms = terms
        self.is_refresh = request.is_refresh
        self.batch: Any = None

    @override
    def enter(self) -> list[tuple[ContextVar[Any], Token[Any]]]:
        return [*super().enter(), (current_terms, current_terms.set(self.terms))]

    @override
    def end(self, outcome: Outcome) -> None:
        super().end(outcome)
        batch, self.batch = self.batch, None
        if batch is not None:
            batch.wanted.discard(self)

    @override
    def cancel(self) -> None:
        if self.batch is None or self.batch.is_last(self):
            super().cancel()
