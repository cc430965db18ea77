"""Ctrl-C before any line of the library, one after the other."""

import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import otel_perfopt

__all__ = ("LIBRARY", "interrupted_at")

LIBRARY = (otel_perfopt.__file__ or "").removesuffix("__init__.py")


def interrupted_at(
    line: int,
    function: Callable[[], object],
    parts: tuple[str, ...],
    *,
    is_exempt: Callable[[FrameType], bool] = lambda _: False,
    expected: type[Exception] | tuple[()] = (),
) -> str:
    """Call `function`, raise KeyboardInterrupt before the given line of the library, and return where; "" if it has fewer lines.

    Args:
        line: the number of the line among those that are executed, from 1.
        function: what to call.
        parts: the folders and files of the library whose lines count.
        is_exempt: tells calls whose lines do not count.
        expected: what `function` may raise as well.
    """
    counted = tuple(LIBRARY + part for part in parts)
    seen, where = 0, ""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen, where
        if not frame.f_code.co_filename.startswith(counted) or is_exempt(frame):
            return None
        # Leaving a `with` shows its first line again, where no signal is ever handled.
        if event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            seen += 1
            if seen == line:
                sys.settrace(None)
                where = f"{frame.f_code.co_qualname}, line {frame.f_lineno} of {frame.f_code.co_filename}"
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        pass
    except expected:
        pass
    finally:
        sys.settrace(before)
    return where
