"""The registry: who has a name, who is warned, and what is kept alive."""

import gc
import importlib
import sys
import threading
import types
import warnings
import weakref
from pathlib import Path

import pytest

from otel_perfopt.errors import UnknownName
from otel_perfopt.registry import DuplicateNameWarning, Place, Registry, calling_place


class Thing:
    """A component."""


class Things:
    """A registry, and a function for code that defines components, as the constructor of a component is one.

    What is defined stays alive, as in the globals of a module that has other references.
    """

    def __init__(self) -> None:
        self.registry: Registry[Thing] = Registry("thing")
        self.kept: list[Thing] = []

    def define(self, name: str) -> None:
        """Define a component of this name, at the place of the caller."""
        thing = Thing()
        self.registry.register(name, thing, calling_place(1))
        self.kept.append(thing)

    def run(self, source: str, *, filename: str = "<cell>", module: str = "__main__") -> None:
        """Run source text as a notebook runs a cell."""
        exec(compile(source, filename, "exec"), {"__name__": module, "define": self.define})

    def latest(self, name: str) -> bool:
        """Whether the name belongs to the latest definition."""
        return self.registry.get(name) is self.kept[-1]


@pytest.fixture
def things() -> Things:
    """An empty registry."""
    return Things()


def test_a_loop_takes_a_name_over_silently(things: Things) -> None:
    """A definition that is run again, by a loop or by calling its function again, is the same definition."""

    def make() -> None:
        things.define("users")

    for _ in range(3):
        make()
    assert things.latest("users")
    assert len(things.kept) == 3


def test_a_cell_that_is_run_again_takes_a_name_over_silently(things: Things) -> None:
    """So does a cell that was edited in between."""
    things.run("define('users')")
    things.run("define('users')")
    things.run("answer = 42\n\ndefine('users')")
    assert things.latest("users")


def test_a_reloaded_module_takes_a_name_over_silently(things: Things, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is edited and reloaded defines the same things again, in the module and in its functions."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    support = types.ModuleType("support_of_reloaded")
    vars(support)["define"] = things.define
    monkeypatch.setitem(sys.modules, support.__name__, support)
    source = "from support_of_reloaded import define\ndef make():\n    define('teams')\ndefine('users')\nmake()\n"
    path = tmp_path / "reloaded.py"
    path.write_text(source, encoding="utf-8")
    importlib.invalidate_caches()
    module = importlib.import_module("reloaded")
    monkeypatch.setitem(sys.modules, "reloaded", module)
    path.write_text(f"# edited\n{source}", encoding="utf-8")
    importlib.reload(module)
    assert things.latest("teams")
    assert things.registry.get("users") is things.kept[-2]


def test_two_definitions_are_named_in_one_warning(things: Things) -> None:
    """The later one has the name; the warning names both places and points at the later one."""
    things.run("define('users')", module="shop.users", filename="users.py")
    with pytest.warns(DuplicateNameWarning) as caught:
        things.run("\ndefine('users')", module="shop.teams", filename="teams.py")
    assert things.latest("users")
    message = (
        "the thing name 'users' is defined twice: by shop.users.<module>, line 1 and now by shop.teams.<module>, line 2, "
        "which takes it over; counts of both are summed under it. Give one of them another name="
    )
    assert [str(warning.message) for warning in caught] == [message]
    assert (caught[0].filename, caught[0].lineno) == ("teams.py", 2)
    things.run("\ndefine('users')", module="shop.teams", filename="teams.py")


def test_two_definitions_in_one_piece_of_code(things: Things) -> None:
    """Two calls in the same code are two definitions, also on one line."""
    with pytest.warns(DuplicateNameWarning, match="line 1 and now by __main__.<module>, line 1"):
        things.run("define('users'); define('users')")


def test_a_warning_as_an_error_leaves_the_name_taken_over(things: Things) -> None:
    """Whether the warning is raised or shown makes no difference to who has the name."""
    things.run("define('users')", module="one")
    newer = Thing()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DuplicateNameWarning):
            things.registry.register("users", newer, Place("two"))
    assert things.registry.get("users") is newer


def test_a_name_whose_object_is_gone_is_free(things: Things) -> None:
    """Another definition takes it without a warning."""
    things.run("define('users')", module="one")
    things.kept.clear()
    gc.collect()
    things.run("define('users')", module="two")
    assert things.latest("users")


def test_decorated_functions_are_told_by_their_names(things: Things) -> None:
    """A definition without a call is the same as another of the same module and qualified name."""
    objects = [Thing() for _ in range(3)]
    things.registry.register("price", objects[0], Place("shop.price"))
    things.registry.register("price", objects[1], Place("shop.price"))
    with pytest.warns(DuplicateNameWarning, match="by shop.price and now by shop.Basket.price"):
        things.registry.register("price", objects[2], Place("shop.Basket.price"))


def test_places() -> None:
    """A place is that of the frame so many calls up, with its module and qualified name."""

    def here() -> Place:
        return calling_place(1)

    place, other = here(), here()
    assert place.scope == f"{__name__}.test_places"
    assert not place.is_same(other)
    assert str(place) == f"{__name__}.test_places, line {place.line}"
    assert str(Place("shop.price")) == "shop.price"
    assert calling_place(0).scope == place.scope


def test_an_unknown_name_lists_what_there_is(things: Things) -> None:
    """The message and the context have the names that live and those that are declared, sorted."""
    with pytest.raises(UnknownName) as nothing:
        things.registry.get("users")
    assert str(nothing.value) == "no thing is named 'users'; there are: none yet"
    things.define("teams")
    things.define("addresses")
    things.registry.declare("prices", Thing)
    with pytest.raises(UnknownName) as caught:
        things.registry.get("users")
    assert str(caught.value) == "no thing is named 'users'; there are: 'addresses', 'prices', 'teams'"
    assert caught.value.context == {"kind": "thing", "name": "users", "known": ["addresses", "prices", "teams"]}
    assert caught.value.code == "UNKNOWN_NAME"


class Declared:
    """Builds what is declared, and counts how often."""

    def __init__(self, registry: Registry[Thing]) -> None:
        self.registry = registry
        self.built = 0
        registry.declare("users", self.build)

    def build(self) -> Thing:
        """Build it, which registers it, as constructors do."""
        self.built += 1
        thing = Thing()
        self.registry.register("users", thing, Place("presets"))
        return thing


def test_a_declared_object_is_built_at_its_first_use(things: Things) -> None:
    """Not before, once, and it stays alive without anybody else."""
    declared = Declared(things.registry)
    assert declared.built == 0
    assert things.registry.live() == []
    first = weakref.ref(things.registry.get("users"))
    gc.collect()
    assert things.registry.get("users") is first()
    assert things.registry.live() == [first()]
    assert declared.built == 1


def test_threads_that_ask_together_build_once(things: Things) -> None:
    """All of them get the same object."""
    declared = Declared(things.registry)
    barrier = threading.Barrier(8)
    got: list[Thing] = []

    def ask() -> None:
        barrier.wait()
        got.append(things.registry.get("users"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert declared.built == 1
    assert got == [things.registry.get("users")] * 8


def test_a_build_that_fails_is_tried_again(things: Things) -> None:
    """Its error is let through, and the name stays declared."""
    tries: list[str] = []

    def build() -> Thing:
        tries.append("users")
        raise OSError("not now")

    things.registry.declare("users", build)
    for _ in range(2):
        with pytest.raises(OSError, match="not now"):
            things.registry.get("users")
    assert tries == ["users", "users"]


def test_a_definition_comes_before_a_declaration(things: Things) -> None:
    """A name that somebody defined is not built; when that object is gone, the declared one is."""
    declared = Declared(things.registry)
    things.define("users")
    assert things.latest("users")
    assert declared.built == 0
    things.kept.clear()
    gc.collect()
    assert isinstance(things.registry.get("users"), Thing)
    assert declared.built == 1


def test_a_definition_releases_the_declared_object(things: Things) -> None:
    """An object that was built and then replaced is not kept alive any longer."""
    Declared(things.registry)
    built = weakref.ref(things.registry.get("users"))
    with pytest.warns(DuplicateNameWarning, match="by presets and now by"):
        things.define("users")
    gc.collect()
    assert built() is None
    assert things.latest("users")


def test_the_registry_keeps_nothing_alive(things: Things) -> None:
    """An object that nobody else has is gone, and so is its name."""
    things.define("users")
    watched = weakref.ref(things.kept[0])
    things.kept.clear()
    gc.collect()
    assert watched() is None
    assert things.registry.live() == []
    with pytest.raises(UnknownName):
        things.registry.get("users")


def test_an_old_object_that_dies_does_not_take_the_name_with_it(things: Things) -> None:
    """The name belongs to the later object, whenever the earlier one goes."""
    for _ in range(2):
        things.define("users")
    del things.kept[0]
    gc.collect()
    assert things.latest("users")


def test_places_of_names_that_are_gone_are_few(things: Things) -> None:
    """Names that are made up at run time do not fill the memory, and those that live keep their places."""
    things.run("define('users')", module="one")
    for number in range(5000):
        things.registry.register(f"name {number}", Thing(), Place("two"))
        assert len(things.registry._places) <= 1000 + 2 * 2  # one lives, and one more while it registers
    with pytest.warns(DuplicateNameWarning, match="by one.<module>"):
        things.run("define('users')", module="two")


def test_a_forked_child_has_a_lock_of_its_own(things: Things) -> None:
    """The lock may have been held by a thread that does not exist in the child."""
    things.define("users")
    thread = threading.Thread(target=things.registry._lock.acquire)
    thread.start()
    thread.join()
    things.registry._renew_lock()
    assert things.latest("users")
