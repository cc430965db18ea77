"""Where a resource was acquired, found out without keeping a frame alive, which would keep its variables alive.

A lease notes one place in the code, at the cost of two attributes; who called that place, only where there is reason to fear
that it will be needed. If a task is the holder, this can be seen later, too: an ``async with`` block that lasts too long is
still on its stack. The stack of another thread is left alone: it changes while it is read, and a frame that is being cleared
at that moment crashes the interpreter.
"""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

__all__ = ("Holder", "Place", "callers", "describe_holder", "describe_place", "present_callers")

Holder = int | str
"""A thread's identifier, or a task's name."""

Place = tuple[CodeType, int]
"""A code object, and the offset of an instruction in it."""

DEPTH = 8


def callers(frame: FrameType | None) -> tuple[Place, ...]:
    """Return the places of a frame and a few of its callers, the innermost first."""
    return tuple(place for place, _ in zip(_outwards(frame), range(DEPTH), strict=False))


def present_callers(holder: Holder, code: CodeType) -> tuple[Place, ...]:
    """Return who called the function of `code` that the task `holder` still is in; nothing if it has left it."""
    places = [place for task in _tasks(holder) for place in _suspended(task)] if isinstance(holder, str) else []
    for position, (other, _) in enumerate(places):
        if other is code:
            return tuple(places[position + 1 : position + 1 + DEPTH])
    return ()


def describe_holder(holder: Holder) -> str:
    """Return a holder in words."""
    if isinstance(holder, str):
        return f"task {holder!r}"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return f"thread {names[holder]!r}" if holder in names else f"thread {holder}, which has ended"


def describe_place(place: Place) -> str:
    """Return a place in words."""
    code, offset = place
    lines = (line for start, end, line in code.co_lines() if start <= offset < end and line is not None)
    return f"{code.co_filename}:{next(lines, code.co_firstlineno)} in {code.co_qualname}"


def _outwards(frame: FrameType | None) -> Iterator[Place]:
    while frame is not None:
        yield frame.f_code, frame.f_lasti
        frame = frame.f_back


def _tasks(name: str) -> Iterable["asyncio.Task[Any]"]:
    try:
        return [task for task in asyncio.all_tasks() if task.get_name() == name]
    except RuntimeError:  # no loop runs here
        return ()


def _suspended(task: "asyncio.Task[Any]") -> list[Place]:
    """Return where the coroutines of a task are, the innermost first."""
    places: list[Place] = []
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        places.append((frame.f_code, frame.f_lasti))
        coroutine = coroutine.cr_await
    return places[::-1]
