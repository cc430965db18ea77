"""The lines of the integrations' READMEs do what they say, word for word but for addresses and what needs Docker or a browser."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.jaeger import Jaeger
from tests.backends.repositories import make_repository

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = ("docker ", "xdg-open ")


def commands(page: Path) -> list[str]:
    """The lines of the first console block of a page, without the prompts."""
    block = re.search(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    return [line.removeprefix("$ ") for line in block[1].splitlines()]


def follow(lines: list[str], replaced: dict[str, str], folder: Path) -> str:
    """Run the lines in one shell, with an `otel-perfopt` that is this one, and return what they print."""
    away = {"pip install uv && uv run otel-perfopt": "otel_perfopt", **replaced}
    script = "\n".join(line for line in lines if not line.startswith(ELSEWHERE))
    for old, new in away.items():
        assert old in script
        script = script.replace(old, new)
    main = "from otel_perfopt.cli import main; raise SystemExit(main())"
    start = f"set -eu\notel_perfopt() {{ '{sys.executable}' -c '{main}' \"$@\"; }}\n"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(["bash", "-c", start + script], cwd=folder, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", sorted(ROOT.glob("integrations/*/README.md")), ids=lambda page: page.parent.name)
def test_five_lines_are_enough(page: Path) -> None:
    """From zero to seeing data."""
    assert len(commands(page)) <= 5


def test_jaeger(jaeger: Jaeger, tmp_path: Path) -> None:
    """Whoever follows the page finds the service in Jaeger."""
    addresses = {"http://localhost:4317": jaeger.otlp_grpc, "http://localhost:16686": jaeger.url}
    lines = commands(ROOT / "integrations" / "jaeger" / "README.md")
    printed = follow(lines, addresses, make_repository(tmp_path / "repository"))
    assert "otel-perfopt-demo" in json.loads(printed.splitlines()[-1])["data"]
    (link,) = [line for line in lines if line.startswith("xdg-open")]
    service, operation = re.search(r"service=([\w-]+)&operation=(\w+)", link).groups()  # type: ignore[union-attr]
    assert operation in {span.name for span in jaeger.spans(service)}
