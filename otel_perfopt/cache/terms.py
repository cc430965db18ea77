"""The terms of an entry: what is settled when its value begins to be made, and what its loader may still say."""

from collections.abc import Hashable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otel_perfopt._core.policies import Entry
from otel_perfopt._core.tags import Tag, TaggedEntry
from otel_perfopt.cache.lifetimes import checked_seconds
from otel_perfopt.durations import Duration
from otel_perfopt.unset import UNSET, Unset

if TYPE_CHECKING:
    from otel_perfopt.cache.behind import Copy
    from otel_perfopt.tiers import Mark

__all__ = ("Terms", "checked_tags", "current_terms", "entry_options")


@dataclass(slots=True)
class Terms:
    """What a new entry is made with, beside its key and its value.

    Attributes:
        ttl: how long it is fresh; UNSET for the ttl of the cache.
        group: the entries that go together with it, or None.
        tags: its tags.
        born: the place in the history of tags at which its value began to be made.
        added: names of tags that the loader has added.
        data: the bytes of its key, for the tiers behind; None if it is for the memory only.
        marks: the marks of the tiers behind, from before its value began to be made; none if they were not asked, or have it now.
        copy: what a tier has of it, if that is the value.
    """

    ttl: Duration | Unset | None
    group: set[Entry] | None
    tags: tuple[Tag, ...]
    born: int
    added: tuple[str, ...] = ()
    data: bytes | None = None
    marks: "Sequence[Mark | None]" = ()
    copy: "Copy | None" = None

    def is_valid(self, since: int) -> bool:
        """Whether a caller who came at that place in history may have the value.

        A tag knows its last invalidation only. If that came after the caller, there may have been one before it, too.
        """
        return since == self.born or all(tag.invalidated <= self.born for tag in self.tags)

    def entry(self, key: Hashable, value: Any, weight: float) -> Entry:
        """Return an entry, without a date."""
        if self.tags:
            return TaggedEntry(key, value, 0.0, weight, self.group, self.tags, self.born)
        return Entry(key, value, 0.0, weight, self.group)


current_terms: ContextVar[Terms | None] = ContextVar("otel_perfopt_current_terms", default=None)
"""The terms of the entry whose loader is running."""


def entry_options(*, ttl: Duration | Unset | None = UNSET, tags: Iterable[str] = ()) -> None:
    """Say, from inside a loader or a cached function, what its entry shall be like. Elsewhere it has no effect.

    Args:
        ttl: how long the entry is fresh; None for ever.
        tags: tags that it has beside those that the caller gives.

    Raises:
        ConfigurationError: an option has a value that cannot work.

    >>> from otel_perfopt import cached
    >>> @cached(ttl="1h")
    ... def price(article):
    ...     entry_options(ttl="5s" if article == "fish" else "1d", tags=[f"article:{article}"])
    ...     return 12
    >>> price("fish"), price.cache.invalidate_tag("article:fish"), price.invalidate("fish")
    (12, None, False)
    """
    tags = checked_tags(tags)
    if ttl is not UNSET:
        checked_seconds("ttl", ttl)
    terms = current_terms.get()
    if terms is not None:
        terms.ttl = terms.ttl if ttl is UNSET else ttl
        terms.added += tags


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags as a tuple.

    Raises:
        TypeError: they are no strings, or one string, whose letters would be taken for tags.
    """
    found = tuple(tags) if isinstance(tags, Iterable) and not isinstance(tags, str) else None
    if found is None or not all(isinstance(tag, str) for tag in found):
        raise TypeError(f"tags={tags!r} must be strings, such as tags=['user:7']")
    return found
