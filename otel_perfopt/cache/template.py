"""The function that stands in for a cached one: made from source text for its signature, as dataclasses make ``__init__``.

A hit then costs one look-up, one clock reading and two counts, and ``f(1)`` and ``f(x=1)`` bind to the same parameter, hence
to the same key, without `inspect.Signature.bind`. Measured against other ways to build it in docs/performance.md.
"""

import inspect
import keyword
import linecache
from collections.abc import Callable, Mapping
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, cast

from otel_perfopt._core.keys import CallShape, freeze_kwargs

__all__ = ("make_function",)

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SOURCE = """\
{async_}def {name}({parameters}):
    try:
        {p}entry = {p}store.entries[{key}]
    except {p}KeyError:
        pass
    except {p}TypeError as {p}error:
        raise {p}explain({p}error, {values})
    else:
        if {p}entry.expires > {p}clock():
            {touch}
            {count}
            return {p}entry.value
    return {await_}{p}miss({key}, {owner}, {p}partial({p}function, {arguments}))

def {p}key_of({parameters}):
    return {key}
"""
_COUNT = "{p}hits.left -= 1"
_COUNT_AND_SAMPLE = """\
{p}hits.left = {p}left = {p}hits.left - 1
            if {p}left < 1: {p}sample({p}entry.key, {p}hits)"""
_TOUCH = {
    "s3fifo": "if {p}entry.frequency < 3: {p}entry.frequency += 1",
    "lru": "try: {p}store.policy.move_up({p}entry)\n            except {p}KeyError: pass",
}


def make_function(
    function: Callable[..., Any],
    *,
    label: str,
    is_async: bool,
    is_method: bool,
    shared: bool,
    key: Callable[..., Any] | None,
    policy: str,
    hot_keys: bool,
    helpers: Mapping[str, Any],
) -> tuple[FunctionType, FunctionType]:
    """Return a function with the signature of `function` that looks a call up, and one that returns the key of a call.

    Args:
        function: the function to stand in for.
        label: names it in tracebacks and, in a shared cache, in keys.
        is_async: whether calling it makes a coroutine.
        is_method: whether the first parameter stands for its identity, and is passed to the helper ``miss`` as the owner.
        shared: whether the key begins with the label, because others use the same cache.
        key: makes the key from the arguments, instead of the arguments themselves.
        policy: how a hit is noted.
        hot_keys: whether to take samples of the keys.
        helpers: ``store``, ``clock``, ``hits``, ``sample``, ``miss`` and ``explain``.
    """
    signature = _signature(function)
    if is_method and not any(p.kind in _BY_POSITION for p in signature.parameters.values()):
        instance = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        signature = signature.replace(parameters=[instance, *signature.parameters.values()])
    names = signature.parameters
    name = getattr(function, "__name__", "")
    name = name if name.isidentifier() and not keyword.iskeyword(name) else "cached_call"
    prefix = "_cached_"
    while any(taken.startswith(prefix) for taken in (name, *names)):
        prefix = f"_{prefix}"
    shape = CallShape.of(signature, freeze=f"{prefix}freeze")
    if key is not None:
        expression = f"{prefix}make_key({shape.arguments})"
        expression = f"({prefix}label, {expression})" if shared else expression
    else:
        expression = shape.key(
            first=f"{prefix}id({shape.names[0]})" if is_method else None, prefix=f"{prefix}label" if shared else None
        )
    source = _SOURCE.format(
        p=prefix,
        name=name,
        parameters=shape.parameters,
        arguments=shape.arguments,
        key=expression,
        values=_values(signature, skip=1 if is_method else 0),
        owner=shape.names[0] if is_method and key is None else "None",
        count=(_COUNT_AND_SAMPLE if hot_keys else _COUNT).format(p=prefix),
        touch=_TOUCH[policy].format(p=prefix),
        async_="async " if is_async else "",
        await_="await " if is_async else "",
    )
    own = {
        "KeyError": KeyError,
        "TypeError": TypeError,
        "freeze": freeze_kwargs,
        "function": function,
        "id": id,
        "label": label,
        "make_key": key,
        "partial": partial,
    }
    namespace = {prefix + helper: value for helper, value in {**helpers, **own}.items()}
    filename = f"<cached {label}>"
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102 - the template above and names of parameters
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    call, key_of = cast("FunctionType", namespace[name]), cast("FunctionType", namespace[f"{prefix}key_of"])
    for made in (call, key_of):
        _set_defaults(made, signature)
    update_wrapper(call, function)
    key_of.__qualname__ = f"{call.__qualname__}.invalidate"  # for messages about wrong arguments
    return call, key_of


def _values(signature: inspect.Signature, *, skip: int) -> str:
    """Return the source of a dict of the arguments by name, for messages."""
    items = [
        f"**{p.name}" if p.kind is p.VAR_KEYWORD else f"{p.name!r}: {p.name}" for p in list(signature.parameters.values())[skip:]
    ]
    return f"{{{', '.join(items)}}}"


def _set_defaults(function: FunctionType, signature: inspect.Signature) -> None:
    defaults = [p for p in signature.parameters.values() if p.default is not p.empty]
    function.__defaults__ = tuple(p.default for p in defaults if p.kind is not p.KEYWORD_ONLY) or None
    function.__kwdefaults__ = {p.name: p.default for p in defaults if p.kind is p.KEYWORD_ONLY} or None


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        # What can be called, not what a functools.wraps() decorator shows: it may take other arguments and have other defaults.
        return inspect.signature(function, follow_wrapped=False)
    except ValueError:  # some built-in functions have none
        return inspect.Signature(
            [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )
