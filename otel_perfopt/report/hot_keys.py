"""The hot keys of the report: from the caches themselves, because no metric carries a key."""

import reprlib
from collections import Counter, defaultdict
from typing import Any

from typing_extensions import override

from otel_perfopt.registry import CACHE_REGISTRY
from otel_perfopt.report.model import HotKeyRow
from otel_perfopt.report.words import printable
from otel_perfopt.telemetry.caches import CACHES

__all__ = ("hot_keys", "shown")

TOP = 10
LENGTH = 60


def hot_keys() -> dict[str, list[HotKeyRow]]:
    """Return the hot keys of all caches that are alive, by the names under which these are reported.

    Keys of different caches are the same if they look alike; of one cache, each is a key of its own.
    """
    requests: Counter[str] = Counter()
    found: defaultdict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    for cache in CACHE_REGISTRY.live():
        name = CACHES.resolve(cache.name)
        alike: Counter[str] = Counter()
        for hot in cache._hot_keys():
            text = shown(hot.key)
            found[name][text, alike[text]] += hot.requests
            alike[text] += 1
        requests[name] += cache._hot.requests
    return {name: _rows(keys, requests[name]) for name, keys in found.items()}


def _rows(keys: "Counter[tuple[str, int]]", requests: int) -> list[HotKeyRow]:
    # A cache that was cleared in the meantime has had no requests since.
    return [HotKeyRow(text, count, count / max(count, requests, 1)) for (text, _), count in keys.most_common(TOP)]


def shown(key: object) -> str:
    r"""Return a key as one short line, whatever it is.

    >>> shown(("user", 7, "a\n" * 100))
    "('user', 7, 'a\\na\\na\\na\\n...\\na\\na\\na\\n')"
    """
    try:
        text = printable(_short.repr(key))
    except Exception:  # noqa: BLE001 - it is the user's code
        text = f"<{printable(type(key).__qualname__)}>"
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 3]}..."


class _Short(reprlib.Repr):
    """Short, also for the instances of methods that say nothing of themselves."""

    @override
    def repr_instance(self, x: Any, level: int) -> str:
        plain: Any = object.__repr__
        if type(x).__repr__ is plain:
            return f"<{type(x).__qualname__} at {id(x):#x}>"
        return super().repr_instance(x, level)


_short = _Short()
