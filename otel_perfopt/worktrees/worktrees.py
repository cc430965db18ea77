"""Worktrees that a pool can create, hand out again and again, and dispose of."""

import atexit
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError, PerfOptError
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.worktrees.folder import Claim, Folder, is_name
from otel_perfopt.worktrees.git import WorktreeError, complaint, git, try_git

__all__ = ("GitWorktrees", "Worktree")

_ATTEMPTS = 5
# Git removes .git/worktrees with the last one in it, at times between two steps of another process that adds one; and it reads
# what it knows of all others, of which one may be half removed at that moment.
_RACES = re.compile(
    rb"could not create (leading directories|directory) of|failed to read .*/commondir|Invalid path .*/worktrees/"
)
_EXIT_TIMEOUT = 5.0
_UNFINISHED = ("rebase-merge", "rebase-apply", "sequencer", "refs/bisect")


class Worktree:
    """A working tree of its own, at the commit that was current when it was made; no branch is checked out.

    Attributes:
        path: its folder.
        commit: the name of the commit.
    """

    def __init__(self, source: "GitWorktrees", claim: Claim, commit: str) -> None:
        self.path = claim.path
        self.commit = commit
        self._source = source
        self._claim = claim
        self._owner = os.getpid()
        # Git is told where everything is. Left to look for it in a damaged worktree, it would find the repository around it.
        self._where = (f"--git-dir={source._admin(claim.path.name)}", f"--work-tree={claim.path}", "-C", str(claim.path))

    def __repr__(self) -> str:
        return f"<Worktree {str(self.path)!r} at {self.commit[:12]}>"

    def is_valid(self) -> bool:
        """Whether it is there, belongs to this process and is at its commit. For ``validate=`` of a pool."""
        if self._owner != os.getpid() or not self._is_linked():
            return False
        try:
            return git(*self._where, "rev-parse", "--verify", "HEAD", timeout=self._source._timeout) == self.commit
        except PerfOptError:
            return False

    def reset(self) -> None:
        """Make it as it was when it was new: the files of the commit, nothing else, and no branch. For ``reset=`` of a pool.

        Raises:
            WorktreeError: git could not do that, or the worktree is not there any more.
        """
        if not self._is_linked():
            raise WorktreeError(f"{self.path} is no worktree any more", context={"path": str(self.path)})
        admin = self._source._admin(self.path.name)
        for name in _UNFINISHED:
            shutil.rmtree(admin / name, ignore_errors=True)
        for file in admin.glob("BISECT_*"):
            file.unlink(missing_ok=True)
        # Not `git reset --hard`, which would take along the branch that somebody has checked out here.
        git(*self._where, "checkout", "--quiet", "--force", "--detach", self.commit, timeout=self._source._timeout)
        git(*self._where, "clean", "--quiet", "-ffdx", timeout=self._source._timeout)
        shutil.rmtree(admin / "logs", ignore_errors=True)

    def destroy(self) -> None:
        """Remove it from the disk and from git's list; may be called again. A forked child leaves that to its parent.

        Raises:
            WorktreeError: something could not be removed; the next run of the program tries again.
        """
        if self._owner == os.getpid():
            self._source._remove(self._claim)

    def _is_linked(self) -> bool:
        try:
            link = os.fsdecode((self.path / ".git").read_bytes())
        except OSError:
            return False
        admin = self.path / link.removeprefix("gitdir: ").removesuffix("\n")
        return admin.resolve() == self._source._admin(self.path.name)


class GitWorktrees:
    """Makes worktrees of one repository: ``ResourcePool("git_worktrees", worktrees.create, reset=Worktree.reset)``.

    They are named after this process, and leave the repository as it was: when the last one is gone, so is everything that was
    made for them. What is left when the process ends is removed then; what a killed process left, by the next one that
    creates a worktree. POSIX only.

    Args:
        repository: a folder in the repository; None for the current folder.
        root: the folder for the worktrees, in the repository's root or absolute. Git does not show it as untracked.
        timeout: seconds that each git command may take; None for no limit.

    Attributes:
        root: the folder for the worktrees, absolute.

    Raises:
        ConfigurationError: there is no such repository, or it is bare; or git is missing.
    """

    def __init__(
        self, repository: str | Path | None = None, *, root: str | Path = ".worktrees", timeout: Duration | None = 60.0
    ) -> None:
        if os.name != "posix":
            raise ConfigurationError("worktrees for pools need file locks, which only POSIX systems have")
        try:
            self._timeout = None if timeout is None else to_seconds(timeout, option="timeout")
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from None
        self._top, self._common = _find(Path.cwd() if repository is None else Path(repository), self._timeout)
        self.root = (self._top / root).resolve()
        self._folder = Folder(self.root)
        self._has_swept = False

    def __repr__(self) -> str:
        return f"<GitWorktrees in {str(self.root)!r}>"

    def _admin(self, name: str) -> Path:
        """Return the folder in which git keeps what it knows of the worktree `name`."""
        return self._common / "worktrees" / name

    def create(self) -> Worktree:
        """Make a worktree at the commit that the repository is at now; the factory of a pool.

        Raises:
            WorktreeError: git or the file system refused; the message says why.
        """
        if not self._has_swept:
            self._has_swept = True
            self.sweep()
        commit = self._commit()
        claim = self._folder.new_claim()
        with claim.turn:
            _claims[claim] = self  # from before there is anything: whoever has to clean up finds it here
            if _is_ending:
                raise WorktreeError("no worktree is made any more: the process ends")
            try:
                self._folder.take(claim)
                self._add(claim.path, commit)
                return Worktree(self, claim, commit)
            except BaseException:
                with suppress(WorktreeError):  # the first error says more
                    self._remove(claim)
                raise

    def sweep(self) -> list[Path]:
        """Remove what processes have left that are gone, and return it. Only worktrees that this class has made, in this root."""
        swept = []
        for name in sorted(self._folder.names() | self._registered()):
            try:
                claim = self._folder.take_over(name)
                if claim is not None:
                    self._remove(claim)
                    swept.append(claim.path)
            except (WorktreeError, OSError):
                logging.getLogger(names.SCOPE).warning("a worktree of an earlier run stays", exc_info=True)
        return swept

    def _remove(self, claim: Claim) -> None:
        """Remove what `claim` stands for, however much of it there is."""
        path, admin = claim.path, self._admin(claim.path.name)
        with claim.turn:
            # With --force twice also a locked one: it is ours. Not `git worktree prune`, which forgets everybody's.
            if path.exists() or self._has_entry(path):
                with suppress(PerfOptError):
                    try_git("-C", self._top, "worktree", "remove", "--force", "--force", path, timeout=self._timeout)
            # What git does not remove: a worktree that it has not finished, or any if it is itself the problem.
            shutil.rmtree(path, ignore_errors=True)
            if self._has_entry(path):
                shutil.rmtree(admin, ignore_errors=True)
            with suppress(OSError):
                admin.parent.rmdir()  # as git does it with the last one
            if path.exists() or self._has_entry(path):
                claim.let_go()
                raise WorktreeError(f"{path} could not be removed completely", context={"path": str(path), "admin": str(admin)})
            with suppress(OSError):
                self._folder.give_back(claim)
            _claims.pop(claim, None)

    def _has_entry(self, path: Path) -> bool:
        """Whether git knows the worktree; one that was moved away has become somebody else's."""
        admin = self._admin(path.name)
        return admin.exists() and _leads_to(admin) in {None, path}

    def _commit(self) -> str:
        done = try_git("-C", self._top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", timeout=self._timeout)
        if done.returncode:
            why = complaint(done) if done.stderr else "it has no commit yet"
            raise WorktreeError(f"no worktree can be made of {self._top}: {why}", context={"repository": str(self._top)})
        return os.fsdecode(done.stdout).strip()

    def _add(self, path: Path, commit: str) -> None:
        command = ("-C", self._top, "worktree", "add", "--quiet", "--detach", path, commit)
        for _ in range(_ATTEMPTS - 1):
            done = try_git(*command, timeout=self._timeout)
            if done.returncode == 0:
                return
            if not _RACES.search(done.stderr):
                break
        git(*command, timeout=self._timeout)

    def _registered(self) -> set[str]:
        """Return the worktrees that git knows in our root, by those of their names that look like ours."""
        try:
            known = os.listdir(self._common / "worktrees")
        except OSError:
            return set()
        return {name for name in known if is_name(name) and _leads_to(self._admin(name)) == self.root / name}


def _find(folder: Path, timeout: float | None) -> tuple[Path, Path]:
    """Return the root of the repository around `folder`, and where git keeps what all its worktrees share."""
    if not folder.is_dir():
        raise ConfigurationError(f"repository={str(folder)!r} is not a folder")
    found = try_git("-C", folder, "rev-parse", "--is-bare-repository", "--show-toplevel", "--git-common-dir", timeout=timeout)
    bare, _, rest = os.fsdecode(found.stdout).removesuffix("\n").partition("\n")
    if bare == "true":
        raise ConfigurationError(f"repository={str(folder)!r} is a bare repository: worktrees are made beside a working tree")
    if found.returncode:
        raise ConfigurationError(f"repository={str(folder)!r} cannot be used: {complaint(found)}")
    top, _, common = rest.rpartition("\n")
    return Path(top).resolve(), (folder / common).resolve()


def _leads_to(admin: Path) -> Path | None:
    """Return the worktree that a folder of git's belongs to; None if git was stopped before it wrote that down."""
    try:
        return (admin / os.fsdecode((admin / "gitdir").read_bytes()).removesuffix("\n")).parent.resolve()
    except OSError:
        return None


_claims: dict[Claim, GitWorktrees] = {}
_is_ending = False


@atexit.register
def _at_exit() -> None:
    global _is_ending
    _is_ending = True
    _remove_all()


def _remove_all() -> None:
    """Remove the worktrees that are left, also when no pool or nobody else did."""
    for claim, source in list(_claims.items()):
        # Some background thread may be making it at this moment.
        if claim.turn.acquire(timeout=_EXIT_TIMEOUT):
            try:
                source._remove(claim)
            except Exception:
                logging.getLogger(names.SCOPE).warning("a worktree stays; the next run removes it", exc_info=True)
            finally:
                claim.turn.release()


def _after_fork() -> None:
    """The worktrees are the parent's, and so are their locks, which must not outlive it."""
    for claim in list(_claims):
        claim.let_go()
    _claims.clear()


instruments.on_fork(_after_fork)
