"""The demo: the workload plain and with this library, the comparison of both, and what it prints.

The possible gain is the time that the plain run spent on what an earlier request had asked for as well, or what the caches had
from another run; the realised gain is the time by which the caches shortened the parts of the service. The state updates are
shown beside them.
"""

import sys
import textwrap
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from otel_perfopt import get_performance_report
from otel_perfopt.cli.export import request
from otel_perfopt.cli.inputs import read_inputs
from otel_perfopt.cli.library import BatchedReports, Library, PlainReports, open_library
from otel_perfopt.cli.report import write_page
from otel_perfopt.cli.repository import Repository, choose_repository, temporary_folder
from otel_perfopt.cli.runs import Run, choose_sample, differences
from otel_perfopt.cli.workload import PLAIN, Service, make_requests
from otel_perfopt.state import StateStore

__all__ = ("no_bar", "progress_bar", "run_both", "run_demo", "summary")

PLAIN_SECONDS = 60.0
TURN = 20
WIDTH = 80
FOLDER = ".worktrees/.cache"

Bar = Callable[[str, int | None], AbstractContextManager[Callable[[], object]]]
"""Shows the progress of what the label says, up to the total; gives what moves it on."""


def run_demo(
    repo: str | None,
    *,
    requests: int,
    seed: int,
    plain_seconds: float = PLAIN_SECONDS,
    html: str | None = None,
    bar: Bar | None = None,
) -> int:
    """Run the demo, print the outcome, and return the exit code.

    Args:
        repo: a folder in a git repository, or None to choose one.
        requests: how many requests the service gets.
        seed: what the requests are made from.
        plain_seconds: about how long the plain service may run; it gets a sample of the requests if they take longer.
        html: a file for the report as a page, too.
        bar: shows the progress; None for a bar on a terminal.

    Raises:
        ConfigurationError: there is no repository to work on.
    """
    bar = bar or progress_bar
    with ExitStack() as stack:
        with bar("opening the repository", None):
            repository = stack.enter_context(choose_repository(repo))
        stream = make_requests(repository.files, requests, seed)
        _say(_heading(repository, stream, seed))
        stack.enter_context(warnings.catch_warnings())
        for category in (SyntaxWarning, DeprecationWarning):  # those of the sources that are compiled
            warnings.simplefilter("ignore", category)
        files = dict.fromkeys(stream)
        with bar("reading the files", len(files)) as advance:  # also so that no run pays for a cold disk
            inputs = read_inputs(repository.root, files, advance)
        with bar("opening the pools", None):
            library = stack.enter_context(open_library(repository.root, inputs))
        _say(line for note in library.notes for line in _wrapped(note))
        plain, fast = run_both(repository.root, stream, library, plain_seconds, bar)
        report = get_performance_report()
        differing = differences(plain, fast)
        if differing:  # whatever the reason is, the next run is to find out by itself
            library.forget()
        is_kept = library.is_kept() and not differing
    text = report.to_text(width=WIDTH).strip("\n")
    _say([text, "", *summary(plain, fast, fast.first.keys() - library.made), "", *_verdict(plain, differing)])
    if is_kept:
        _say(_wrapped(f"Kept: the answers are in {FOLDER}, where the next run finds them until their time is over."))
    if html is not None:
        write_page(html, report.to_html(title="The cached service of the demo"))
        _say(["", f"Page: {html}"])
    return 1 if differing else 0


def run_both(root: str, stream: Sequence[str], library: Library, plain_seconds: float, bar: Bar | None = None) -> tuple[Run, Run]:
    """Send the requests to the plain service and to that with the library."""
    with temporary_folder() as folder:
        store = StateStore(f"{folder}/plain.db")
        sample = choose_sample(Run(PLAIN, root, stream, PlainReports(root, store)), len(stream), plain_seconds)
        plain = Run(PLAIN, root, stream, PlainReports(root, store))
        batched = BatchedReports(root, StateStore(f"{folder}/batched.db"), library.git)
        fast = Run(library.service, root, stream, batched)
        _take_turns(plain, fast, stream, sample, bar or progress_bar)
    return plain, fast


def _take_turns(plain: Run, fast: Run, stream: Sequence[str], sample: Container[int], bar: Bar) -> None:
    """Send the requests in turns, so that a machine that becomes slower or faster meanwhile does so for both."""
    with bar("plain and with the library", len(stream)) as advance:
        for start in range(0, len(stream), TURN):
            turn = range(start, min(start + TURN, len(stream)))
            for number in turn:
                if number in sample:
                    plain.send(number)
            for number in turn:
                with request(stream[number]):  # the run measures what is within: the span and the line cost it nothing
                    fast.send(number, keep=number in sample)
                advance()
        plain.finish()
        fast.finish()


def summary(plain: Run, fast: Run, found: AbstractSet[tuple[str, str]] = frozenset()) -> list[str]:
    """Return lines that compare both runs; a plain run of fewer requests is taken for a sample of all.

    Args:
        plain: that of the plain service.
        fast: that with the library.
        found: the answers that the caches had from another run, each by its part and what that was asked about.
    """
    scale = fast.requests / plain.requests
    gains = {name: plain.possible(name, found) * scale for name in Service._fields}
    possible = sum(gains.values())
    saved = sum(plain.spent.values()) * scale - sum(fast.spent.values())
    lines = [f"{'':14}{'plain':>11}{'library':>11}{'saved':>11}{'possible':>11}{'realised':>11}"]
    lines += [_row(name, plain.spent[name] * scale, fast.spent[name], gain) for name, gain in gains.items()]
    lines += [_row("these together", sum(plain.spent.values()) * scale, sum(fast.spent.values()), possible)]
    lines += [_row("state_updates", plain.reporting * scale, fast.reporting, 0.0), ""]
    if plain.requests < fast.requests:
        lines += _wrapped(
            f"The plain service would take too long: its times are estimated from an evenly spaced sample of "
            f"{plain.requests:,} of the {fast.requests:,} requests."
        )
    if found:
        known = f"{len(found):,} of the {len(fast.first):,} different answers came from another run"
        lines += _wrapped(f"Warm start: {known}, through the files in {FOLDER}.")
    lines += _wrapped(f"Speed-up: with the library the service is {plain.seconds * scale / fast.seconds:.1f} times as fast.")
    if possible:
        known = "was asked for before or came from another run" if found else "was asked for before"
        lines += _wrapped(
            f"Gain: the caches saved {_time(saved)} of the {_time(possible)} that the plain service spends on what {known}, "
            f"{saved / possible:.0%} of the possible gain."
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
def no_bar(_label: str, _total: int | None) -> Iterator[Callable[[], object]]:
    """Show nothing."""
    yield lambda: None


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[[], object]]:
    """Show on a terminal a progress bar that disappears at the end; yield what moves it on."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)
