"""The demo: the workload plain and with this library, the comparison of both, and what it prints.

The possible gain is the time that the plain run spent on what an earlier request had asked for as well; the realised
gain is the time by which the caches shortened the parts of the service. The state updates are shown beside them.
"""

import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from otel_perfopt import get_cache, get_performance_report
from otel_perfopt.cli.library import BatchedReports, Library, PlainReports, Reports, open_library
from otel_perfopt.cli.report import write_page
from otel_perfopt.cli.repository import Repository, choose_repository, temporary_folder
from otel_perfopt.cli.workload import (
    PLAIN,
    Analysis,
    Service,
    analyse,
    first_requests,
    make_requests,
    read_source,
    spread_out,
    subjects,
)
from otel_perfopt.state import State, StateStore

__all__ = ("Run", "choose_sample", "differences", "run_both", "run_demo", "summary")

PLAIN_SECONDS = 60.0
PILOT = 20
TURN = 20
WIDTH = 80


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
        self._first = first_requests(stream)
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
            self.again[about[0]] += seconds if self._first[about] < number else 0.0

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


def run_demo(repo: str | None, *, requests: int, seed: int, plain_seconds: float = PLAIN_SECONDS, html: str | None = None) -> int:
    """Run the demo, print the outcome, and return the exit code.

    Args:
        repo: a folder in a git repository, or None to choose one.
        requests: how many requests the service gets.
        seed: what the requests are made from.
        plain_seconds: about how long the plain service may run; it gets a sample of the requests if they take longer.
        html: a file for the report as a page, too.

    Raises:
        ConfigurationError: there is no repository to work on.
    """
    with ExitStack() as stack:
        with _bar("opening the repository", None):
            repository = stack.enter_context(choose_repository(repo))
        stream = make_requests(repository.files, requests, seed)
        _say(_heading(repository, stream, seed))
        stack.enter_context(warnings.catch_warnings())
        for category in (SyntaxWarning, DeprecationWarning):  # those of the sources that are compiled
            warnings.simplefilter("ignore", category)
        with _bar("opening the pools", None):
            library = stack.enter_context(open_library(repository.root))
        _say(line for note in library.notes for line in _wrapped(note))
        plain, fast = run_both(repository.root, stream, library, plain_seconds)
        report = get_performance_report()
    differing = differences(plain, fast)
    text = report.to_text(width=WIDTH).strip("\n")
    _say([text, "", *summary(plain, fast), "", *_verdict(plain, differing)])
    if html is not None:
        write_page(html, report.to_html(title="The cached service of the demo"))
        _say(["", f"Page: {html}"])
    return 1 if differing else 0


def run_both(root: str, stream: Sequence[str], library: Library, plain_seconds: float) -> tuple[Run, Run]:
    """Send the requests to the plain service and to that with the library."""
    files = dict.fromkeys(stream)
    with _bar("reading the files", len(files)) as advance:  # so that no run pays for a cold disk
        for path in files:
            with suppress(OSError, ValueError):
                read_source(root, path)
            advance()
    with temporary_folder() as folder:
        store = StateStore(f"{folder}/plain.db")
        sample = choose_sample(Run(PLAIN, root, stream, PlainReports(root, store)), len(stream), plain_seconds)
        for name in Service._fields:
            get_cache(name).clear()
        plain = Run(PLAIN, root, stream, PlainReports(root, store))
        batched = BatchedReports(root, StateStore(f"{folder}/batched.db"), library.git)
        fast = Run(library.service, root, stream, batched)
        _take_turns(plain, fast, stream, sample)
    return plain, fast


def _take_turns(plain: Run, fast: Run, stream: Sequence[str], sample: Container[int]) -> None:
    """Send the requests in turns, so that a machine that becomes slower or faster meanwhile does so for both."""
    with _bar("plain and with the library", len(stream)) as advance:
        for start in range(0, len(stream), TURN):
            turn = range(start, min(start + TURN, len(stream)))
            for number in turn:
                if number in sample:
                    plain.send(number)
            for number in turn:
                fast.send(number, keep=number in sample)
                advance()
        plain.finish()
        fast.finish()


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


def summary(plain: Run, fast: Run) -> list[str]:
    """Return lines that compare both runs; a plain run of fewer requests is taken for a sample of all."""
    scale = fast.requests / plain.requests
    possible = sum(plain.again.values()) * scale
    saved = sum(plain.spent.values()) * scale - sum(fast.spent.values())
    lines = [f"{'':14}{'plain':>11}{'library':>11}{'saved':>11}{'possible':>11}{'realised':>11}"]
    for name in Service._fields:
        lines += [_row(name, plain.spent[name] * scale, fast.spent[name], plain.again[name] * scale)]
    lines += [_row("these together", sum(plain.spent.values()) * scale, sum(fast.spent.values()), possible)]
    lines += [_row("state_updates", plain.reporting * scale, fast.reporting, 0.0), ""]
    if plain.requests < fast.requests:
        lines += _wrapped(
            f"The plain service would take too long: its times are estimated from an evenly spaced sample of "
            f"{plain.requests:,} of the {fast.requests:,} requests."
        )
    lines += _wrapped(f"Speed-up: with the library the service is {plain.seconds * scale / fast.seconds:.1f} times as fast.")
    if possible:
        lines += _wrapped(
            f"Gain: the caches saved {_time(saved)} of the {_time(possible)} that the plain service spends on what was asked "
            f"for before, {saved / possible:.0%} of the possible gain."
        )
    else:
        lines += ["Gain: nothing was asked for twice, so there was none to be had."]
    return lines


def _row(name: str, plain: float, fast: float, possible: float) -> str:
    realised = f"{(plain - fast) / possible:.0%}" if possible else "-"
    times = (*map(_time, (plain, fast, plain - fast)), _time(possible) if possible else "-")
    return f"{name:14}" + "".join(f"{text:>11}" for text in (*times, realised))


def _verdict(plain: Run, differing: list[str]) -> list[str]:
    if not differing:
        return [f"Answers: the same from both services, for {plain.requests:,} requests compared."]
    first = [textwrap.shorten(text, 4 * WIDTH) for text in differing[:3]]
    return _wrapped(
        f"Answers: {len(differing):,} of {plain.requests:,} differ. If files of the repository were changed meanwhile, "
        "run the demo again; otherwise this is a bug. The first of them:"
    ) + [line for text in first for line in _wrapped(text, indent="  ")]


def _heading(repository: Repository, stream: Sequence[str], seed: int) -> list[str]:
    root = repository.root if repository.root.isprintable() else ascii(repository.root)
    lines = [f"Repository: {root}", f"  {len(repository.files):,} Python files"]
    if repository.note:
        lines[:1] = _wrapped(f"Repository: the sources of Python's standard library, since {repository.note}")
    return [*lines, f"Requests: {len(stream):,} for {len(set(stream)):,} files, Zipf-distributed, seed {seed}", ""]


def _time(seconds: float) -> str:
    return f"{seconds:,.2f} s" if abs(seconds) >= 1 else f"{seconds * 1000:.0f} ms"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent or "  ", break_on_hyphens=False)


def _say(lines: Iterable[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


@contextmanager
def _bar(label: str, total: int | None) -> Iterator[Callable[[], object]]:
    """Show on a terminal a progress bar that disappears at the end; yield what moves it on."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)
