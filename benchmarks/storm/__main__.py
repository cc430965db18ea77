"""``python -m benchmarks.storm``: the same storm over several pools, and a table of who loses what.

Each pool has a process of its own, in real time; one that does not come to an end is said to hang.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

from benchmarks.storm.outcome import SIZE
from benchmarks.storm.pools import ASYNC_POOLS, POOLS
from benchmarks.storm.process import losses_of

__all__ = ("main",)

WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    """Let the storms rage and print what is left; returns the exit code.

    Args:
        argv: the arguments after the program's name; None for those of the process.
    """
    options = _parser().parse_args(argv)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading, width in (("", 14), ("version", 8), ("callers", 7), ("seed", 5), ("loses", 36)):
        table.add_column(heading, width=width, overflow="fold")
    for callers, pools in (("threads", POOLS), ("tasks", ASYNC_POOLS)):
        for name in pools:
            for seed in range(options.seed, options.seed + options.storms):
                sys.stderr.write(f"{name}, {callers}, seed {seed}\n")
                losses = losses_of(name, callers, seed, options.operations, hooks=options.hooks)
                table.add_row(name, _version(name), callers, str(seed), ", ".join(losses) or "nothing")
    console = Console(width=WIDTH, highlight=False)
    console.print(table)
    console.print(f"{options.operations} operations for each seed, {SIZE} connections, hooks {'on' if options.hooks else 'off'}.")
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description="Who loses what in a storm of callers.")
    parser.add_argument("--operations", type=int, default=4000, metavar="N", help="operations of each storm (default: 4000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default: 1)")
    parser.add_argument("--storms", type=int, default=2, metavar="N", help="storms for each pool, with one seed after the other")
    parser.add_argument("--hooks", action="store_true", help="validate and reset, where a pool can; they fail sometimes")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
