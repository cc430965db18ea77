"""The pages of the examples name all there is, and nothing that is not there."""

import re

import pytest

from tests.examples.programs import EXAMPLES

LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("page", ["README.md", "shop/README.md", "worker/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = EXAMPLES / page
    links = LINK.findall(path.read_text("utf-8"))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_index_is_complete() -> None:
    links = {EXAMPLES / link for link in LINK.findall((EXAMPLES / "README.md").read_text("utf-8"))}
    assert links >= {*EXAMPLES.glob("*.py"), *(script.parent / "README.md" for script in EXAMPLES.glob("*/main.py"))}
