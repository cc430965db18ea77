"""A run of requests through a service, measured; how many a slow service can be sent; and where two runs differ."""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from otel_perfopt.cli.library import Reports
from otel_perfopt.cli.workload import Analysis, Service, analyse, first_requests, spread_out, subjects
from otel_perfopt.state import State

__all__ = ("Run", "choose_sample", "differences")

PILOT = 20


class Run:
    """Sends requests to a service, and measures it.

    Args:
        service: the parts of the service.
        root: the root of the repository.
        stream: all requests.
        reports: takes the state of each file that was analysed.
        clock: tells the time in seconds.

    Attributes:
        answers: the answers that were kept, by the number of the request.
        requests: how many requests were answered.
        seconds: the time that they took.
        spent: the time of each part of the service.
        again: the time of each part for what an earlier request had asked for as well.
        first: the time for each part and what it was asked about for the first time.
        reporting: the time that it took to report the states.
        states: the last state of each file, as it was written; nothing before the end.
        analyses: how often each file was analysed.
    """

    def __init__(
        self,
        service: Service,
        root: str,
        stream: Sequence[str],
        reports: Reports,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.answers: dict[int, Analysis] = {}
        self.requests = 0
        self.seconds = 0.0
        self.spent = dict.fromkeys(Service._fields, 0.0)
        self.again = dict.fromkeys(Service._fields, 0.0)
        self._root, self._stream, self._clock = root, stream, clock
        self._service = Service(**{name: self._timed(name, part) for name, part in service._asdict().items()})
        self.first: dict[tuple[str, str], float] = {}
        self._first_numbers = first_requests(stream)
        self.reporting = 0.0
        self.states: Mapping[str, State] = {}
        self.analyses: dict[str, int] = {}
        self._reports = reports
        self._last: dict[str, float] = {}

    def send(self, number: int, *, keep: bool = True) -> None:
        """Send the request of this number, and keep its answer or not."""
        path = self._stream[number]
        self.analyses[path] = self.analyses.get(path, 0) + 1
        started = self._clock()
        answer = analyse(self._service, self._root, path)
        answered = self._clock()
        self._reports.send(path, self.analyses[path])
        ended = self._clock()
        self.reporting += ended - answered
        self.seconds += ended - started
        self.requests += 1
        if keep:
            self.answers[number] = answer
        for about in subjects(path)._asdict().items():
            seconds = self._last[about[0]]
            self.spent[about[0]] += seconds
            if self._first_numbers[about] < number:
                self.again[about[0]] += seconds
            else:
                self.first[about] = seconds

    def possible(self, part: str, found: AbstractSet[tuple[str, str]]) -> float:
        """Return the time that a part spent on what an earlier request had asked for, or another run has left to be found."""
        return self.again[part] + sum(seconds for about, seconds in self.first.items() if about[0] == part and about in found)

    def finish(self) -> None:
        """Wait until every state is written."""
        started = self._clock()
        self.states = self._reports.finish()
        seconds = self._clock() - started
        self.reporting += seconds
        self.seconds += seconds

    def state(self, path: str) -> State:
        """Return the last state of a file, with how many of its analyses are missing; the runs analyse it differently often."""
        written = dict(self.states[path])
        return written | {"analyses": self.analyses[path] - written["analyses"]}

    def _timed(self, name: str, part: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
        def call(root: str, subject: str) -> Any:
            started = self._clock()
            answer = part(root, subject)
            self._last[name] = self._clock() - started
            return answer

        return call


def choose_sample(pilot: Run, count: int, seconds: float) -> Container[int]:
    """Return the numbers of the requests that the plain service gets: all, or as many as it can answer in `seconds`."""
    order = spread_out(count)
    for number in order[:PILOT]:
        pilot.send(number, keep=False)
        if pilot.seconds > seconds / 10:
            break
    affordable = int(seconds * pilot.requests / pilot.seconds)
    return range(count) if affordable >= count else frozenset(order[: max(affordable, pilot.requests)])


def differences(plain: Run, fast: Run) -> list[str]:
    """Return what both runs answered or wrote, but not alike: each with the first part that differs."""
    found = []
    for number in sorted(plain.answers.keys() & fast.answers.keys()):
        pairs = zip(Analysis._fields, plain.answers[number], fast.answers[number], strict=True)
        unlike = [f"request {number}, {name}: plain {a!r}, cached {b!r}" for name, a, b in pairs if a != b]
        found += unlike[:1]
    for path in sorted(plain.states.keys() & fast.states.keys()):
        one, other = plain.state(path), fast.state(path)
        if one != other:
            found.append(f"state of {path}: plain {one!r}, batched {other!r}")
    return found
