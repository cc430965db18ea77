"""From a call to a key: which parts of a signature identify a call."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ("CallShape", "freeze_kwargs")

_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def freeze_kwargs(kwargs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return keyword arguments as a hashable value that does not depend on their order.

    >>> freeze_kwargs({"b": 2, "a": 1}) == freeze_kwargs({"a": 1, "b": 2})
    True
    """
    return tuple(sorted(kwargs.items(), key=_name_of))


def _name_of(item: tuple[str, Any]) -> str:
    return item[0]


@dataclass(frozen=True, slots=True)
class CallShape:
    """The source text that a function made for one signature consists of.

    Attributes:
        parameters: what stands between the parentheses of ``def``, without defaults.
        arguments: what stands between the parentheses of a call that passes everything on.
        parts: one expression for each part of the key.
        names: the names of the parameters.
    """

    parameters: str
    arguments: str
    parts: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, signature: inspect.Signature, freeze: str = "freeze_kwargs") -> "CallShape":
        """Return the shape of `signature`; `freeze` is the name under which the source finds `freeze_kwargs`.

        >>> CallShape.of(inspect.signature(lambda a, /, b=1, *rest, c, **kw: 0)).parameters
        'a, /, b, *rest, c, **kw'
        """
        declared: list[str] = []
        passed: list[str] = []
        parts: list[str] = []
        previous = None
        parameters = list(signature.parameters.values())
        for parameter in parameters:
            name, kind = parameter.name, parameter.kind
            if previous is inspect.Parameter.POSITIONAL_ONLY and kind is not previous:
                declared.append("/")
            if kind is inspect.Parameter.KEYWORD_ONLY and previous not in (kind, inspect.Parameter.VAR_POSITIONAL):
                declared.append("*")
            prefix = _STARS.get(kind, "")
            declared.append(prefix + name)
            passed.append(f"{name}={name}" if kind is inspect.Parameter.KEYWORD_ONLY else prefix + name)
            parts.append(f"{freeze}({name})" if kind is inspect.Parameter.VAR_KEYWORD else name)
            previous = kind
        if previous is inspect.Parameter.POSITIONAL_ONLY:
            declared.append("/")
        return cls(", ".join(declared), ", ".join(passed), tuple(parts), tuple(p.name for p in parameters))

    def key(self, *, first: str | None = None, prefix: str | None = None) -> str:
        """Return the expression that makes the key: one bare part, or a tuple of all parts.

        Args:
            first: replaces the first part; a method puts the identity of its instance there.
            prefix: an expression before all parts; a shared cache puts the function there.
        """
        parts = self.parts if first is None else (first, *self.parts[1:])
        if prefix is not None:
            parts = (prefix, *parts)
        if len(parts) == 1:
            return parts[0]
        return f"({', '.join(parts)})"
