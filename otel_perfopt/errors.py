"""The errors of the library.

    PerfOptError                    PERFOPT_ERROR
    +-- ConfigurationError          CONFIGURATION       (also ValueError)
    +-- MissingExtra                MISSING_EXTRA       (also ImportError)
    +-- UnknownName                 UNKNOWN_NAME        (also LookupError)
    +-- LoadError                   LOAD_ERROR
    |   +-- LoadTimeout             LOAD_TIMEOUT        (also TimeoutError)
    |   +-- LoadCancelled           LOAD_CANCELLED
    |   +-- ReentrantLoad           REENTRANT_LOAD      (also RuntimeError)
    +-- TierError                   TIER_ERROR
    +-- Unencodable                 UNENCODABLE         (also TypeError)
    +-- Undecodable                 UNDECODABLE         (also ValueError)
    +-- PoolError                   POOL_ERROR
    |   +-- PoolTimeout             POOL_TIMEOUT        (also TimeoutError)
    |   +-- PoolFull                POOL_FULL
    |   +-- PoolClosed              POOL_CLOSED
    +-- BatchError                  BATCH_ERROR
        +-- QueueFull               QUEUE_FULL
        +-- BatchClosed             BATCH_CLOSED
        +-- BatchTimeout            BATCH_TIMEOUT       (also TimeoutError)

Errors of user code (a loader that raises, say) are let through as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

__all__ = (
    "BatchClosed",
    "BatchError",
    "BatchTimeout",
    "ConfigurationError",
    "LoadCancelled",
    "LoadError",
    "LoadTimeout",
    "MissingExtra",
    "PerfOptError",
    "PoolClosed",
    "PoolError",
    "PoolFull",
    "PoolTimeout",
    "QueueFull",
    "ReentrantLoad",
    "TierError",
    "Undecodable",
    "Unencodable",
    "UnknownName",
    "create_error",
    "error_codes",
)


class PerfOptError(Exception):
    """The base of all errors that this library raises.

    Args:
        message: what happened, with the values, and what to do about it.
        context: facts for a program to read, such as the name of the pool.
        code: overrides the code of the class; `create_error` uses it for codes that the library does not know.

    Attributes:
        message: the message.
        code: a stable identifier, such as ``"POOL_TIMEOUT"``.
        context: a mapping; empty when there is nothing to add.
    """

    default_code: ClassVar[str] = "PERFOPT_ERROR"

    def __init__(self, message: str, *, context: Mapping[str, Any] | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.context: dict[str, Any] = dict(context or {})

    def __str__(self) -> str:
        # KeyError-like bases would print the repr of the message.
        return self.message


class ConfigurationError(PerfOptError, ValueError):
    """A setting has a value that cannot work; the message names the setting and its value."""

    default_code = "CONFIGURATION"


class MissingExtra(PerfOptError, ImportError):
    """A feature needs a library that is not installed; the message names the extra to install."""

    default_code = "MISSING_EXTRA"


class UnknownName(PerfOptError, LookupError):
    """No cache, pool or batch processor has this name; the message lists the known ones."""

    default_code = "UNKNOWN_NAME"


class LoadError(PerfOptError):
    """The base of the errors of loading a value that do not come from the loader itself."""

    default_code = "LOAD_ERROR"


class LoadTimeout(LoadError, TimeoutError):
    """A load took longer than its hard timeout."""

    default_code = "LOAD_TIMEOUT"


class LoadCancelled(LoadError):
    """A load was cancelled from inside, or with its event loop, although somebody still waited for it."""

    default_code = "LOAD_CANCELLED"


class ReentrantLoad(LoadError, RuntimeError):
    """Waiting for this load would never end: the load itself, or the event loop that runs it, waits for the caller."""

    default_code = "REENTRANT_LOAD"


class TierError(PerfOptError):
    """A tier behind the memory of a cache cannot be used: its file or its server fails. A cache counts it and goes on without."""

    default_code = "TIER_ERROR"


DecodeReason = Literal["format", "damaged", "signature", "version", "type"]


class Unencodable(PerfOptError, TypeError):
    """A value would not come back equal and of the same type, or a key has no bytes of its own; the message names the part."""

    default_code = "UNENCODABLE"


class Undecodable(PerfOptError, ValueError):
    """Bytes that this codec did not make, or not with the same options; for a cache they are a miss.

    Args:
        message: what is the matter.
        reason: the same in one word.
        context: facts for a program to read.
        code: overrides the code of the class.

    Attributes:
        reason: ``"format"`` (a layout that this version cannot read), ``"damaged"``, ``"signature"`` (wrong, or nobody can check
            it), ``"version"`` or ``"type"`` (another `version=` or `value_type=`).
    """

    default_code = "UNDECODABLE"

    def __init__(
        self, message: str, *, reason: DecodeReason = "damaged", context: Mapping[str, Any] | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, context=context, code=code)
        self.reason: DecodeReason = reason


class PoolError(PerfOptError):
    """The base of the errors of pools."""

    default_code = "POOL_ERROR"


class PoolTimeout(PoolError, TimeoutError):
    """No resource became free within the timeout."""

    default_code = "POOL_TIMEOUT"


class PoolFull(PoolError):
    """More callers wait for a resource than ``max_waiting`` allows."""

    default_code = "POOL_FULL"


class PoolClosed(PoolError):
    """The pool is closed, or was closed while the caller waited."""

    default_code = "POOL_CLOSED"


class BatchError(PerfOptError):
    """The base of the errors of batch processors."""

    default_code = "BATCH_ERROR"


class QueueFull(BatchError):
    """The queue holds ``max_queue`` items and ``on_full="raise"``."""

    default_code = "QUEUE_FULL"


class BatchClosed(BatchError):
    """The batch processor is closed."""

    default_code = "BATCH_CLOSED"


class BatchTimeout(BatchError, TimeoutError):
    """An item has no result within the timeout that it was added with."""

    default_code = "BATCH_TIMEOUT"


def _classes(cls: type[PerfOptError] = PerfOptError) -> Iterator[type[PerfOptError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == __name__:
            yield from _classes(child)


def error_codes() -> dict[str, type[PerfOptError]]:
    """Return every code of the library with its class.

    >>> error_codes()["POOL_TIMEOUT"].__name__
    'PoolTimeout'
    """
    return {cls.default_code: cls for cls in _classes()}


def create_error(message: str, *, code: str = "PERFOPT_ERROR", context: Mapping[str, Any] | None = None) -> PerfOptError:
    """Return the error whose class belongs to `code`; raise it yourself.

    Args:
        message: what happened and what to do about it.
        code: a code of the library gives its class; any other code gives a plain `PerfOptError` with that code.
        context: facts for a program to read.

    >>> error = create_error("no worktree is free", code="POOL_TIMEOUT", context={"pool": "git_worktrees"})
    >>> isinstance(error, TimeoutError), error.code, error.context
    (True, 'POOL_TIMEOUT', {'pool': 'git_worktrees'})
    """
    return error_codes().get(code, PerfOptError)(message, context=context, code=code)
