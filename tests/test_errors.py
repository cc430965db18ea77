"""Errors: the tree as it is drawn, what they carry, and the page about them."""

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

from otel_perfopt import errors
from otel_perfopt.errors import ConfigurationError, PerfOptError, PoolTimeout, create_error, error_codes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
CLASSES = list(error_codes().values())


def also(cls: type[PerfOptError]) -> str:
    """The builtin error that a class is beside a `PerfOptError`, if it has one of its own."""
    return ", ".join(base.__name__ for base in cls.__bases__ if not issubclass(base, PerfOptError) and base is not Exception)


def drawn() -> list[tuple[str, str, str, str]]:
    """Parent, name, code and builtin base of every class in the module's drawing."""
    line = re.compile(
        r"^    (?P<indent>[ |]*(?:\+-- )?)(?P<name>\w+) +(?P<code>[A-Z_]+)(?: +\(also (?P<also>\w+)\))?$", re.MULTILINE
    )
    path: list[str] = []
    rows: list[tuple[str, str, str, str]] = []
    for match in line.finditer(errors.__doc__ or ""):
        depth = len(match["indent"]) // 4
        path[depth:] = [match["name"]]
        rows.append((path[depth - 1] if depth else "Exception", match["name"], match["code"], match["also"] or ""))
    return rows


def test_the_tree_is_as_drawn() -> None:
    """The drawing in the module's docstring has every class, in its place, with its code and its builtin base."""
    actual = [(cls.__bases__[0].__name__, cls.__name__, cls.default_code, also(cls)) for cls in CLASSES]
    assert drawn() == actual


def test_every_class_is_public_and_has_a_code_of_its_own() -> None:
    """`__all__` has all classes; no two share a code, and no class inherits one."""
    public = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__name__ in errors.__all__]
    assert sorted(public, key=str) == sorted(CLASSES, key=str)
    assert all("default_code" in vars(cls) for cls in CLASSES)
    assert len({cls.default_code for cls in CLASSES}) == len(CLASSES)


def test_classes_of_users_are_not_among_the_codes() -> None:
    """A subclass elsewhere inherits the code and does not take it over."""

    class OurTimeout(PoolTimeout):
        pass

    assert error_codes()["POOL_TIMEOUT"] is PoolTimeout
    assert OurTimeout("late").code == "POOL_TIMEOUT"


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigurationError", ValueError),
        ("MissingExtra", ImportError),
        ("UnknownName", LookupError),
        ("LoadTimeout", TimeoutError),
        ("PoolTimeout", TimeoutError),
        ("ReentrantLoad", RuntimeError),
    ],
)
def test_builtin_bases(name: str, builtin: type[Exception]) -> None:
    """Code that knows nothing of this library catches what it expects."""
    with pytest.raises(builtin, match=r"^what happened$"):
        raise getattr(errors, name)("what happened", context={"name": "users"})


@pytest.mark.parametrize("cls", CLASSES)
def test_message_code_and_context(cls: type[PerfOptError]) -> None:
    """The message is printed as it is, the code is the class's unless another is given, and the context is a copy."""
    context = {"pool": "git"}
    error = cls("it's late", context=context)
    context.clear()
    assert (str(error), error.message, error.args) == ("it's late", "it's late", ("it's late",))
    assert (error.code, error.context) == (cls.default_code, {"pool": "git"})
    assert (cls("late").context, cls("late", code="MINE").code) == ({}, "MINE")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(cls: type[PerfOptError], protocol: int) -> None:
    """An error arrives in another process as it was: type, message, code, context and notes."""
    error = cls("late", context={"waited": 1.5}, code="MINE")
    error.add_note("in the worker")
    for other in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is cls
        assert (str(other), other.message, other.code, other.context) == ("late", "late", "MINE", {"waited": 1.5})
        assert other.__notes__ == ["in the worker"]


@pytest.mark.parametrize(("code", "cls"), error_codes().items())
def test_create_error_knows_the_class_of_a_code(code: str, cls: type[PerfOptError]) -> None:
    """A code of the library gives its class."""
    error = create_error("what happened", code=code, context={"a": 1})
    assert type(error) is cls
    assert (error.message, error.code, error.context) == ("what happened", code, {"a": 1})


def test_create_error_keeps_a_code_that_it_does_not_know() -> None:
    """Any other code gives a plain error with that code; without a code it is the general one."""
    error = create_error("disk full", code="DISK_FULL")
    assert (type(error), error.code, error.context) == (PerfOptError, "DISK_FULL", {})
    assert create_error("what happened").code == "PERFOPT_ERROR"


def test_an_empty_code_is_none() -> None:
    """An error always has a code."""
    assert ConfigurationError("no", code="").code == "CONFIGURATION"


def test_the_page_has_every_error() -> None:
    """The table in docs/errors.md has the code, class, builtin base and meaning of every class, in the order of the tree."""
    row = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (?:`(\w+)`)? *\| (.+?) \|$", re.MULTILINE)
    expected = [
        (code, cls.__name__, also(cls), (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("``", "`"))
        for code, cls in error_codes().items()
    ]
    assert row.findall(PAGE.read_text(encoding="utf-8")) == expected
