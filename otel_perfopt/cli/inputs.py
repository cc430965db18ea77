"""What the answers of the service are made from: the keys of caches that outlive the process.

An answer of another run is right if everything that it was made from is the same: the commit and the branch, or the content of
the file; and the code, with the Python that runs it.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from otel_perfopt.cli import workload
from otel_perfopt.cli.workload import GitInfo, current_branch, head_commit, read_source

__all__ = ("Inputs", "read_inputs")

_FROM_GIT = ("git_info", "task_specs")


class Inputs(NamedTuple):
    """What the answers about a repository are made from, at one moment.

    Attributes:
        commit: the commit that is checked out.
        branch: the branch that is checked out.
        contents: a digest of each file, or why it cannot be read.
        code: a digest of the code that makes the answers, and of the Python that runs it.
    """

    commit: str
    branch: str
    contents: Mapping[str, str]
    code: str

    def key(self, part: str, subject: str) -> tuple[str, ...]:
        """Return the key of the answer of a part of the service."""
        made_from = (self.commit, self.branch) if part in _FROM_GIT else (self.contents[subject],)
        return (subject, *made_from, self.code)

    def still_hold(self, part: str, root: str, subject: str, answer: Any) -> bool:
        """Whether nothing of what an answer was made from had changed by the time it was made."""
        if part in _FROM_GIT:  # the commit was given
            return not isinstance(answer, GitInfo) or answer.branch == self.branch
        return _content(root, subject) == self.contents[subject]


def read_inputs(root: str, paths: Collection[str], advance: Callable[[], object] = lambda: None) -> Inputs:
    """Ask git for the commit and the branch, and read some files.

    Args:
        root: the root of the repository.
        paths: the files.
        advance: called after each file.
    """
    contents = {}
    for path in paths:
        contents[path] = _content(root, path)
        advance()
    return Inputs(head_commit(root), current_branch(root), contents, _code())


def _content(root: str, path: str) -> str:
    try:
        return sha256(read_source(root, path)).hexdigest()
    except (OSError, ValueError) as error:
        return str(error)


def _code() -> str:
    python = repr((sys.version, sys.flags))
    return sha256(Path(workload.__file__).read_bytes() + python.encode()).hexdigest()
