"""The committed dashboards, and their queries as Grafana sends them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.backends.expected_panels import PANELS

__all__ = ("DASHBOARDS", "FILES", "INTEGRATIONS", "QUERIES", "Query", "filled", "panels")

INTEGRATIONS = Path(__file__).resolve().parents[2] / "integrations"
FILES = sorted((INTEGRATIONS / "grafana" / "dashboards").iterdir())
DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}


@dataclass(frozen=True)
class Query:
    """A query of a panel, called as the table of what is expected calls it."""

    name: str
    expression: str


def panels(board: str) -> list[Any]:
    """The panels of a dashboard, without rows."""
    return [panel for panel in DASHBOARDS[board]["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """All queries of all panels."""
    for board in DASHBOARDS:
        for panel in panels(board):
            for number, target in enumerate(panel["targets"]):
                name = f"{board}: {panel['title']}"
                letter = f"{name}: {'ABC'[number]}"
                yield Query(letter if letter in PANELS else name, target["expr"])


QUERIES = list(queries())


def filled(expression: str, service: str, seconds: float = 60) -> str:
    """A query as Grafana sends it, with everything chosen."""
    window = f"{round(seconds * 1000)}ms"
    values = {"__rate_interval": window, "__range": window, "service": service}
    return re.sub(r"\$([a-z_]+)", lambda variable: values.get(variable[1], ".+"), expression)
