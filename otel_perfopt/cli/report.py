"""``otel-perfopt report``: a saved report as text, as a page or as JSON, and the comparison of two."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.report.compare import Comparison, compare
from otel_perfopt.report.compare_text import render as comparison_text
from otel_perfopt.report.model import PerformanceReport
from otel_perfopt.report.saved import load_report

__all__ = ("add_report_command", "check_page", "run_report", "write_page")

WIDTHS = (40, 1000)


def add_report_command(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    parser = commands.add_parser(
        "report",
        help="show a saved report, or compare two",
        description="Show a report that was saved with get_performance_report().to_json(), or tell what became better "
        "or worse from one to the other.",
    )
    parser.add_argument("file", metavar="FILE", help="a JSON report; - for the standard input")
    parser.add_argument("after", metavar="AFTER", nargs="?", help="a later one, to compare FILE with")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--html", metavar="OUT", help="write an HTML page to this file; - for the standard output")
    forms.add_argument("--json", action="store_true", help="print JSON instead of text")
    forms.add_argument("--width", metavar="N", type=_width, help="columns of the text (default: those of the terminal)")
    parser.add_argument("--all", action="store_true", help="show the figures of what has not changed, too")


def run_report(options: argparse.Namespace) -> int:
    """Do what the options ask for, and return the exit code.

    Args:
        options: those of `add_report_command`.

    Raises:
        ConfigurationError: a file is missing or holds no report, or the page cannot be written.
        MissingExtra: the page needs the extra ``html``.
    """
    if options.html is not None:
        check_page(options.html, keep=[options.file, options.after])
    if options.file == options.after == "-":
        raise ConfigurationError("only one of the two reports can come from the standard input")
    report = load_report(options.file)
    shown = report if options.after is None else compare(report, load_report(options.after))
    if options.html is not None:
        write_page(options.html, _page(shown, options))
    elif options.json:
        sys.stdout.write(shown.to_json() + "\n")
    else:
        sys.stdout.write(_text(shown, options))
    return 0


def check_page(path: str, *, keep: list[str | None] | None = None) -> None:
    """Refuse a page that could not be made or written, before any other work.

    Args:
        path: the file of the page; "-" for the standard output.
        keep: files that it must not overwrite.

    Raises:
        ConfigurationError: the file cannot be written.
        MissingExtra: the extra ``html`` is not installed.
    """
    import otel_perfopt.report.html  # noqa: F401, PLC0415 - needs the extra

    if path == "-":
        return
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise ConfigurationError(f"cannot write {path!r}: {'it is a folder' if target.is_dir() else 'there is no such folder'}")
    for other in keep or []:
        if other not in {None, "-"} and target.exists() and Path(str(other)).exists() and target.samefile(str(other)):
            raise ConfigurationError(f"the page would overwrite the report {path!r}: choose another file")


def write_page(path: str, text: str) -> None:
    """Write a page to a file, or to the standard output if that is "-".

    Raises:
        ConfigurationError: the file cannot be written.
    """
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())  # the page is UTF-8, whatever the terminal is
        return
    try:
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path!r}: {error.strerror}") from error


def _page(shown: PerformanceReport | Comparison, options: argparse.Namespace) -> str:
    if isinstance(shown, PerformanceReport):
        return shown.to_html(title=f"Performance report: {Path(options.file).name}")
    from otel_perfopt.report.compare_html import render  # noqa: PLC0415 - needs the extra

    return render(shown, title=f"From {Path(options.file).name} to {Path(options.after).name}")


def _text(shown: PerformanceReport | Comparison, options: argparse.Namespace) -> str:
    width = options.width or min(max(shutil.get_terminal_size().columns, WIDTHS[0]), 120)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if isinstance(shown, PerformanceReport):
        return shown.to_text(width=width, color=color)
    return comparison_text(shown, width=width, color=color, everything=options.all)


def _width(text: str) -> int:
    low, high = WIDTHS
    if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high:,}: write for example 100")
    return int(text)
