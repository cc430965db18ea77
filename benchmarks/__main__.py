"""``python -m benchmarks``: run, show progress on stderr, print the table.

Exit codes: 0 also when a limit is missed, for a benchmark is no test; 2 for arguments that make no sense; 130 after Ctrl-C.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import output
from benchmarks.catalogue import BENCHMARKS, GROUPS, choose, run_isolated
from benchmarks.harness import SLICES, Benchmark, Result, Turn

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit code.

    Args:
        argv: the arguments after the program's name; None for those of the process.
    """
    options = _parser().parse_args(argv)
    chosen = choose(options.only)
    results = []
    try:
        for number, benchmark in enumerate(chosen, 1):
            results.append(_run(benchmark, options.rounds, f"[{number}/{len(chosen)}]", quick=options.quick))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    output.print_table(results, quick=options.quick)
    if options.json:
        found = output.as_dict(results, quick=options.quick)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _run(benchmark: Benchmark, rounds: int, progress: str, *, quick: bool) -> Result:
    slices = benchmark.slices or SLICES
    wanted = 1 if quick else benchmark.rounds or rounds
    found = []
    for number in range(wanted):
        sys.stderr.write(f"{progress} {benchmark.title}: round {number + 1} of {wanted}\n")
        found.append(run_isolated(benchmark, Turn(number, slices=min(2, slices) if quick else slices, quick=quick)))
    return Result(benchmark, tuple(found))


def _parser() -> argparse.ArgumentParser:
    names = list(dict.fromkeys([*GROUPS, *BENCHMARKS]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What the library costs beside its peers.")
    parser.add_argument("--rounds", type=_positive, default=7, metavar="N", help="rounds per benchmark (default: 7)")
    parser.add_argument("--quick", action="store_true", help="one round of a few calls, to see that everything runs")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=names,
        metavar="NAME",
        help=f"run only this benchmark or group; can be repeated; one of {', '.join(names)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds and the versions of the libraries")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
