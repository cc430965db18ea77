"""What the tests of the kit share."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest


def forks(test: Any) -> Any:
    """Mark a test that forks."""
    for mark in (
        pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
        pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of os.fork in a process with threads
    ):
        test = mark(test)
    return test


def exit_code_of_child(check: Callable[[], bool]) -> int:
    """Fork, and return how the child has ended: with 0 if the check was passed."""
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(20)
            code = 0 if check() else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
