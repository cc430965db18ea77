"""How the programs are found that the tests of backends run against."""

import os
from pathlib import Path

import pytest

from tests.backends import programs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the scripts are for a shell")


@pytest.mark.parametrize("version", ["go1.26.3", "go1.27rc1", "go2.0", "devel go1.28-3c7a5f1", "go1.26 X:boringcrypto"])
def test_a_go_that_is_new_enough_is_used(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    go = script(tmp_path / "go", version)
    assert programs._go() == [go]


@pytest.mark.parametrize("version", ["go1.9.7", "go1.25.9", ""])
def test_an_older_one_is_not(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then uv brings one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    script(tmp_path / "go", version)
    uv = script(tmp_path / "uv")
    assert programs._go()[0] == uv


@pytest.mark.parametrize(("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
@pytest.mark.parametrize("name", ["jaeger", "no-such-program"])
def test_a_test_without_its_program(
    name: str, required: str, outcome: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It skips with the way to get it, and fails where it may not skip."""
    monkeypatch.setattr(programs, "KEPT", tmp_path)
    monkeypatch.setenv("REQUIRE_BACKENDS", required)
    with pytest.raises(outcome, match=f"needs {name}: "):
        programs.program(name)


def script(path: Path, says: str = "") -> str:
    """Make a program that says something, and return its path."""
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)
