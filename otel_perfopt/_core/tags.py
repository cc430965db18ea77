"""Tags: names that entries share, so that all of them can be invalidated at once, in constant time.

Nobody looks for the entries of a tag. An invalidation only notes its place in the history of the cache, and an entry whose value
began to be made before that place is not valid any more, which whoever finds it notices.
"""

import math
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Any
from weakref import WeakValueDictionary

from otel_perfopt._core.policies import Entry

__all__ = ("Tag", "TaggedEntry", "Tags")

RECENT = 1000
"""How many invalidations are remembered one by one, for loads that were under way then."""


class Tag:
    """A name that entries may have.

    Attributes:
        name: the name.
        invalidated: the place in history of its last invalidation; 0 for none.
    """

    __slots__ = ("__weakref__", "invalidated", "name")

    def __init__(self, name: str, invalidated: int) -> None:
        self.name = name
        self.invalidated = invalidated


class Tags:
    """The tags of one cache; each is known as long as an entry or a load has it, or if it was lately invalidated.

    Attributes:
        now: the present place in history; what is made from now on is younger than all invalidations up to here.
    """

    def __init__(self) -> None:
        self.now = 0
        self._known: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        # A load under way may come up with a tag that nothing else has, or has any more, and must know that it was invalidated.
        self._recent: deque[Tag] = deque(maxlen=RECENT)

    def find(self, names: Iterable[str]) -> tuple[Tag, ...]:
        """Return the tags of these names."""
        return tuple(self._find(name) for name in dict.fromkeys(names))

    def invalidate(self, name: str) -> None:
        """Invalidate whatever has this tag and began to be made before."""
        self.now += 1
        tag = self._find(name)
        tag.invalidated = self.now
        self._recent.append(tag)

    def _find(self, name: str) -> Tag:
        tag = self._known.get(name)
        if tag is None:
            self._known[name] = tag = Tag(name, max(0, self.now - RECENT))
        return tag


class TaggedEntry(Entry):
    """An entry that its tags can invalidate.

    Attributes:
        tags: its tags.
        born: the place in history where its value began to be made.
    """

    __slots__ = ("_expires", "born", "tags")

    def __init__(
        self, key: Hashable, value: Any, expires: float, weight: float, group: set[Entry] | None, tags: tuple[Tag, ...], born: int
    ) -> None:
        self.tags = tags
        self.born = born
        super().__init__(key, value, expires, weight, group)

    @property
    def expires(self) -> float:
        """Until when it is handed out without another question: never, once a tag was invalidated."""
        return self._expires if self.is_valid() else -math.inf

    @expires.setter
    def expires(self, value: float) -> None:
        self._expires = value

    def is_valid(self) -> bool:
        """Whether no tag was invalidated since its value began to be made."""
        return all(tag.invalidated <= self.born for tag in self.tags)
