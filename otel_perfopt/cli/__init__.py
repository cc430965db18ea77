"""The command line: ``otel-perfopt demo`` and ``otel-perfopt report``.

Exit codes: 0 when all is well, 1 when the cached answers differ from the plain ones, 2 for a request that cannot be
served as it is, 130 after Ctrl-C, SIGTERM or a closed terminal, 141 when the reader of the output went away.
"""

import argparse
import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType

from otel_perfopt.cli.demo import no_bar, progress_bar, run_demo
from otel_perfopt.cli.export import exporting, say
from otel_perfopt.cli.report import add_report_command, check_page, run_report
from otel_perfopt.errors import ConfigurationError, MissingExtra
from otel_perfopt.telemetry.structured_logs.options import PRESETS

__all__ = ("main",)

MAX_REQUESTS = 1_000_000
_STOPS = ("SIGINT", "SIGTERM", "SIGHUP")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments after the program's name; None for those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # file names may hold what the terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    has_logs = getattr(options, "logs", None) is not None
    try:
        with _stoppable():
            return _run(parser, options)
    except KeyboardInterrupt:
        say("interrupted", as_record=has_logs, level=logging.WARNING)
        return 130
    except (ConfigurationError, MissingExtra) as error:
        say(f"otel-perfopt: {error}", as_record=has_logs, level=logging.ERROR)
        return 2
    except BrokenPipeError:
        # The interpreter flushes once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    if options.command == "report":
        code = run_report(options)
    else:
        if options.html is not None:
            check_page(options.html)
        with exporting(options.otlp, options.logs):
            code = run_demo(
                options.repo,
                requests=options.requests,
                seed=options.seed,
                html=options.html,
                bar=progress_bar if options.logs is None else no_bar,
            )
    sys.stdout.flush()
    return code


def _parser() -> argparse.ArgumentParser:
    description = "Caching, pooling, batching and measurement that explain themselves."
    parser = argparse.ArgumentParser(prog="otel-perfopt", description=description)
    commands = parser.add_subparsers(dest="command", title="commands")
    demo = commands.add_parser(
        "demo",
        help="run a code-analysis service plain and with this library, and compare",
        description="Run a code-analysis service over a git repository, plain and with this library in turns, "
        "check that the answers are the same, and show what was gained. The repository is left as it was. The caches are kept "
        "in .worktrees/.cache of the working directory, which git does not see, for the next run.",
    )
    demo.add_argument(
        "--repo", metavar="PATH", help="a git repository (default: the working directory's, or one made for the demo)"
    )
    demo.add_argument("--requests", metavar="N", type=_requests, default=2000, help="how many requests (default: 2000)")
    demo.add_argument("--seed", metavar="S", type=_seed, default=1, help="another seed, other requests (default: 1)")
    demo.add_argument("--html", metavar="FILE", help="write the report of the cached service as an HTML page, too")
    demo.add_argument(
        "--otlp",
        metavar="URL",
        help="export everything to this OTLP endpoint (default: OTEL_EXPORTER_OTLP_ENDPOINT, if set)",
    )
    demo.add_argument(
        "--logs",
        metavar="PRESET",
        choices=PRESETS,
        help=f"write a line for each request on standard error, as {', '.join(PRESETS)}",
    )
    add_report_command(commands)
    return parser


def _requests(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MAX_REQUESTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_REQUESTS:,}: write for example 2000")
    return number


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number: write for example 1") from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let every signal that asks the program to stop raise `KeyboardInterrupt`."""
    last = -1.0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        # A launcher passes on the signal that the terminal has already sent: the second must not disturb the clean-up.
        if last < 0 or now - last > 1.0:
            last = now
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = [number for number in numbers if before[number] not in (None, signal.SIG_IGN)]  # nohup stays nohup
    try:
        for number in heeded:
            signal.signal(number, stop)
        yield
    finally:
        if last < 0:
            for number in heeded:
                signal.signal(number, before[number])
        else:  # the program ends, and a signal that arrives late must not end it in another way
            atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in heeded])
