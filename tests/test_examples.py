"""Every example in the docstrings and on the documentation's pages runs, and shows what it says.

On a page (`README.md`, `docs/**/*.md`), blocks fenced as `python` are run from top to bottom in one namespace, and
blocks fenced as `pycon` are doctests in the same namespace. A block that cannot run here (it needs a server, say) has
the line `<!-- not run: REASON -->` above its fence; it is only compiled.

Each page and each module is tried by a Python process of its own, in an empty folder, with warnings as errors: an
example may configure OpenTelemetry for the whole process.
"""

import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import otel_perfopt

ROOT = Path(__file__).resolve().parent.parent
PAGES = [page for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if page.is_file()]
PROMPT = re.compile(r"^\s*>>> ", re.MULTILINE)
FENCE = re.compile(
    r"""(?P<skip>^[ ]*<!--\ not\ run:\ [^\n]+\ -->\n\s*)?   # why it is not run
    ^(?P<indent>[ ]*)```(?P<kind>python|pycon)[ ]*\n      # only these two words, and nothing behind them
    (?P<code>.*?)^(?P=indent)```[ ]*$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int  # of its first line of code, from 0
    code: str
    is_doctest: bool
    is_run: bool


def blocks(page: str) -> Iterator[Block]:
    """The examples in the text of a page."""
    for match in FENCE.finditer(page):
        code = textwrap.dedent(match["code"])
        is_doctest = match["kind"] == "pycon" or code.lstrip().startswith(">>> ")
        yield Block(page.count("\n", 0, match.start("code")), code, is_doctest, match["skip"] is None)


def odd_fences(page: str) -> list[str]:
    """The opening fences of Python blocks that `blocks` does not understand, and nobody would run."""
    words: list[str] = re.findall(r"^[ ]*`{3,}[ ]*(py.*)$", page, re.MULTILINE)
    return [word for word in words if word not in {"python", "pycon"}]


def modules_with_examples() -> list[str]:
    """The names of the package's modules with a `>>>` in their source."""
    names = ["otel_perfopt", *(m.name for m in pkgutil.walk_packages(otel_perfopt.__path__, "otel_perfopt."))]
    return [name for name in names if PROMPT.search(source_of(name))]


def source_of(module: str) -> str:
    """A module's source, without importing it."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).read_text("utf-8") if spec and spec.origin and spec.origin.endswith(".py") else ""


def try_in_a_process(what: str, cwd: Path) -> None:
    """Run this file as a script for one page or module; its output is the message of a failure."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NO_COLOR": "1"}
    command = [sys.executable, "-P", "-W", "error", __file__, what]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=55, check=False)
    if done.returncode != 0:
        pytest.fail(f"{what}\n{done.stdout}{done.stderr}", pytrace=False)


@pytest.mark.parametrize("module", modules_with_examples())
def test_docstrings(module: str, tmp_path: Path) -> None:
    """The examples in a module's docstrings are right."""
    try_in_a_process(module, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages(page: Path, tmp_path: Path) -> None:
    """The examples on a page of the documentation are right, from top to bottom."""
    assert odd_fences(page.read_text("utf-8")) == []
    try_in_a_process(str(page), tmp_path)


def test_blocks_of_a_page() -> None:
    """Blocks are found with their lines, also indented; other languages are left alone, misspelt ones reported."""
    page = (
        "# T\n```python\na = 1\n```\n- x\n  ```pycon\n  >>> a\n  1\n  ```\n"
        "<!-- not run: needs Redis -->\n```python\nb\n```\n```sh\nls\n```\n"
    )
    assert odd_fences(page + "```py\n```\n") == ["py"]
    assert list(blocks(page)) == [
        Block(2, "a = 1\n", is_doctest=False, is_run=True),
        Block(6, ">>> a\n1\n", is_doctest=True, is_run=True),
        Block(11, "b\n", is_doctest=False, is_run=False),
    ]


def run_module(name: str) -> int:
    """Try the docstrings of a module; returns the number of failures."""
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test)
    expected = len(PROMPT.findall(source_of(name)))
    if runner.tries != expected:
        print(f"{name}: {expected} examples in the source, of which {runner.tries} could be found")
    return runner.failures + abs(runner.tries - expected)


def run_page(path: Path) -> int:
    """Try the blocks of a page; returns the number of doctests that failed, and lets errors of other blocks through."""
    module = types.ModuleType("__main__")  # a real module: pickle, dataclasses and type hints look names up in it
    sys.modules["__main__"] = module
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for block in blocks(path.read_text("utf-8")):
        if block.is_doctest:
            test = doctest.DocTestParser().get_doctest(block.code, {}, path.name, str(path), block.line)
            test.globs = vars(module)
            if block.is_run:
                runner.run(test, clear_globs=False)
        else:
            code: Any = compile("\n" * block.line + block.code, str(path), "exec", dont_inherit=True)
            if block.is_run:
                exec(code, vars(module))
    return runner.failures


if __name__ == "__main__":
    this = sys.modules["__main__"]  # kept alive while a page takes its place
    target = sys.argv[1]
    sys.exit(min(1, run_page(Path(target)) if target.endswith(".md") else run_module(target)))
