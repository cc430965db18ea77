"""The demo's workload and its choice of a repository, on real git repositories."""

import os
import random
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from otel_perfopt.cli import repository, workload
from otel_perfopt.cli.library import BatchedReports, PlainReports
from otel_perfopt.cli.repository import choose_repository, temporary_folder
from otel_perfopt.cli.workload import PLAIN, Compiled, GitInfo, TaskSpec, analyse, make_requests, spread_out, subjects
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.state import StateStore

Git = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for a repository, with nothing in it yet."""
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


@pytest.fixture
def git(root: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git in a new repository, whatever the machine's configuration says."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def run(*arguments: str) -> str:
        identity = ("-c", "user.name=Ann Author", "-c", "user.email=ann@example.invalid")
        command = ["git", *identity, "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="surrogateescape").stdout

    run("init", "-q")
    run("symbolic-ref", "HEAD", "refs/heads/main")
    return run


def commit(git: Git, subject: str = "a change") -> str:
    git("add", "--all")
    git("commit", "-q", "-m", subject)
    return git("rev-parse", "HEAD").strip()


# the parts of the service ---------------------------------------------------------------------------


def test_git_info_is_about_the_last_commit_of_the_file(root: Path, git: Git) -> None:
    (root / "a.py").write_text("1")
    first = commit(git, "first")
    (root / "b.py").write_text("2")
    commit(git, "second")
    info = workload.git_info(str(root), "a.py")
    assert isinstance(info, GitInfo)
    assert (info.branch, info.commit, info.author, info.subject) == ("main", first, "Ann Author", "first")
    assert info.timestamp.isdigit()
    git("checkout", "-q", "--detach")
    info = workload.git_info(str(root), "a.py")
    assert isinstance(info, GitInfo)
    assert (info.branch, info.commit) == ("(detached)", first)


def test_git_info_without_a_commit(root: Path, git: Git) -> None:
    (root / "a.py").write_text("1")
    git("add", "a.py")
    assert "does not have any commits yet" in str(workload.git_info(str(root), "a.py"))
    (root / "b.py").write_text("2")
    commit(git)
    (root / "c.py").write_text("3")
    git("add", "c.py")
    assert workload.git_info(str(root), "c.py") == "not committed yet"


NAMES = [
    "with space.py",
    "new\nline.py",
    "-dash.py",
    "[ab].py",
    "*.py",
    ":(top)x.py",
    "quo\"te'.py",
    "ünï.py",
    os.fsdecode(b"caf\xe9.py"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_file_name_is_taken_literally(root: Path, git: Git, name: str) -> None:
    folder = root / f"pkg {name}"
    try:
        folder.mkdir()
        (folder / name).write_text("import os")
    except OSError:
        pytest.skip("this file system has no such names")
    mine = commit(git, "mine")
    (folder / "a.py").write_text("1")
    commit(git, "another file that a pattern would match")
    with choose_repository(str(root)) as found:
        assert f"pkg {name}/{name}" in found.files
    answer = analyse(PLAIN, str(root), f"pkg {name}/{name}")
    assert isinstance(answer.git_info, GitInfo)
    assert isinstance(answer.compilation, Compiled)
    assert isinstance(answer.task_specs, TaskSpec)
    assert answer.git_info.commit == mine
    assert answer.dependencies == ("os",)
    assert name in answer.task_specs.modules


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"import os.path, sys as s\r\nfrom json import dumps\r\n", ("json", "os.path", "sys")),
        (
            b"from . import a\nfrom .b import c\nfrom .. import d\nfrom ..e import f",
            ("src.d", "src.e", "src.pkg.a", "src.pkg.b"),
        ),
        (b"from ....... import far", ("far",)),
        (b"def f():\n    import late", ("late",)),
        (b"\xef\xbb\xbfimport bom", ("bom",)),
        (b"# -*- coding: latin-1 -*-\n'\xe9'\nimport old", ("old",)),
        (b"", ()),
    ],
)
def test_dependencies(root: Path, source: bytes, expected: tuple[str, ...]) -> None:
    (root / "src" / "pkg").mkdir(parents=True)
    (root / "src" / "pkg" / "m.py").write_bytes(source)
    assert workload.dependencies(str(root), "src/pkg/m.py") == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"def f(:\n", "SyntaxError"),
        (b"x = '\xff'", "SyntaxError"),
        (b"# coding: no-such-codec\n", "SyntaxError"),
        (b"a\0b", "source code"),
        (b"(" * 500, "SyntaxError"),
        (b"#" * (workload.MAX_SOURCE_BYTES + 1), "larger than"),
    ],
    ids=["syntax", "undecodable", "codec", "null", "nested", "large"],
)
def test_what_cannot_be_parsed_is_answered_with_the_reason(root: Path, source: bytes, reason: str) -> None:
    (root / "m.py").write_bytes(source)
    for part in (workload.dependencies, workload.compilation):
        answer = part(str(root), "m.py")
        assert isinstance(answer, str)
        assert reason in answer
        assert answer == part(str(root), "m.py")


@pytest.mark.parametrize("replace", [lambda path: None, Path.mkdir, os.mkfifo], ids=["deleted", "folder", "pipe"])
def test_a_file_that_is_no_longer_there(root: Path, git: Git, replace: Callable[[Path], None]) -> None:
    path = root / "m.py"
    path.write_text("1")
    commit(git)
    path.unlink()
    replace(path)
    answer = analyse(PLAIN, str(root), "m.py")
    assert isinstance(answer.git_info, GitInfo)
    assert isinstance(answer.dependencies, str)
    assert answer.dependencies == answer.compilation


def test_compilation_tells_sources_apart(root: Path) -> None:
    def compiled(source: str) -> Compiled | str:
        (root / "m.py").write_text(source)
        return workload.compilation(str(root), "m.py")

    sources = ["x = 1", "y = 1", "x = 'a'", "x = 'b'", "def f(): pass", "def f(): return g"]
    assert len({compiled(source) for source in sources}) == len(sources)
    assert compiled("x = 1") == compiled("x = 1  # a comment")
    answer = compiled("class A:\n    def f(self): pass")
    assert isinstance(answer, Compiled)
    assert answer.scopes == 3


def test_task_spec_lists_the_work_of_one_package(root: Path, git: Git) -> None:
    (root / "pkg" / "sub").mkdir(parents=True)
    for name in ("m.py", "test_m.py", "n_test.py", "conftest.py", "py.typed", "README", "sub/deeper.py"):
        (root / "pkg" / name).write_text("1")
    (root / "top.py").write_text("1")
    commit(git)
    assert workload.task_spec(str(root), "pkg") == TaskSpec(("m.py",), ("conftest.py", "n_test.py", "test_m.py"), ("sub",), True)
    assert workload.task_spec(str(root), "") == TaskSpec(("top.py",), (), ("pkg",), False)
    assert isinstance(workload.task_spec(str(root), "nowhere"), str)


def test_both_ways_to_report_write_the_same_states(root: Path, git: Git, tmp_path: Path) -> None:
    (root / "a.py").write_text("1")
    head = commit(git)
    plain = PlainReports(str(root), StateStore(tmp_path / "plain.db"))
    batched = BatchedReports(str(root), StateStore(tmp_path / "batched.db"), repository.git)
    for reports in (plain, batched):
        for path, analyses in (("a.py", 1), ("b.py", 1), ("a.py", 2), ("odd \udce9.py", 1)):
            reports.send(path, analyses)
    assert batched.finish() == plain.finish()
    assert batched.finish()["a.py"] == {"file": "a.py", "analyses": 2, "commit": head}
    assert batched.finish()["odd \udce9.py"]["file"] == "odd \\udce9.py"


def test_subjects_are_the_file_and_its_folder() -> None:
    assert subjects("a/b/c.py") == ("a/b/c.py", "a/b/c.py", "a/b/c.py", "a/b")
    assert subjects("c.py").task_specs == ""


# the requests ---------------------------------------------------------------------------------------


def test_requests_follow_zipf_and_the_seed() -> None:
    files = [f"{number}.py" for number in range(100)]
    stream = make_requests(files, 20_000, 3)
    assert stream == make_requests(files[::-1], 20_000, 3) != make_requests(files, 20_000, 4)
    counts = [count for _, count in Counter(stream).most_common()]
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.15)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.25)
    assert make_requests(["only.py"], 3, 0) == ["only.py"] * 3


def test_making_requests_leaves_the_global_random_numbers_alone() -> None:
    before = random.getstate()
    make_requests(["a", "b"], 10, 1)
    assert random.getstate() == before


@pytest.mark.parametrize("count", [*range(1, 40), 997, 1000, 2000])
def test_every_beginning_of_the_order_is_evenly_spaced(count: int) -> None:
    order = spread_out(count)
    assert sorted(order) == list(range(count))
    for size in (10, 50, 200):
        if size < count:
            sample = sorted(order[:size])
            gaps = [after - before for before, after in zip([0, *sample], [*sample, count], strict=True)]
            assert max(gaps) <= 3 * count / size


# the repository -------------------------------------------------------------------------------------


def test_a_subfolder_leads_to_the_root_and_links_are_left_out(root: Path, git: Git) -> None:
    (root / "pkg").mkdir()
    (root / "pkg" / "a.py").write_text("1")
    (root / "b.py").symlink_to("/dev/zero")
    (root / "untracked.txt").write_text("1")
    commit(git)
    (root / "untracked.py").write_text("1")
    with choose_repository(str(root / "pkg")) as found:
        assert os.path.samefile(found.root, root)
        assert found.files == ("pkg/a.py",)


def test_a_file_in_conflict_is_listed_once(root: Path, git: Git) -> None:
    for text, branch in (("base", "one"), ("one", "two")):
        (root / "a.py").write_text(text)
        commit(git, text)
        git("branch", branch)
    git("checkout", "-q", "one")
    (root / "a.py").write_text("other")
    commit(git)
    with pytest.raises(subprocess.CalledProcessError):
        git("merge", "-q", "two")
    with choose_repository(str(root)) as found:
        assert found.files == ("a.py",)


def test_what_is_no_repository_to_work_on(root: Path, tmp_path: Path, git: Git) -> None:
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "bare"], check=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").touch()
    reasons = {"bare": "is a bare repository", "plain": "is not in a git repository", "file": "is not a folder"}
    reasons |= {"gone": "is not a folder", "repo": "tracks no Python files"}
    for name, reason in reasons.items():
        with pytest.raises(ConfigurationError, match=reason), choose_repository(str(tmp_path / name)):
            pass


def test_the_surroundings_do_not_change_the_repository_that_is_read(
    root: Path, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.py").write_text("1")
    head = commit(git)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no-index"))
    monkeypatch.setenv("GIT_TRACE", "1")
    with choose_repository(str(root)) as found:
        info = workload.git_info(found.root, "a.py")
    assert isinstance(info, GitInfo)
    assert info.commit == head


def test_reading_starts_no_configured_program_and_writes_nothing(root: Path, git: Git, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    (root / "a.py").write_text("1")
    commit(git)
    for setting in ("core.fsmonitor", "core.pager", "gpg.program", "core.sshCommand", "diff.external"):
        git("config", setting, str(program))
    git("config", "log.showSignature", "true")
    os.utime(root / "a.py", (1, 1))  # an index refresh would have something to write
    before = snapshot(root)
    with choose_repository(str(root)) as found:
        analyse(PLAIN, found.root, "a.py")
    assert snapshot(root) == before
    assert not marker.exists()


def snapshot(root: Path) -> dict[Path, str]:
    return {path: sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def test_without_a_repository_the_standard_library_becomes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, temporary, here = (tmp_path / name for name in ("lib", "tmp", "here"))
    (library / "json").mkdir(parents=True)
    (library / "test").mkdir()
    for folder in (temporary, here):
        folder.mkdir()
    for name in ("abc.py", "json/__init__.py", "json/data.txt", "test/test_abc.py"):
        (library / name).write_text("1")
    (library / ".gitignore").write_text("*.py")
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(library)}.get)
    with choose_repository(None) as found:
        assert found.files == ("abc.py", "json/__init__.py")
        assert "is not in a git repository" in found.note
        info = workload.git_info(found.root, "abc.py")
        assert isinstance(info, GitInfo)
        assert info.timestamp == "946684800"  # whenever it is made, so that it is the same commit
        assert Path(found.root).parent == temporary
    assert list(temporary.iterdir()) == []


def test_an_interrupted_removal_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    remove, interrupts = shutil.rmtree, iter([KeyboardInterrupt, KeyboardInterrupt])

    def interrupted(folder: Path, *, ignore_errors: bool) -> None:
        for interrupt in interrupts:
            raise interrupt
        remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with temporary_folder() as folder:
        Path(folder, "file").write_text("1")
    assert list(tmp_path.iterdir()) == []
