"""Git worktrees: detached working trees of one repository, as resources for a pool."""

from otel_perfopt.worktrees.git import WorktreeError
from otel_perfopt.worktrees.worktrees import GitWorktrees, Worktree

__all__ = ("GitWorktrees", "Worktree", "WorktreeError")
