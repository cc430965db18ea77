"""What can go wrong with a command, and with the worker that executes it.

CommandError                COMMAND_ERROR
+-- CommandNotStarted       COMMAND_NOT_STARTED
+-- CommandFailed           COMMAND_FAILED
+-- CommandTimeout          COMMAND_TIMEOUT             (also TimeoutError)
+-- OutputTooLarge          COMMAND_OUTPUT_TOO_LARGE
ExecutorBroken              EXECUTOR_BROKEN
"""

from otel_perfopt.errors import PerfOptError

__all__ = ("CommandError", "CommandFailed", "CommandNotStarted", "CommandTimeout", "ExecutorBroken", "OutputTooLarge")


class CommandError(PerfOptError):
    """The base of the errors of a command; the executor can be used again.

    Attributes:
        stdout: what the command printed before it ended.
        stderr: what it wrote to its standard error.
    """

    default_code = "COMMAND_ERROR"
    # Not in `context`, which is for logs, and these may be megabytes.
    stdout: bytes = b""
    stderr: bytes = b""


class CommandNotStarted(CommandError):
    """There is no such program or folder, or the system refused; the context's ``"errno"`` says why, such as ``"ENOENT"``."""

    default_code = "COMMAND_NOT_STARTED"


class CommandFailed(CommandError):
    """A command ended with another exit code than 0, and the caller wanted 0."""

    default_code = "COMMAND_FAILED"


class CommandTimeout(CommandError, TimeoutError):
    """A command took longer than its timeout, and was ended with all of its process group."""

    default_code = "COMMAND_TIMEOUT"


class OutputTooLarge(CommandError):
    """A command printed more than ``max_output`` bytes, and was ended with all of its process group."""

    default_code = "COMMAND_OUTPUT_TOO_LARGE"


class ExecutorBroken(PerfOptError):
    """The executor has no worker to talk to any more, and has to be replaced."""

    default_code = "EXECUTOR_BROKEN"
