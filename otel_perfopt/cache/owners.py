"""Entries of methods: kept by the identity of their instance, and gone with it.

The identity of a dead object may be given to a new one, so the entries must be stale before that can happen: a weak
reference's callback runs first, and it only writes attributes, because it may run anywhere, under any lock.
"""

import weakref
from collections import deque
from collections.abc import Hashable
from typing import Any

from otel_perfopt._core.policies import Entry

__all__ = ("Owners",)


class Owners:
    """The groups of entries that belong to instances."""

    def __init__(self) -> None:
        self._groups: dict[int, tuple[weakref.ref[object], set[Entry]]] = {}
        self._dead: deque[set[Entry]] = deque()

    def group(self, instance: object) -> set[Entry]:
        """Return the entries of `instance`; call it under the lock that guards the entries.

        Raises:
            TypeError: `instance` cannot be referred to weakly.
        """
        found = self._groups.get(id(instance))
        if found is not None:
            if found[0]() is instance:
                return found[1]
            del self._groups[id(instance)]  # of a dead instance whose callback is still to come
        group: set[Entry] = set()
        myself, identity = weakref.ref(self), id(instance)

        def bury(reference: weakref.ref[object]) -> None:
            for entry in list(group):
                entry.invalidate()
            owners = myself()
            if owners is not None:
                if owners._groups.get(identity, (None,))[0] is reference:
                    del owners._groups[identity]
                owners._dead.append(group)

        try:
            reference = weakref.ref(instance, bury)
        except TypeError:
            kind = type(instance).__qualname__
            raise TypeError(
                f"a cached method keeps the entries of each {kind} until that instance is gone, which needs a weak "
                f'reference, and {kind} allows none: add "__weakref__" to its __slots__ (for a dataclass, '
                f"weakref_slot=True), or pass @cached a key= that identifies the instance, too"
            ) from None
        # Making the reference may have run a finalizer that came here for the same instance; then its group stands.
        return self._groups.setdefault(identity, (reference, group))[1]

    def told(self, key: Hashable) -> Any:
        """Return `key` with the instance, if there is one, in place of its identity; this is for people."""
        if not self._groups:
            return key
        if type(key) is not tuple:
            return self._instance(key)
        # In a cache that functions share, the name of the function comes first.
        return tuple(self._instance(part) if place < 2 else part for place, part in enumerate(key))

    def _instance(self, part: Hashable) -> Any:
        found = self._groups.get(part) if type(part) is int else None
        instance = None if found is None else found[0]()
        return part if instance is None else instance

    def dissolve(self) -> None:
        """Let go of all entries: they and their groups know each other, and would wait for a collection of garbage."""
        for entry in self.take_dead():
            if entry.group is not None:
                entry.group.discard(entry)
        for _, group in list(self._groups.values()):
            group.clear()

    def take_dead(self) -> list[Entry]:
        """Return the entries of instances that are gone since the last call."""
        entries: list[Entry] = []
        while self._dead:
            entries.extend(self._dead.popleft())
        return entries
