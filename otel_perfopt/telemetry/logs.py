"""The library's own log: a few lines about changes of state, through structlog.

Where the application has configured structlog, its configuration is used; elsewhere lines go to the standard logger
``otel_perfopt``, so that a library that was only imported never prints to standard output.
"""

import logging
from contextlib import suppress
from typing import Any

__all__ = ("get_logger", "mention")


def get_logger() -> Any:
    """Return the logger of the library.

    >>> get_logger().debug("cache.declared", cache="users")
    """
    import structlog  # noqa: PLC0415 - a fifth of a second that most processes never need

    if structlog.is_configured():
        return structlog.get_logger("otel_perfopt")
    return structlog.wrap_logger(
        logging.getLogger("otel_perfopt"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def mention(level: str, event: str, **facts: object) -> None:
    """Log something that no caller has asked for: whatever goes wrong with it, an error's own ``repr`` included, is nobody's.

    Args:
        level: ``"info"`` or ``"warning"``.
        event: what happened.
        facts: about what; errors are shown by their ``repr``.

    >>> mention("info", "a tier of a cache works again", cache="users", tier="sqlite")
    """
    with suppress(Exception):
        told = {name: repr(fact) if isinstance(fact, BaseException) else fact for name, fact in facts.items()}
        getattr(get_logger(), level)(event, **told)
