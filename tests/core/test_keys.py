"""Keys of calls: the made function binds as `inspect.Signature.bind` does, and equal calls have equal keys."""

import inspect
from collections.abc import Callable
from inspect import Parameter, Signature
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt._core.keys import CallShape, freeze_kwargs

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
VALUES = st.integers(0, 2)
Call = tuple[tuple[Any, ...], dict[str, Any]]


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    """Any signature of up to nine parameters, with defaults where they may be."""
    names = iter("abcdefghi")
    parameters: list[Parameter] = []
    defaults_begin = draw(st.integers(0, 5))
    for kind in POSITIONAL:
        for _ in range(draw(st.integers(0, 2))):
            default = 7 if len(parameters) >= defaults_begin else Parameter.empty
            parameters.append(Parameter(next(names), kind, default=default))
    if draw(st.booleans()):
        parameters.append(Parameter("rest", Parameter.VAR_POSITIONAL))
    for _ in range(draw(st.integers(0, 2))):
        default = 8 if draw(st.booleans()) else Parameter.empty
        parameters.append(Parameter(next(names), Parameter.KEYWORD_ONLY, default=default))
    if draw(st.booleans()):
        parameters.append(Parameter("others", Parameter.VAR_KEYWORD))
    return Signature(parameters)


@st.composite
def arguments(draw: st.DrawFn, signature: Signature) -> dict[str, Any]:
    """A value for every parameter, or for all but some that have defaults."""
    chosen: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            chosen[name] = tuple(draw(st.lists(VALUES, max_size=2)))
        elif parameter.kind is Parameter.VAR_KEYWORD:
            # A positional-only name may be used once more among these.
            extra = [p.name for p in signature.parameters.values() if p.kind is Parameter.POSITIONAL_ONLY]
            chosen[name] = draw(st.dictionaries(st.sampled_from(["x", "y", *extra]), VALUES, max_size=2))
        elif parameter.default is Parameter.empty or draw(st.booleans()):
            chosen[name] = draw(VALUES)
        else:
            chosen[name] = parameter.default
    return chosen


@st.composite
def spellings(draw: st.DrawFn, signature: Signature, chosen: dict[str, Any]) -> Call:
    """One of the ways to write a call that passes these arguments."""
    rest = next((chosen[p.name] for p in signature.parameters.values() if p.kind is Parameter.VAR_POSITIONAL), ())
    args: list[Any] = []
    by_name: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            by_name |= chosen[name]
        elif parameter.kind is Parameter.KEYWORD_ONLY:
            if chosen[name] != parameter.default or draw(st.booleans()):
                by_name[name] = chosen[name]
        elif parameter.kind in POSITIONAL:
            follows_keyword = any(p.name in by_name for p in signature.parameters.values())
            must_be_positional = bool(rest) or parameter.kind is Parameter.POSITIONAL_ONLY
            if must_be_positional or (not follows_keyword and draw(st.booleans())):
                args.append(chosen[name])
            else:
                by_name[name] = chosen[name]
    in_any_order = draw(st.permutations(list(by_name.items())))
    return (*args, *rest), dict(in_any_order)


def made(signature: Signature) -> list[Callable[..., Any]]:
    """Functions of this signature: one that returns the key, one that passes everything on, and one that returns what arrived."""
    shape = CallShape.of(signature)
    namespace: dict[str, Any] = {"freeze_kwargs": freeze_kwargs}
    names = ", ".join(f"{name!r}: {name}" for name in shape.names)
    source = f"""\
def original{signature}:
    return {{{names}}}
def key_of({shape.parameters}):
    return {shape.key()}
def call({shape.parameters}):
    return original({shape.arguments})
"""
    exec(source, namespace)
    parameters = signature.parameters.values()
    for name in ("key_of", "call"):
        function: FunctionType = namespace[name]
        function.__defaults__ = tuple(p.default for p in parameters if p.kind in POSITIONAL and p.default is not p.empty) or None
        function.__kwdefaults__ = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    return [namespace[name] for name in ("key_of", "call", "original")]


def bound(signature: Signature, call: Call) -> dict[str, Any]:
    """What `inspect.Signature.bind` makes of a call."""
    arguments = signature.bind(*call[0], **call[1])
    arguments.apply_defaults()
    return dict(arguments.arguments)


@given(st.data())
def test_every_spelling_of_a_call_has_one_key(data: st.DataObject) -> None:
    """Positions, keywords, their order and defaults written out make no difference, and all arguments arrive."""
    signature = data.draw(signatures())
    chosen = data.draw(arguments(signature))
    key_of, call, _ = made(signature)
    one, other = data.draw(spellings(signature, chosen)), data.draw(spellings(signature, chosen))
    assert bound(signature, one) == bound(signature, other) == chosen
    assert key_of(*one[0], **one[1]) == key_of(*other[0], **other[1])
    assert hash(key_of(*one[0], **one[1])) == hash(key_of(*other[0], **other[1]))
    assert call(*one[0], **one[1]) == chosen


@given(st.data())
def test_different_calls_have_different_keys(data: st.DataObject) -> None:
    """Keys of two calls are equal if and only if their arguments are."""
    signature = data.draw(signatures())
    key_of, _, _ = made(signature)
    one, other = (data.draw(arguments(signature).flatmap(lambda chosen: spellings(signature, chosen))) for _ in range(2))
    equal = bound(signature, one) == bound(signature, other)
    assert (key_of(*one[0], **one[1]) == key_of(*other[0], **other[1])) is equal


@given(st.data())
def test_wrong_calls_are_refused(data: st.DataObject) -> None:
    """A call that the function itself refuses is a TypeError of the made function, and no other call is."""
    signature = data.draw(signatures())
    args = data.draw(st.lists(VALUES, max_size=6))
    kwargs = data.draw(st.dictionaries(st.sampled_from("abcdefgx"), VALUES, max_size=4))
    key_of, call, original = made(signature)
    try:
        # Not `bind`: until Python 3.13 it refused a keyword named like an omitted positional-only parameter.
        expected = original(*args, **kwargs)
    except TypeError:
        for function in (key_of, call):
            with pytest.raises(TypeError):
                function(*args, **kwargs)
    else:
        assert call(*args, **kwargs) == expected


def test_one_parameter_is_its_own_key() -> None:
    """A call with one argument needs no tuple around it."""
    assert CallShape.of(inspect.signature(lambda number: 0)).key() == "number"


def test_no_parameters() -> None:
    """A function without parameters has one key."""
    shape = CallShape.of(inspect.signature(lambda: 0))
    assert (shape.parameters, shape.arguments, shape.key(), shape.names) == ("", "", "()", ())


@pytest.mark.parametrize(
    ("first", "prefix", "expected"),
    [
        (None, None, "(self, x, freeze_kwargs(kw))"),
        ("id(self)", None, "(id(self), x, freeze_kwargs(kw))"),
        (None, "label", "(label, self, x, freeze_kwargs(kw))"),
        ("id(self)", "label", "(label, id(self), x, freeze_kwargs(kw))"),
    ],
)
def test_first_and_prefix(first: str | None, prefix: str | None, expected: str) -> None:
    """A method replaces the first part of the key, a shared cache puts one before all parts."""
    assert CallShape.of(inspect.signature(lambda self, x, **kw: 0)).key(first=first, prefix=prefix) == expected


def test_a_prefix_makes_a_tuple_of_one_part() -> None:
    """The keys of two functions with one parameter each stay apart in a shared cache."""
    assert CallShape.of(inspect.signature(lambda x: 0)).key(prefix="label") == "(label, x)"
    assert CallShape.of(inspect.signature(lambda self: 0)).key(first="id(self)") == "id(self)"


def test_the_name_of_freeze_can_be_chosen() -> None:
    """The source finds `freeze_kwargs` under a name that is no parameter."""
    shape = CallShape.of(inspect.signature(lambda **freeze_kwargs: 0), freeze="_freeze")
    assert shape.key() == "_freeze(freeze_kwargs)"


def test_keyword_names_are_part_of_the_key() -> None:
    """Values of keyword arguments are compared name by name, and need not be comparable by size."""
    assert freeze_kwargs({"a": 1}) != freeze_kwargs({"b": 1})
    assert freeze_kwargs({"b": None, "a": "1"}) == (("a", "1"), ("b", None))
