"""Ctrl-C anywhere in `add`, `flush` and `close`: whatever was accepted gets its answer, and the processor works on."""

import dis
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any

import pytest

from otel_perfopt import batch
from otel_perfopt.batch import BatchProcessor
from tests.batch.support import TIMEOUT, double
from tests.cache.support import no_collection

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 12), reason="since Python 3.12 some instructions are not traced")

PACKAGE = (batch.__file__ or "").removesuffix("batch/__init__.py")
PARTS = (f"{PACKAGE}batch/", f"{PACKAGE}_core/batch")


@cache
def stops(code: CodeType) -> frozenset[int]:
    """Where the interpreter looks for signals: behind a call, and at the start of a function and of a loop's next turn.

    What is raised behind a call belongs to the call. Here it comes with the next instruction, which must have the same
    handler: it has not behind the last call of a `with`, whose lock would stay locked.
    """
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def handler(offset: int) -> int | None:
        return next((entry.target for entry in table if entry.start <= offset < entry.end), None)

    found, call = set(), None
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("RESUME", "JUMP_BACKWARD") or (
            call is not None and handler(call) == handler(instruction.offset)
        ):
            found.add(instruction.offset)
        call = instruction.offset if instruction.opname.startswith("CALL") else None
    return frozenset(found)


def interrupted_at(number: int, function: Callable[[], Any]) -> bool:
    """Call `function`, and raise KeyboardInterrupt at one of those places in the library; False if there are fewer."""
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(PARTS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in stops(frame.f_code):
            seen += 1
            if seen == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return seen >= number


def everywhere(step: Callable[[BatchProcessor[int, int]], Any], **options: Any) -> None:
    """Interrupt a step at each place in turn; afterwards everything that was accepted before or is later gets its result."""
    number, more = 0, True
    with no_collection():  # or a finalizer of other tests' garbage would be interrupted
        while more:
            number += 1
            processor = BatchProcessor[int, int]("interrupted", double, batch_timeout=0.001, **options)
            before = [processor.add(number) for number in range(2)]
            more = interrupted_at(number, lambda processor=processor: step(processor))  # type: ignore[misc]
            assert [future.result(TIMEOUT) for future in before] == [0, 2], number
            if not processor._batches.is_closed:
                assert processor.add(7).result(TIMEOUT) == 14, number
            assert processor.close(timeout=TIMEOUT), number
            assert processor.stats().queue_size == processor.stats().in_flight == processor.stats().waiting == 0, number
    assert number > 5, "nothing was interrupted"


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 3},
        {"batch_size": 10},
        {"batch_size": 2, "max_queue": 2, "on_full": "drop_oldest", "max_concurrent": 2},
        {"batch_size": 3, "dedupe": abs, "weigher": abs, "max_weight": 4},
    ],
    ids=["full", "first", "limited", "keys and weights"],
)
def test_adding_may_be_interrupted_anywhere(options: dict[str, Any]) -> None:
    """The third item makes the batch full, or waits; the first two, of other callers, get their results in any case."""
    everywhere(lambda processor: processor.add(2), **options)


def test_adding_with_a_time_limit_may_be_interrupted_anywhere() -> None:
    everywhere(lambda processor: processor.add(2, timeout=60))


def test_flushing_may_be_interrupted_anywhere() -> None:
    everywhere(lambda processor: processor.flush(timeout=TIMEOUT))


def test_closing_may_be_interrupted_anywhere() -> None:
    everywhere(lambda processor: processor.close(timeout=TIMEOUT))
