"""What one run of the demo leaves to the next: right answers, or none."""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_perfopt.cli import demo, main
from otel_perfopt.cli.inputs import read_inputs
from otel_perfopt.cli.library import open_library
from otel_perfopt.cli.workload import PLAIN, GitInfo
from otel_perfopt.presets import CACHES as PRESETS
from otel_perfopt.tiers import SQLiteTier
from tests.cli.support import CACHES, COMMAND, PYTHONPATH, assert_consistent, everything_in, run_git, wait_until

FILES = ("b with space.py", "pkg/a.py", "pkg/broken.py")
ALL = 11  # answers about three files and two folders
FROM_FILES = 6  # of them

Run = Callable[..., "Outcome"]


class Outcome:
    """What a run of the demo printed.

    Args:
        out: its output.
    """

    def __init__(self, out: str) -> None:
        self.text = " ".join(out.split())
        self.widest = max(len(line) for line in out.splitlines() if not line.startswith("Repository:"))
        self.rows = {
            match[1]: (int(match[2]), int(match[3])) for match in re.finditer(r"(?m)^(\w+) +[\d.]+% +(\d+) +(\d+) ", out)
        }
        said = re.search(r"Warm start: ([\d,]+) of the ([\d,]+) different answers came from another run", self.text)
        self.found = int(said[1]) if said else 0
        self.asked = int(said[2]) if said else 0


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the demo, whose answers must be right, and which has nothing to complain about."""

    def run(repo: Path | None = root, requests: int = 20) -> Outcome:
        options = [] if repo is None else ["--repo", str(repo)]
        code = main(["demo", *options, "--requests", str(requests)])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        outcome = Outcome(printed.out)
        assert "Answers: the same from both services" in outcome.text
        return outcome

    return run


# what it says ---------------------------------------------------------------------------------------


def test_the_second_run_starts_warm_and_says_so(run: Run, here: Path) -> None:
    cold, warm = run(), run()
    assert "Warm start" not in cold.text
    assert "was asked for before, " in cold.text
    assert (warm.found, warm.asked) == (ALL, ALL)
    assert "came from another run, through the files in .worktrees/.cache. Speed-up:" in warm.text
    assert "was asked for before or came from another run, " in warm.text
    for outcome in (cold, warm):
        assert "Kept: the answers are in .worktrees/.cache, where the next run finds them" in outcome.text
        assert outcome.widest <= 80
    assert_consistent(here)


def test_the_report_of_a_warm_run_counts_this_run_only(root: Path) -> None:
    """In a process of its own; what all runs have counted is in `stats().lifetime`."""
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", COMMAND, "demo", "--requests", "20", "--repo", str(root)]
    cold, warm = (Outcome(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout) for _ in range(2))
    assert cold.rows == dict.fromkeys(("compilation", "dependencies", "git_info"), (17, 3)) | {"task_specs": (18, 2)}
    assert warm.rows == dict.fromkeys(cold.rows, (20, 0))
    assert "git_info: 3 hits from sqlite" in warm.text
    for name, build in PRESETS.items():
        cache = build()
        misses = cold.rows[name][1]
        assert cache.stats().lifetime == {"hits": 40 - misses, "misses": misses, "stale": 0, "evictions": 0}
        cache.close()


# right or not at all --------------------------------------------------------------------------------


def test_an_edited_file_is_looked_at_again(run: Run, root: Path) -> None:
    """Also if neither git, nor its size, nor its date tells."""
    file = root / "pkg" / "a.py"
    run()
    before = file.stat()
    run_git(root, "update-index", "--assume-unchanged", "pkg/a.py")
    file.write_text("import re\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert run().found == ALL - 2
    file.write_text("import os\n")
    assert run().found == ALL


def test_a_file_that_is_gone_is_looked_for_again(run: Run, root: Path) -> None:
    run()
    (root / "pkg" / "broken.py").unlink()
    assert run().found == ALL - 2
    (root / "pkg" / "broken.py").mkdir()
    assert run().found == ALL - 2


@pytest.mark.parametrize(
    "change", [["commit", "-q", "--allow-empty", "-m", "two"], ["checkout", "-q", "-b", "another"]], ids=" ".join
)
def test_after_a_commit_or_on_another_branch_git_is_asked_again(run: Run, root: Path, change: list[str]) -> None:
    run()
    run_git(root, *change)
    assert run().found == FROM_FILES


def test_an_amended_commit_is_another_one(run: Run, root: Path) -> None:
    run()
    run_git(root, "commit", "-q", "--amend", "-m", "another subject")
    assert run().found == FROM_FILES


def test_another_python_makes_its_own_answers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_inputs(str(root), FILES)
    assert read_inputs(str(root), FILES) == before
    monkeypatch.setattr(sys, "version", "another")
    after = read_inputs(str(root), FILES)
    for part in PLAIN._fields:
        assert after.key(part, "pkg/a.py") != before.key(part, "pkg/a.py")


def test_two_repositories_share_a_folder(run: Run, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run_git(root, "clone", "-q", str(root), str(other))
    (other / "pkg" / "a.py").write_text("import re\n")
    run_git(other, "commit", "-q", "-a", "-m", "another")
    run()
    assert run(other).found == FROM_FILES - 2
    assert (run().found, run(other).found) == (ALL, ALL)


def test_a_broken_answer_is_not_left_to_the_next_run(
    run: Run, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever made answers differ, the next run finds out by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(demo, "differences", lambda plain, fast: ["something"])
        assert main(["demo", "--repo", str(root), "--requests", "20"]) == 1
    assert "Kept:" not in capsys.readouterr().out
    assert run().found == 0


# what changes during a run --------------------------------------------------------------------------


def test_a_file_that_changes_during_a_run_is_not_kept(root: Path) -> None:
    """It is answered as it is, and later runs know nothing of it."""
    file = root / "pkg" / "a.py"
    inputs = read_inputs(str(root), FILES)
    file.write_text("import re\n")
    with open_library(str(root), inputs) as library:
        assert library.service.dependencies(str(root), "pkg/a.py") == ("re",)
        assert library.service.compilation(str(root), "pkg/a.py") == PLAIN.compilation(str(root), "pkg/a.py")
    file.write_text("import os\n")
    with open_library(str(root), inputs) as library:
        assert library.service.dependencies(str(root), "pkg/a.py") == ("os",)
        assert library.service.compilation(str(root), "pkg/a.py") == PLAIN.compilation(str(root), "pkg/a.py")


def test_a_branch_that_changes_during_a_run_is_not_kept(root: Path) -> None:
    inputs = read_inputs(str(root), FILES)
    for branch in ("another", inputs.branch):
        run_git(root, "checkout", "-q", "-B", branch)
        with open_library(str(root), inputs) as library:
            info = library.service.git_info(str(root), "pkg/a.py")
        assert isinstance(info, GitInfo)
        assert info.branch == branch


def test_a_commit_during_a_run_does_not_change_what_is_kept(root: Path) -> None:
    """The answers are about the commit that is in their keys."""
    before = PLAIN.git_info(str(root), "pkg/a.py"), PLAIN.task_specs(str(root), "pkg")
    inputs = read_inputs(str(root), FILES)
    (root / "pkg" / "a.py").write_text("import re\n")
    (root / "pkg" / "new.py").touch()
    run_git(root, "add", "--all")
    run_git(root, "commit", "-q", "-m", "two")
    with open_library(str(root), inputs) as library:
        assert (library.service.git_info(str(root), "pkg/a.py"), library.service.task_specs(str(root), "pkg")) == before
    assert before != (PLAIN.git_info(str(root), "pkg/a.py"), PLAIN.task_specs(str(root), "pkg"))


# odd repositories -----------------------------------------------------------------------------------


def test_a_repository_that_is_made_is_the_same_one_every_time(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, temporary, here = (tmp_path / name for name in ("lib", "tmp", "here"))
    for folder in (library, temporary, here):
        folder.mkdir()
    for name in ("abc.py", "os.py"):
        (library / name).write_text(f"import {name}\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(library)}.get)
    assert run(None).found == 0
    warm = run(None)
    assert warm.found == warm.asked == 7


def test_a_repository_without_a_commit(run: Run, root: Path) -> None:
    run_git(root, "checkout", "-q", "--orphan", "new")
    run()
    assert run().found == ALL


def test_odd_names_are_kept(run: Run, root: Path) -> None:
    try:
        (root / os.fsdecode(b"caf\xe9 \n.py")).write_text("import os\n")
    except OSError:
        pytest.skip("this file system has no such names")
    run_git(root, "add", "--all")
    run_git(root, "commit", "-q", "-m", "two")
    run()
    assert run().found == ALL + 3


# what it leaves -------------------------------------------------------------------------------------


def test_in_the_repository_only_the_files_of_the_caches_are_left(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which git does not see."""
    monkeypatch.chdir(root)
    before = everything_in(root)
    run()
    run()
    left = {str(Path(path).relative_to(root)) for path in everything_in(root).keys() - before.keys()}
    assert {path for path in left if not path.startswith(f"{CACHES}/")} == {".worktrees", ".worktrees/.gitignore", str(CACHES)}
    assert {path.stem for path in root.glob(f"{CACHES}/*.db")} == set(PLAIN._fields)
    assert {path: everything_in(root)[path] for path in before} == before
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, check=True, capture_output=True)
    assert status.stdout == b""


def test_where_no_file_can_be_made_the_demo_works_without(
    root: Path, here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It warns once for each cache, and promises nothing."""
    (here / ".worktrees").write_text("in the way")
    for _ in range(2):
        caplog.clear()
        assert main(["demo", "--repo", str(root), "--requests", "20"]) == 0
        printed = capsys.readouterr().out
        assert "Answers: the same" in printed
        assert "Warm start" not in printed
        assert "Kept:" not in printed
        assert len([record for record in caplog.records if "a tier of a cache fails" in record.message]) == len(PRESETS)


@pytest.mark.slow
def test_a_killed_demo_leaves_what_it_has_made(run: Run, root: Path, here: Path) -> None:
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    arguments = [sys.executable, "-c", COMMAND, "demo", "--requests", "1000000", "--repo", str(root)]
    files = [here / CACHES / f"{name}.db" for name in PLAIN._fields]

    def all_have_something() -> bool:
        return all(path.exists() for path in files) and all(map(entries, files))

    with subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, text=True, start_new_session=True) as process:
        try:
            wait_until(all_have_something, process)
        finally:
            process.kill()
    assert process.returncode == -9
    assert_consistent(here)
    assert run().found >= len(files)


def entries(path: Path) -> int:
    tier = SQLiteTier(path)
    try:
        return tier.usage().entries
    finally:
        tier.close()


@pytest.mark.slow
def test_two_demos_at_the_same_time_share_the_files(run: Run, root: Path, here: Path) -> None:
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    arguments = [sys.executable, "-c", COMMAND, "demo", "--requests", "200", "--repo", str(root)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(arguments, env=env, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for process in both:
        out, error = process.communicate()
        assert (process.returncode, error) == (0, "")
        assert "Answers: the same" in out
    assert_consistent(here)
    assert run().found == ALL
