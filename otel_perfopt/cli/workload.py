"""The demo's workload: a code-analysis service, and the requests that it gets.

Plain functions, as they are before anybody thinks of performance: each takes the root of the repository and what it is
asked about, and answers with values that can be compared. What cannot be answered is answered with the reason.
"""

import ast
import os
import random
import stat
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import accumulate
from pathlib import PurePosixPath
from types import CodeType
from typing import NamedTuple

from otel_perfopt.cli.repository import Output, first_line, git

__all__ = (
    "PLAIN",
    "Analysis",
    "Service",
    "analyse",
    "compilation",
    "current_branch",
    "dependencies",
    "first_requests",
    "git_info",
    "head_commit",
    "make_requests",
    "read_source",
    "spread_out",
    "subjects",
    "task_spec",
)

MAX_SOURCE_BYTES = 4 * 1024 * 1024
_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)


class GitInfo(NamedTuple):
    """The branch that is checked out, and the last commit that changed a file."""

    branch: str
    commit: str
    author: str
    timestamp: str
    subject: str


class Compiled(NamedTuple):
    """A compiled module: how many functions and classes, how many bytes of code, and a digest of it."""

    scopes: int
    size: int
    digest: str


class TaskSpec(NamedTuple):
    """What there is to do for a package: the modules to check, the tests to run, the packages to go on with."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    packages: tuple[str, ...]
    typed: bool


class Analysis(NamedTuple):
    """The answer to one request; a part that could not be answered is the reason."""

    git_info: GitInfo | str
    dependencies: tuple[str, ...] | str
    compilation: Compiled | str
    task_specs: TaskSpec | str


class Service(NamedTuple):
    """The parts of the service, by the names of the caches that fit them; each takes the root and a subject."""

    git_info: Callable[[str, str], GitInfo | str]
    dependencies: Callable[[str, str], tuple[str, ...] | str]
    compilation: Callable[[str, str], Compiled | str]
    task_specs: Callable[[str, str], TaskSpec | str]


Git = Callable[..., Output]
"""Runs git: takes a folder and the arguments."""


def git_info(root: str, path: str, git: Git = git, commit: str = "HEAD") -> GitInfo | str:
    """Ask git for the branch, and for the last commit up to this one that changed the file."""
    branch = current_branch(root, git)
    options = ("-1", "--encoding=UTF-8", "--format=%H%x00%an%x00%at%x00%s", "--default", commit)
    last = git(root, "log", *options, "--", f":(literal){path}")
    if last.returncode:
        return first_line(last)
    if not last.stdout:
        return "not committed yet"
    return GitInfo(branch, *last.stdout.decode(errors="replace").removesuffix("\n").split("\0", 3))


def dependencies(root: str, path: str) -> tuple[str, ...] | str:
    """Parse the file and return the modules that it imports, by their full names."""
    try:
        tree = ast.parse(read_source(root, path), path)
    except (*_UNPARSABLE, OSError) as error:
        return _reason(error)
    package = PurePosixPath(path).parent.parts
    return tuple(sorted({name for statement in _statements(tree) for name in _imports(statement, package)}))


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in _BLOCKS:
            waiting.extend(getattr(node, block, ()))


def _imports(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: max(0, len(package) - node.level + 1)] if node.level else ()
        names = [node.module] if node.module else [alias.name for alias in node.names]
        return [".".join((*base, name)) for name in names]
    return []


def compilation(root: str, path: str) -> Compiled | str:
    """Compile the file and describe the code."""
    try:
        code = compile(read_source(root, path), path, "exec", dont_inherit=True)
    except (*_UNPARSABLE, OSError) as error:
        return _reason(error)
    scopes = list(_scopes(code))
    digest = sha256()
    for scope in scopes:
        texts = [constant for constant in scope.co_consts if isinstance(constant, str)]
        digest.update(scope.co_code)
        digest.update(repr((scope.co_name, scope.co_names, scope.co_varnames, texts)).encode())
    return Compiled(len(scopes), sum(len(scope.co_code) for scope in scopes), digest.hexdigest())


def _scopes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _scopes(constant)


def task_spec(root: str, folder: str, git: Git = git, commit: str = "HEAD") -> TaskSpec | str:
    """Ask git what the package contains in a commit, and return what is to be done for it."""
    result = git(root, "ls-tree", "-z", f"{commit}:{folder}")
    if result.returncode:
        return first_line(result)
    entries = [os.fsdecode(entry).partition("\t") for entry in result.stdout.split(b"\0") if entry]
    sources = [name for _, _, name in entries if name.endswith(".py")]
    tests = tuple(name for name in sources if name.startswith(("test_", "conftest.")) or name.endswith("_test.py"))
    packages = tuple(name for kind, _, name in entries if kind.split()[1] == "tree")
    typed = any(name == "py.typed" for _, _, name in entries)
    return TaskSpec(tuple(name for name in sources if name not in tests), tests, packages, typed)


def current_branch(root: str, git: Git = git) -> str:
    """Ask git for the branch that is checked out."""
    head = git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    return "(detached)" if head.returncode else head.stdout.decode(errors="replace").strip()


def head_commit(root: str, git: Git = git) -> str:
    """Ask git for the commit that is checked out; ``"HEAD"`` if there is none yet."""
    head = git(root, "rev-parse", "--quiet", "--verify", "HEAD")
    return head.stdout.decode().strip() or "HEAD"


def read_source(root: str, path: str) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or larger than is reasonable.
    """
    name = os.path.join(root, path)
    status = os.lstat(name)
    # What replaced the file since it was committed may be a pipe, which would never end.
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MAX_SOURCE_BYTES:
        raise ValueError(f"larger than {MAX_SOURCE_BYTES} bytes")
    with open(name, "rb") as file:
        return file.read()


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class Subjects(NamedTuple):
    """What each part of the service is asked about."""

    git_info: str
    dependencies: str
    compilation: str
    task_specs: str


def subjects(path: str) -> Subjects:
    """Return what the parts are asked about when `path` is requested: the file, and for the task spec its folder."""
    return Subjects(path, path, path, os.path.dirname(path))


PLAIN = Service(git_info, dependencies, compilation, task_spec)


def analyse(service: Service, root: str, path: str) -> Analysis:
    """Answer one request: ask every part."""
    about = subjects(path)
    return Analysis(
        service.git_info(root, about.git_info),
        service.dependencies(root, about.dependencies),
        service.compilation(root, about.compilation),
        service.task_specs(root, about.task_specs),
    )


def make_requests(files: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` requested files; the file of popularity rank k is asked for in proportion to 1/k.

    Args:
        files: the files; `seed` shuffles them into their ranks.
        count: how many requests.
        seed: the same seed gives the same requests.
    """
    chance = random.Random(seed)  # noqa: S311 - a repeatable stream, no secret
    ranked = sorted(files)
    chance.shuffle(ranked)
    weights = list(accumulate(1 / rank for rank in range(1, len(ranked) + 1)))
    return chance.choices(ranked, cum_weights=weights, k=count)


def first_requests(stream: Sequence[str]) -> dict[tuple[str, str], int]:
    """Return, for each part of the service and each subject, the number of the first request that asks for it."""
    first: dict[tuple[str, str], int] = {}
    files: dict[str, int] = {}
    for number, path in enumerate(stream):
        files.setdefault(path, number)
    for path, number in files.items():
        for about in subjects(path)._asdict().items():
            first.setdefault(about, number)
    return first


def spread_out(count: int) -> list[int]:
    """Return the numbers below `count` in an order whose every beginning is an evenly spaced sample.

    >>> spread_out(8)
    [0, 5, 2, 7, 4, 1, 6, 3]
    """
    # Multiples of the golden ratio: those whose fraction lies in any one interval follow each other at even distances.
    return sorted(range(count), key=lambda number: number * (5**0.5 - 1) / 2 % 1)
