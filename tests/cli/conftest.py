"""A repository for the demo, and a folder to run it in."""

import os
from pathlib import Path

import pytest

from tests.cli.support import run_git


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where the demo keeps what its caches have."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with three Python files, one of them broken."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = tmp_path / "repo"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "a.py").write_text("import os\n")
    (folder / "pkg" / "broken.py").write_text("def (:\n")
    (folder / "b with space.py").write_text("'\\d'\n")  # an invalid escape, which is worth a warning
    run_git(folder, "init", "-q")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "-q", "-m", "one")
    return folder
