"""Command executors: long-lived worker processes that execute commands, as resources for a pool."""

from otel_perfopt.processes.errors import (
    CommandError,
    CommandFailed,
    CommandNotStarted,
    CommandTimeout,
    ExecutorBroken,
    OutputTooLarge,
)
from otel_perfopt.processes.executor import ProcessExecutor
from otel_perfopt.processes.result import CommandResult

__all__ = (
    "CommandError",
    "CommandFailed",
    "CommandNotStarted",
    "CommandResult",
    "CommandTimeout",
    "ExecutorBroken",
    "OutputTooLarge",
    "ProcessExecutor",
)
