"""One load of a cache: what is asked for, and which entries the new one joins."""

from asyncio import AbstractEventLoop
from dataclasses import dataclass

from otel_perfopt import single_flight
from otel_perfopt._core.policies import Entry
from otel_perfopt.durations import Duration
from otel_perfopt.single_flight.job import Job
from otel_perfopt.unset import Unset

__all__ = ("Load", "Request")


@dataclass(frozen=True, slots=True)
class Request(single_flight.Request):
    """A wish for a value.

    Attributes:
        ttl: how long to keep it.
        owner: the instance whose method is called; its entries go with it.
    """

    ttl: Duration | Unset | None
    owner: object = None


class Load(single_flight.Load):
    """A load that makes an entry.

    Args:
        request: what to load.
        group: the entries that the new one joins, or None.
        loop: the event loop that runs it; None for a load that runs in its caller's thread.
        job: the part that runs in a worker, if there is one.
    """

    __slots__ = ("group", "ttl")

    def __init__(self, request: Request, group: set[Entry] | None, loop: AbstractEventLoop | None, job: Job | None) -> None:
        super().__init__(request, loop, job)
        self.ttl = request.ttl
        self.group = group
