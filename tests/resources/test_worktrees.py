"""Git worktrees: each is like new, nothing else is touched, and the repository is left as it was, whatever happens."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt.errors import ConfigurationError
from otel_perfopt.worktrees import GitWorktrees, Worktree, WorktreeError, locks, worktrees
from otel_perfopt.worktrees.folder import Folder
from tests.interruptions import interrupted_at
from tests.resources.processes import python, run_python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs file locks")

USER = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.invalid"}
USER |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in USER.items()}


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings but git's own, and nothing left for the end of the process."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    yield
    worktrees._remove_all()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits, an ignored file, and a change that is not committed, at a path that is not plain."""
    folder = tmp_path / "two words, ünïcode"
    folder.mkdir()
    run(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, ".gitignore", "*.log\n")
    commit(folder, "a.txt", "one")
    commit(folder, "pkg/b.txt", "two")
    (folder / "a.txt").write_text("not committed")
    (folder / "trace.log").write_text("ignored")
    return folder


def run(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run git and return what it printed."""
    env = {**os.environ, **USER}
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, env=env, check=False)
    assert not (check and done.returncode), done.stderr.decode()
    return os.fsdecode(done.stdout)


def commit(folder: Path, name: str, content: str) -> None:
    """Commit a file."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    run(folder, "add", "--force", name)
    run(folder, "commit", "--quiet", "-m", content)


def everything(folder: Path) -> dict[str, bytes | None]:
    """All files and folders, git's own included, with their contents; not the index, which `git status` refreshes."""
    found = {path.relative_to(folder): path for path in folder.rglob("*")}
    return {str(name): path.read_bytes() if path.is_file() else None for name, path in found.items() if name.name != "index"}


def files(folder: Path) -> dict[str, bytes | None]:
    """The files of a worktree, without git's."""
    return {name: content for name, content in everything(folder).items() if not name.startswith(".git/") and name != ".git"}


# what is made, and what stays -----------------------------------------------------------------------


def test_a_worktree_has_the_files_of_the_commit(repository: Path) -> None:
    worktree = GitWorktrees(repository).create()
    assert worktree.path.parent == repository.resolve() / ".worktrees"
    assert worktree.path.name.startswith(f"pool-{os.getpid()}-")
    assert worktree.commit == run(repository, "rev-parse", "HEAD").strip()
    assert files(worktree.path) == {".gitignore": b"*.log\n", "a.txt": b"one", "pkg": None, "pkg/b.txt": b"two"}
    assert run(worktree.path, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD\n"  # no branch
    assert worktree.is_valid()
    assert repr(worktree) == f"<Worktree {str(worktree.path)!r} at {worktree.commit[:12]}>"


def test_the_repository_is_left_exactly_as_it_was(repository: Path) -> None:
    """Every byte; and while there are worktrees, `git status` does not show them."""
    before, status = everything(repository), run(repository, "status", "--porcelain")
    source = GitWorktrees(repository)
    made = [source.create() for _ in range(3)]
    assert run(repository, "status", "--porcelain") == status
    assert run(repository, "branch", "--all", "--format=%(refname)") == "refs/heads/main\n"
    assert len(run(repository, "worktree", "list").splitlines()) == 4
    for worktree in made:
        assert everything(repository) != before
        worktree.destroy()
    assert everything(repository) == before
    assert run(repository, "status", "--porcelain") == status


def test_destroy_may_be_called_again(repository: Path) -> None:
    source = GitWorktrees(repository)
    first, second = source.create(), source.create()
    for _ in range(3):
        first.destroy()
    assert second.is_valid()
    second.destroy()
    assert not (repository / ".worktrees").exists()
    second.destroy()


def test_a_new_worktree_is_at_the_commit_of_now(repository: Path) -> None:
    source = GitWorktrees(repository)
    old = source.create()
    commit(repository, "c.txt", "three")
    assert source.create().commit == run(repository, "rev-parse", "HEAD").strip() != old.commit
    old.reset()
    assert old.is_valid()
    assert not (old.path / "c.txt").exists()


@pytest.mark.parametrize(
    "spoil", ["changed", "untracked", "locked", "deleted", "unlinked", "forgotten", "repository inside", "damaged"]
)
def test_a_worktree_is_removed_whatever_became_of_it(repository: Path, spoil: str) -> None:
    before = everything(repository)
    worktree = GitWorktrees(repository).create()
    admin = repository / ".git" / "worktrees" / worktree.path.name
    if spoil == "changed":
        (worktree.path / "a.txt").write_text("changed")
    elif spoil == "untracked":
        (worktree.path / "new").write_text("new")
    elif spoil == "locked":
        run(repository, "worktree", "lock", str(worktree.path))
    elif spoil == "deleted":
        shutil.rmtree(worktree.path)
    elif spoil == "unlinked":
        (worktree.path / ".git").unlink()
    elif spoil == "forgotten":
        shutil.rmtree(admin)
    elif spoil == "repository inside":
        run(worktree.path, "init", "--quiet", "inside")
    else:
        (admin / "HEAD").write_text("nonsense")
        (admin / "commondir").unlink()
    worktree.destroy()
    assert everything(repository) == before


def test_the_folder_may_be_there_before(repository: Path) -> None:
    """Then it stays, with what is in it; also when it is empty."""
    folder = repository / ".worktrees"
    for name in (None, "notes.txt"):
        folder.mkdir(exist_ok=True)
        if name:
            (folder / name).write_text("mine")
        before, status = everything(repository), run(repository, "status", "--porcelain")
        worktree = GitWorktrees(repository).create()
        assert run(repository, "status", "--porcelain") == status
        worktree.destroy()
        assert everything(repository) == before


def test_somebody_else_s_ignore_file_is_left_alone(repository: Path) -> None:
    (repository / ".worktrees").mkdir()
    (repository / ".worktrees" / ".gitignore").write_text("# mine\n")
    before = everything(repository)
    GitWorktrees(repository).create().destroy()
    assert everything(repository) == before


def test_what_somebody_puts_beside_the_worktrees_stays(repository: Path) -> None:
    worktree = GitWorktrees(repository).create()
    (repository / ".worktrees" / "notes.txt").write_text("mine")
    worktree.destroy()
    assert (repository / ".worktrees" / "notes.txt").read_text() == "mine"
    assert ".worktrees" not in run(repository, "status", "--porcelain")


def test_worktrees_of_others_are_never_touched(repository: Path, tmp_path: Path) -> None:
    """Neither those in our folder, nor one whose disk is not there at the moment, which `git worktree prune` would forget."""
    for path in (".worktrees/pool-party", ".worktrees/feature", str(tmp_path / "beside"), str(tmp_path / "away")):
        run(repository, "worktree", "add", "--quiet", "--detach", path)
    (tmp_path / "away").rename(tmp_path / "gone")
    before = everything(repository)
    source = GitWorktrees(repository)
    source.create().destroy()
    assert source.sweep() == []
    assert everything(repository) == before


def test_another_folder(repository: Path, tmp_path: Path) -> None:
    """Outside the repository, too."""
    before = everything(repository)
    (tmp_path / "elsewhere").mkdir()
    inside, outside = GitWorktrees(repository, root="pkg/trees"), GitWorktrees(repository, root=tmp_path / "elsewhere" / "trees")
    first, second = inside.create(), outside.create()
    assert (first.path.parent, second.path.parent) == (inside.root, outside.root)
    assert repr(outside) == f"<GitWorktrees in {str(tmp_path.resolve() / 'elsewhere' / 'trees')!r}>"
    first.destroy()
    second.destroy()
    assert everything(repository) == before
    assert os.listdir(tmp_path / "elsewhere") == []


def test_the_repository_of_the_current_folder(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is when the object is made, and from anywhere inside; what the environment says of repositories does not count."""
    monkeypatch.chdir(repository / "pkg")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    source = GitWorktrees()
    monkeypatch.chdir("/")
    worktree = source.create()
    assert worktree.path.parent == repository.resolve() / ".worktrees"
    worktree.reset()
    assert worktree.is_valid()


def test_a_repository_that_is_a_worktree_itself(repository: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    run(repository, "worktree", "add", "--quiet", "--detach", str(linked))
    before = everything(repository), everything(linked)
    worktree = GitWorktrees(linked).create()
    assert worktree.path.parent == linked.resolve() / ".worktrees"
    worktree.reset()
    assert worktree.is_valid()
    worktree.destroy()
    assert (everything(repository), everything(linked)) == before


def test_a_path_with_odd_bytes(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"line\nbreak \xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    run(folder, "init", "--quiet")
    commit(folder, "a.txt", "one")
    before = everything(folder)
    worktree = GitWorktrees(folder).create()
    worktree.reset()
    assert worktree.is_valid()
    worktree.destroy()
    assert everything(folder) == before


def test_links_of_newer_gits_are_relative(repository: Path) -> None:
    """With ``worktree.useRelativePaths``."""
    before = everything(repository)
    worktree = GitWorktrees(repository).create()
    admin = repository / ".git" / "worktrees" / worktree.path.name
    (worktree.path / ".git").write_text(f"gitdir: ../../.git/worktrees/{worktree.path.name}\n")
    (admin / "gitdir").write_text(f"../../../.worktrees/{worktree.path.name}/.git\n")
    assert worktree.is_valid()
    assert GitWorktrees(repository)._registered() == {worktree.path.name}
    worktree.reset()
    worktree.destroy()
    assert everything(repository) == before


def test_a_worktree_that_was_moved_is_not_ours_any_more(repository: Path, tmp_path: Path) -> None:
    worktree = GitWorktrees(repository).create()
    run(repository, "worktree", "move", str(worktree.path), str(tmp_path / "moved"))
    worktree.destroy()
    assert run(tmp_path / "moved", "status", "--porcelain") == ""
    assert not (repository / ".worktrees").exists()


def test_submodules(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the repository, and checked out in the worktree, where git by itself refuses to remove it."""
    library = tmp_path / "library"
    library.mkdir()
    run(library, "init", "--quiet")
    commit(library, "c.txt", "three")
    allow = ("-c", "protocol.file.allow=always")
    run(repository, *allow, "submodule", "--quiet", "add", str(library), "library")
    run(repository, "commit", "--quiet", "-m", "with library")
    before = everything(repository)
    worktree = GitWorktrees(repository).create()
    run(worktree.path, *allow, "submodule", "--quiet", "update", "--init")
    assert (worktree.path / "library" / "c.txt").exists()
    worktree.reset()
    assert worktree.is_valid()
    worktree.destroy()
    assert everything(repository) == before


def test_hooks_of_the_repository_are_not_run(repository: Path, tmp_path: Path) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    run(repository, "checkout", "--quiet", "--detach")
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    GitWorktrees(repository).create().reset()
    assert not (tmp_path / "ran").exists()


# the next user gets it like new ---------------------------------------------------------------------


def start_merge(folder: Path) -> None:
    """Leave a merge with a conflict behind."""
    run(folder, "checkout", "--quiet", "-b", "other", "HEAD~1")
    commit(folder, "pkg/b.txt", "different")
    run(folder, "merge", "main", check=False)
    assert run(folder, "status", "--porcelain") == "AA pkg/b.txt\n"


def start_rebase(folder: Path) -> None:
    """Leave a rebase with a conflict behind."""
    run(folder, "checkout", "--quiet", "-b", "other", "HEAD~1")
    commit(folder, "pkg/b.txt", "different")
    run(folder, "rebase", "main", check=False)
    assert "rebas" in run(folder, "status")


def start_picking(folder: Path) -> None:
    """Leave two commits behind that are being picked."""
    run(folder, "checkout", "--quiet", "-b", "other", "HEAD~1")
    commit(folder, "pkg/b.txt", "different")
    commit(folder, "d.txt", "four")
    run(folder, "checkout", "--quiet", "--detach", "main")
    run(folder, "cherry-pick", "other~1", "other", check=False)
    assert "cherry-pick" in run(folder, "status")


def start_bisecting(folder: Path) -> None:
    """Leave a search behind."""
    run(folder, "bisect", "start", "HEAD", "HEAD~1")
    assert "bisect" in run(folder, "status")


def leave_files(folder: Path) -> None:
    """Leave changed, staged, removed, untracked and ignored files behind, and a repository in there."""
    (folder / "a.txt").write_text("changed")
    (folder / "staged.txt").write_text("staged")
    run(folder, "add", "staged.txt")
    run(folder, "rm", "--quiet", "pkg/b.txt")
    (folder / "pkg").mkdir()
    (folder / "pkg" / "untracked").write_text("untracked")
    (folder / "trace.log").write_text("ignored")
    run(folder, "init", "--quiet", "inside")
    commit(folder / "inside", "e.txt", "five")


def commit_to_a_branch(folder: Path) -> None:
    """Leave a branch checked out."""
    run(folder, "checkout", "--quiet", "-b", "feature")
    commit(folder, "feature.txt", "new")


@pytest.mark.parametrize("leave", [start_merge, start_rebase, start_picking, start_bisecting, leave_files, commit_to_a_branch])
def test_reset_makes_it_like_new(repository: Path, leave: Callable[[Path], None]) -> None:
    source = GitWorktrees(repository)
    worktree, other = source.create(), source.create()
    status = run(repository, "status")
    leave(worktree.path)
    branches = run(repository, "branch", "--format=%(refname) %(objectname)")
    worktree.reset()
    assert worktree.is_valid()
    assert files(worktree.path) == files(other.path)
    assert run(worktree.path, "status", "--ignored") == run(other.path, "status", "--ignored")
    assert run(repository, "status") == status  # not even the repository around it
    # A branch that somebody has made is theirs, and where it was; it can be deleted, as nobody has it checked out.
    kept = [line for line in branches.splitlines() if "detached" not in line and "no branch" not in line]
    assert set(run(repository, "branch", "--format=%(refname) %(objectname)").splitlines()) >= set(kept)
    for name in run(repository, "branch", "--format=%(refname:short)").split():
        if name in {"feature", "other"}:
            run(repository, "branch", "-D", name)


@pytest.mark.parametrize("spoil", ["unlinked", "deleted", "forgotten", "linked elsewhere", "an ordinary folder"])
def test_a_damaged_worktree_is_refused_and_the_repository_around_it_safe(repository: Path, spoil: str) -> None:
    """Git would look for a repository further up, and reset and clean that."""
    worktree = GitWorktrees(repository).create()
    (repository / "precious").write_text("untracked")
    if spoil == "unlinked":
        (worktree.path / ".git").unlink()
    elif spoil == "deleted":
        shutil.rmtree(worktree.path)
    elif spoil == "forgotten":
        shutil.rmtree(repository / ".git" / "worktrees" / worktree.path.name)
    elif spoil == "linked elsewhere":
        (worktree.path / ".git").write_text(f"gitdir: {repository / '.git'}\n")
    else:
        shutil.rmtree(worktree.path)
        worktree.path.mkdir()
    before = everything(repository)
    assert not worktree.is_valid()
    with pytest.raises(WorktreeError):
        worktree.reset()
    assert everything(repository) == before
    assert (repository / "precious").read_text() == "untracked"


def test_a_worktree_at_another_commit_is_not_valid(repository: Path) -> None:
    worktree = GitWorktrees(repository).create()
    run(worktree.path, "checkout", "--quiet", "HEAD~1")
    assert not worktree.is_valid()
    worktree.reset()
    assert worktree.is_valid()


# what goes wrong is said clearly --------------------------------------------------------------------


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"cannot be used: fatal: not a git repository"):
        GitWorktrees(tmp_path)
    with pytest.raises(ConfigurationError, match="is not a folder"):
        GitWorktrees(tmp_path / "missing")
    run(tmp_path, "init", "--quiet", "--bare", "bare")
    with pytest.raises(ConfigurationError, match="is a bare repository"):
        GitWorktrees(tmp_path / "bare")


def test_a_repository_without_commits(tmp_path: Path) -> None:
    run(tmp_path, "init", "--quiet")
    before = everything(tmp_path)
    source = GitWorktrees(tmp_path)
    with pytest.raises(WorktreeError, match=r"no worktree can be made of .*: it has no commit yet"):
        source.create()
    assert everything(tmp_path) == before
    commit(tmp_path, "a.txt", "one")
    assert source.create().is_valid()


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there can still be removed."""
    worktree = GitWorktrees(repository).create()
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(ConfigurationError, match="git was not found on PATH: install git"):
        GitWorktrees(repository)
    assert not worktree.is_valid()
    worktree.destroy()
    assert not (repository / ".worktrees").exists()
    assert not (repository / ".git" / "worktrees").exists()


def test_a_folder_that_cannot_be_made(repository: Path) -> None:
    """Because its parent is missing, is no folder, or does not take any."""
    before = everything(repository)
    for root in ("missing/trees", "a.txt/trees", "/proc/self/trees"):
        source = GitWorktrees(repository, root=root)
        with pytest.raises(WorktreeError, match="no worktree can be made in") as caught:
            source.create()
        assert caught.value.context == {"root": str(source.root)}
        assert source.sweep() == []
    assert everything(repository) == before


def test_read_only_storage(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), ".worktrees")

    source = GitWorktrees(repository)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WorktreeError, match="Read-only file system"):
        source.create()


def test_git_s_words_are_in_the_error(repository: Path) -> None:
    """Here a file is where git wants a folder; what was made for the worktree is gone again."""
    (repository / ".git" / "worktrees").write_text("in the way")
    before = everything(repository)
    with pytest.raises(
        WorktreeError, match=r"^git -C .* failed: fatal: could not create leading directories of .*Not a directory"
    ) as caught:
        GitWorktrees(repository).create()
    assert caught.value.code == "WORKTREE_ERROR"
    assert (caught.value.context["command"][3:5], caught.value.context["returncode"]) == (["worktree", "add"], 128)
    assert everything(repository) == before


def fake_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program before git; `$real` is git."""
    folder.mkdir()
    program = folder / "git"
    program.write_text(f"#!/bin/sh\nreal={shutil.which('git')}\n{textwrap.dedent(script)}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_git_that_takes_too_long_is_ended(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has started; what it has made is removed, for which it need not be asked."""
    before = everything(repository)
    script = """
    case "$*" in
        *"worktree add"*) "$real" "$@"; sleep 1000 | sleep 1000;;
        *"worktree remove"*) sleep 1000;;
        *) exec "$real" "$@";;
    esac
    """
    fake_git(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(WorktreeError, match=r"^git -C .* worktree add .* took longer than timeout=0\.4 s$"):
        GitWorktrees(repository, timeout=0.4).create()
    assert everything(repository) == before


@pytest.mark.parametrize("timeout", [0, -1, "soon"])
def test_timeouts_that_are_none(repository: Path, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        GitWorktrees(repository, timeout=timeout)
    assert GitWorktrees(repository, timeout=None).create().is_valid()


def test_what_cannot_be_removed_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tried again by the next sweep."""
    before = everything(repository)
    source = GitWorktrees(repository)
    worktree = source.create()
    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", lambda *_, **__: None)
        broken.setenv("PATH", "/nowhere")
        with pytest.raises(WorktreeError, match="could not be removed completely"):
            worktree.destroy()
    assert source.sweep() == [worktree.path]
    assert everything(repository) == before


# several at once ------------------------------------------------------------------------------------


def test_threads_create_and_destroy_at_once(repository: Path) -> None:
    """Also when the last one is removed, with git's folder and ours, while another one is made."""
    before = everything(repository)
    source = GitWorktrees(repository)

    def use(_: int) -> None:
        worktree = source.create()
        worktree.reset()
        assert worktree.is_valid()
        worktree.destroy()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, range(60)))
    assert everything(repository) == before


@pytest.mark.slow
def test_processes_create_and_destroy_at_once(repository: Path) -> None:
    """And sweep, without taking each other's away."""
    before = everything(repository)
    script = """
import sys
from otel_perfopt.worktrees import GitWorktrees
source = GitWorktrees(sys.argv[1])
for _ in range(12):
    worktree = source.create()
    assert source.sweep() == []
    assert worktree.is_valid()
    worktree.destroy()
"""
    processes = [python(script, repository) for _ in range(4)]
    for process in processes:
        _, complaints = process.communicate(timeout=50)
        assert (process.returncode, complaints) == (0, b""), complaints.decode()
    assert everything(repository) == before


@pytest.mark.parametrize(
    "words",
    [
        "could not create directory of '.git/worktrees/x'",
        "could not create leading directories of '.git/worktrees/x'",
        "failed to read .git/worktrees/x/commondir: Success",
        "Invalid path '/tmp/repository/.git/worktrees/x': No such file or directory",
    ],
)
def test_another_git_may_remove_a_worktree_in_between(
    words: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git says so when it loses such a race; then it is asked again."""
    script = f"""
    case "$*" in *"worktree add"*)
        echo x >>{tmp_path}/asked
        if [ "$(wc -l <{tmp_path}/asked)" -lt 3 ]; then
            echo "fatal: {words}" >&2
            exit 128
        fi
    esac
    exec "$real" "$@"
    """
    fake_git(tmp_path / "bin", monkeypatch, script)
    assert GitWorktrees(repository).create().is_valid()
    assert (tmp_path / "asked").read_text() == "x\n" * 3


# interrupted and killed -----------------------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_at_any_line_nothing_stays(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the latest when the process ends."""
    # An interruption at the end of a `with`, where no signal can come but this test does, keeps a lock, which others need later.
    monkeypatch.setattr(locks, "_threads", threading.RLock())
    before, line = everything(repository), 1
    source = GitWorktrees(repository)
    while interrupted_at(line, lambda: source.create().destroy(), ("worktrees/",)):
        worktrees._remove_all()
        assert everything(repository) == before, line
        line += 1
    assert line > 100


def test_ctrl_c_while_git_makes_a_worktree(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is ended, and what it has made is gone when the interrupt arrives."""
    before = everything(repository)
    os.mkfifo(tmp_path / "made")
    script = f'case "$*" in *"worktree add"*) "$real" "$@"; echo made >{tmp_path}/made; sleep 1000;; *) exec "$real" "$@";; esac'
    fake_git(tmp_path / "bin", monkeypatch, script)

    def interrupt() -> None:
        assert (tmp_path / "made").read_text() == "made\n"
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        interruption = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            GitWorktrees(repository).create()
        interruption.result()
    assert everything(repository) == before


SERVICE = """
import signal, sys
from otel_perfopt.worktrees import GitWorktrees
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the test's own parent ignores
source = GitWorktrees(sys.argv[1])
made = [source.create(), source.create()]
print(*(worktree.path.name for worktree in made), flush=True)
sys.stdin.read()
"""


def start_service(repository: Path) -> "tuple[subprocess.Popen[bytes], list[str]]":
    """A process that has two worktrees and waits for the end of its input."""
    process = python(SERVICE, repository, stdin=subprocess.PIPE)
    assert process.stdout is not None
    names = os.fsdecode(process.stdout.readline()).split()
    assert len(names) == 2
    return process, names


def test_a_process_that_just_ends_leaves_nothing(repository: Path) -> None:
    before = everything(repository)
    process, _ = start_service(repository)
    assert process.communicate(b"", timeout=50) == (b"", b"")
    assert everything(repository) == before


def test_a_process_that_ends_waits_for_the_one_that_a_thread_is_making(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a pool does in the background."""
    before = everything(repository)
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "go")
    script = f"""
    case "$*" in *"worktree add"*) echo begun >{tmp_path}/begun; read go <{tmp_path}/go;; esac
    exec "$real" "$@"
    """
    fake_git(tmp_path / "bin", monkeypatch, script)
    script = """
import atexit, sys, threading
from pathlib import Path
from otel_perfopt.worktrees import GitWorktrees
threading.Thread(target=GitWorktrees(sys.argv[1]).create, daemon=True).start()
Path(sys.argv[2], "begun").read_text()
atexit.register(lambda: Path(sys.argv[2], "go").write_text("go"))  # just before the library has its turn
"""
    run_python(script, repository, tmp_path)
    assert everything(repository) == before


def test_no_worktree_is_made_when_the_process_ends(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would remove it."""
    before = everything(repository)
    source = GitWorktrees(repository)
    monkeypatch.setattr(worktrees, "_is_ending", True)
    with pytest.raises(WorktreeError, match="the process ends"):
        source.create()
    worktrees._remove_all()
    assert everything(repository) == before


def test_ctrl_c_leaves_nothing(repository: Path) -> None:
    before = everything(repository)
    process, _ = start_service(repository)
    process.send_signal(signal.SIGINT)
    process.wait(50)
    assert b"KeyboardInterrupt" in process.communicate(timeout=50)[1]
    assert everything(repository) == before


def test_what_a_killed_process_left_is_swept_and_nothing_else(repository: Path) -> None:
    """A live process's worktrees stay, and those of this one."""
    before = everything(repository)
    killed, names = start_service(repository)
    alive, others = start_service(repository)
    source = GitWorktrees(repository)
    mine = source.create()
    assert set(os.listdir(source.root)) >= {*names, *others, mine.path.name}
    killed.kill()
    killed.communicate()
    assert [path.name for path in source.sweep()] == sorted(names)
    assert source.sweep() == []
    assert mine.is_valid()
    assert not set(names) & set(os.listdir(source.root))
    assert set(os.listdir(source.root)) >= {*others, mine.path.name}
    assert alive.communicate(b"", timeout=50) == (b"", b"")
    mine.destroy()
    assert everything(repository) == before


def test_the_next_run_sweeps_by_itself(repository: Path) -> None:
    """With the first worktree that it creates."""
    before = everything(repository)
    killed, names = start_service(repository)
    killed.kill()
    killed.communicate()
    worktree = GitWorktrees(repository).create()
    assert not set(names) & set(os.listdir(worktree.path.parent))
    worktree.destroy()
    assert everything(repository) == before


@pytest.mark.parametrize("step", ["lock", "entry", "folder", "link", "checkout"])
def test_git_may_have_been_killed_at_any_step(repository: Path, step: str) -> None:
    """Of which it leaves half an entry, locked against its own pruning."""
    before = everything(repository)
    name = f"pool-{2**22 + 1}-1-1"  # nobody has this number
    root, admin = repository.resolve() / ".worktrees", repository / ".git" / "worktrees" / name
    Folder(root)._make()
    (root / f"{name}.lock").touch()
    if step != "lock":
        admin.mkdir(parents=True)
        (admin / "locked").write_text("initializing")
    if step in {"folder", "link", "checkout"}:
        (root / name).mkdir()
    if step in {"link", "checkout"}:
        (admin / "gitdir").write_text(f"{root / name}/.git\n")
        (root / name / ".git").write_text(f"gitdir: {admin}\n")
    if step == "checkout":
        (admin / "HEAD").write_text(run(repository, "rev-parse", "HEAD"))
        (admin / "commondir").write_text("../..\n")
        (root / name / "a.txt").write_text("half of i")
    assert GitWorktrees(repository).sweep() == [root / name]
    assert everything(repository) == before


def start_time(pid: int) -> str:
    """As the names have it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "started", "lock", "goes"),
    [
        ("mine", "mine", "free", True),  # a lock tells for certain
        ("mine", "mine", "held", False),
        ("dead", "1", "held", False),  # such as a process in another container
        ("mine", "mine", None, False),  # `git clean` may have taken the lock
        ("mine", "1", None, True),  # the number was used again
        ("dead", "1", None, True),
        ("1", "init", None, False),  # somebody else's, too
        ("9" * 30, "1", None, True),
    ],
)
def test_whose_worktree_is_it(repository: Path, number: str, started: str, lock: str | None, goes: bool) -> None:
    pid = {"mine": str(os.getpid()), "dead": str(2**22 + 1)}.get(number, number)
    when = {"mine": start_time(os.getpid()), "init": start_time(1)}.get(started, started)
    path = repository.resolve() / ".worktrees" / f"pool-{pid}-{when}-777"
    run(repository, "worktree", "add", "--quiet", "--detach", str(path))
    source = GitWorktrees(repository)
    with open(path.with_name(f"{path.name}.lock") if lock else os.devnull, "w") as file:
        if lock == "held":
            fcntl.flock(file, fcntl.LOCK_EX)
        assert source.sweep() == ([path] if goes else [])
    assert path.exists() is not goes


def test_a_file_system_without_locks(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the process and its start time must do."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    before = everything(repository)
    monkeypatch.setattr(fcntl, "flock", refuse)
    source = GitWorktrees(repository)
    worktree = source.create()
    assert sorted(os.listdir(source.root)) == [".gitignore", worktree.path.name]
    assert source.sweep() == []
    assert worktree.is_valid()
    worktree.destroy()
    assert everything(repository) == before


def test_a_forked_child_neither_removes_nor_keeps_them(repository: Path) -> None:
    """The parent is killed while the child lives: its locks end with it."""
    before = everything(repository)
    script = """
import os, signal, sys, traceback
from otel_perfopt.worktrees import GitWorktrees, worktrees
source = GitWorktrees(sys.argv[1])
worktree = source.create()
worktree._claim.turn.acquire()  # by somebody who does not exist in the child
ready, written = os.pipe()
if os.fork() == 0:
    try:
        worktree.destroy()
        worktrees._remove_all()
        assert worktree.path.exists()
        assert not worktree.is_valid()
        own = source.create()
        assert own.is_valid()
        own.destroy()
        assert source.sweep() == []
        os.write(written, b"fine")
        sys.stdin.read()  # until the test says so
    except BaseException:
        traceback.print_exc()
    os._exit(0)
os.close(written)
assert os.read(ready, 4) == b"fine"
print(worktree.path.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = python(script, repository, stdin=subprocess.PIPE)
    assert parent.stdout is not None
    name = os.fsdecode(parent.stdout.readline()).strip()
    parent.wait(50)
    assert [path.name for path in GitWorktrees(repository).sweep()] == [name]
    assert parent.communicate(b"", timeout=50) == (b"", b"")
    assert everything(repository) == before


def test_a_worktree_that_is_forgotten_goes_with_the_process(repository: Path) -> None:
    before = everything(repository)
    run_python("import sys; from otel_perfopt.worktrees import GitWorktrees as G; G(sys.argv[1]).create()", repository)
    assert everything(repository) == before


def test_methods_fit_the_hooks_of_a_pool(repository: Path) -> None:
    """A pool calls them with the resource."""
    worktree = GitWorktrees(repository).create()
    reset, validate = Worktree.reset, partial(Worktree.is_valid)
    reset(worktree)
    assert validate(worktree)
