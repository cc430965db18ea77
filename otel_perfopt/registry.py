"""Names of components: one name, one meaning.

A registry does not keep its objects alive. Names can be declared with a function that builds the object at its first use.
"""

import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any, Generic, TypeVar

from otel_perfopt.errors import UnknownName
from otel_perfopt.telemetry import instruments

__all__ = (
    "BATCH_REGISTRY",
    "CACHE_REGISTRY",
    "POOL_REGISTRY",
    "DuplicateNameWarning",
    "Place",
    "Registry",
    "calling_place",
)

T = TypeVar("T")


class DuplicateNameWarning(UserWarning):
    """Two different definitions use one name; the later one has it now."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is defined.

    Attributes:
        scope: the module and the qualified name of the code that defines it.
        code: the code object, when the definition is a call somewhere in it.
        instruction: which instruction of the code.
        line: for people.
    """

    scope: str
    code: CodeType | None = None
    instruction: int = 0
    line: int = 0

    def is_same(self, other: "Place") -> bool:
        """Whether both are one definition, run again: a re-run notebook cell, a reloaded module, a loop."""
        return self.scope == other.scope and (self.code is not other.code or self.instruction == other.instruction)

    def __str__(self) -> str:
        return f"{self.scope}, line {self.line}" if self.line else self.scope


def calling_place(depth: int) -> Place:
    """Return the place of the caller's caller, for depth 1, and so on."""
    frame = sys._getframe(depth + 1)  # what inspect.stack() does, without reading source files
    module = frame.f_globals.get("__name__", "?")
    return Place(f"{module}.{frame.f_code.co_qualname}", frame.f_code, frame.f_lasti, frame.f_lineno)


class Registry(Generic[T]):
    """The objects of one kind, by name.

    Args:
        kind: what they are called in messages, such as ``"cache"``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._objects: dict[str, list[weakref.ref[T]]] = {}  # the newest last
        self._places: dict[str, Place] = {}
        self._declared: dict[str, Callable[[], T]] = {}
        self._built: dict[str, T] = {}
        self._registered = self._kept = 0
        self._lock = threading.RLock()
        instruments.on_fork(self._renew_lock)

    def declare(self, name: str, build: Callable[[], T]) -> None:
        """Let `get` build the object of this name at its first use; it stays alive from then on."""
        with self._lock:
            self._declared[name] = build

    def register(self, name: str, component: T, place: Place, *, stacklevel: int = 2) -> None:
        """Give `name` to `component`; a different definition that still lives is named in a warning."""
        with self._lock:
            known = self._places.get(name)
            living = self._living(name)
            taken = known is not None and bool(living) and not known.is_same(place)
            self._objects[name] = [*map(weakref.ref, living), weakref.ref(component)]
            self._places[name] = place
            self._built.pop(name, None)
            self._registered += 1
            if self._registered > 2 * self._kept + 1000:  # names whose objects are gone must not pile up
                self._objects = {name: refs for name, refs in self._objects.items() if self._living(name)}
                self._places = {name: self._places[name] for name in self._objects}
                self._registered, self._kept = len(self._objects), len(self._objects)
        if taken:
            warnings.warn(
                f"the {self._kind} name {name!r} is defined twice: by {known} and now by {place}, which takes it over; "
                f"counts of both are summed under it. Give one of them another name=",
                DuplicateNameWarning,
                stacklevel=stacklevel + 1,
            )

    def get(self, name: str) -> T:
        """Return the object of this name.

        Raises:
            UnknownName: there is none; the message lists the names that there are.
        """
        with self._lock:
            living = self._living(name)
            build = self._declared.get(name)
        if living:
            return living[-1]
        if build is not None:
            built = build()  # not under the lock: it is other people's code, and takes other locks
            with self._lock:
                return self._built.setdefault(name, built)
        with self._lock:
            known = sorted({*filter(self._living, self._objects), *self._declared})
        raise UnknownName(
            f"no {self._kind} is named {name!r}; there are: {', '.join(map(repr, known)) or 'none yet'}",
            context={"kind": self._kind, "name": name, "known": known},
        )

    def live(self) -> list[T]:
        """Return the objects that are alive."""
        with self._lock:
            return [component for name in self._objects for component in self._living(name)]

    def _living(self, name: str) -> list[T]:
        return [component for reference in self._objects.get(name, ()) if (component := reference()) is not None]

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()


CACHE_REGISTRY: Registry[Any] = Registry("cache")
POOL_REGISTRY: Registry[Any] = Registry("pool")
BATCH_REGISTRY: Registry[Any] = Registry("batch processor")
