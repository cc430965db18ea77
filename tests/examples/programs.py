"""The scripts of examples as processes of their own, and the spans that they export."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from tests.backends.processes import environment
from tests.backends.receivers import HttpBackend, attributes_of

__all__ = ("EXAMPLES", "Backend", "Span", "run", "widest")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ERROR = 2  # the code of a status


@dataclass(frozen=True)
class Span:
    """A span as it was exported."""

    name: str
    trace: bytes
    number: bytes
    parent: bytes
    links: frozenset[bytes]
    kind: int
    is_error: bool
    attributes: dict[str, Any]
    service: str


class Backend(HttpBackend):
    """A backend that keeps how spans hang together."""

    def __init__(self) -> None:
        super().__init__()
        self.tree: dict[bytes, Span] = {}

    @override
    def receive(self, request: Any) -> None:
        for part in getattr(request, "resource_spans", ()):
            service = attributes_of(part.resource)["service.name"]
            for span in (span for scoped in part.scope_spans for span in scoped.spans):
                links = frozenset(link.span_id for link in span.links)
                self.tree[span.span_id] = Span(
                    span.name,
                    span.trace_id,
                    span.span_id,
                    span.parent_span_id,
                    links,
                    span.kind,
                    span.status.code == ERROR,
                    attributes_of(span),
                    service,
                )
        super().receive(request)

    def named(self, start: str) -> list[Span]:
        """All spans whose names begin like this."""
        return [span for span in self.tree.values() if span.name.startswith(start)]

    def above(self, span: Span) -> Iterator[Span]:
        """The spans above one, the nearest first."""
        while span.parent in self.tree:
            span = self.tree[span.parent]
            yield span


def run(script: str, *arguments: str, folder: Path, backend: Backend | None = None, stop_after: str | None = None) -> str:
    """Run a script of the examples, with warnings as errors, and return what it prints; it must end well.

    Args:
        script: below `examples`.
        arguments: its own.
        folder: where it runs.
        backend: where telemetry goes.
        stop_after: how a line of its output ends after which it gets SIGTERM.
    """
    command = [sys.executable, "-u", "-W", "error", str(EXAMPLES / script), *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(backend), stdout=subprocess.PIPE, stderr=errors, text=True
        )
        killer = threading.Timer(50, process.kill)
        killer.start()
        with process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if stop_after and line.rstrip().endswith(stop_after):
                    process.terminate()
        killer.cancel()
        errors.seek(0)
        assert process.returncode == 0, f"exit code {process.returncode}\n{''.join(lines)}{errors.read()}"
    return "".join(lines)


def widest(text: str) -> int:
    """The number of columns that a text needs."""
    return max(map(len, text.splitlines()))
