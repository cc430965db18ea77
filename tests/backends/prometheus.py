"""A Prometheus of a test, what it is asked, and a process that tells it everything."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.backends.processes import environment
from tests.backends.programs import program
from tests.backends.servers import Server, free_port, get_json, wait_for

Labels = frozenset[tuple[str, str]]

EVERYTHING = Path(__file__).parent / "everything.py"
FEATURES = "exemplar-storage,created-timestamp-zero-ingestion"
ROUND = 'perfopt_operation_duration_seconds_count{perfopt_operation_name="round"}'


class Sample(NamedTuple):
    """A value, and its time in seconds since 1970."""

    time: float
    value: float


class Prometheus:
    """A Prometheus that runs.

    Attributes:
        url: where it answers.
        otlp: where it takes metrics over HTTP.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.otlp = f"{url}/api/v1/otlp/v1/metrics"

    def ask(self, path: str, **parameters: str) -> Any:
        """Return what the API answers; a warning about the question is an error."""
        answer = get_json(f"{self.url}/api/v1/{path}", **parameters)
        assert answer["status"] == "success"
        assert not answer.get("warnings"), (parameters, answer["warnings"])
        return answer["data"]

    def query(self, expression: str, at: float | None = None) -> dict[Labels, float]:
        """Return the values of an expression, at a time or now."""
        data = self.ask("query", query=expression, **({} if at is None else {"time": f"{at:.3f}"}))
        assert data["resultType"] == "vector", expression
        return {frozenset(row["metric"].items()): float(row["value"][1]) for row in data["result"]}

    def samples(self, selector: str) -> dict[Labels, list[Sample]]:
        """Return all samples of the chosen series."""
        rows = self.ask("query", query=f"{selector}[1h]")["result"]
        return {frozenset(row["metric"].items()): [Sample(time, float(value)) for time, value in row["values"]] for row in rows}

    def arrival(self, rounds: int, job: str = "everything") -> float:
        """Return when the figures of so many rounds were complete here."""

        def find() -> list[Sample]:
            selector = ROUND.replace("{", f'{{job="{job}", ')
            found = [sample for samples in self.samples(selector).values() for sample in samples if sample.value == rounds]
            return found[1:]  # some figures of the first may have been read before the round ended

        return wait_for(find)[0].time


@contextmanager
def running(folder: Path, config: Mapping[str, Any] | None = None) -> Iterator[Prometheus]:
    """Run a Prometheus in a folder, with a configuration."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "prometheus.yml").write_text(json.dumps(config or {}))  # JSON is YAML
    command = [
        program("prometheus"),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
        "--web.enable-otlp-receiver",
        f"--enable-feature={FEATURES}",
        "--scrape.discovery-reload-interval=100ms",
    ]
    with Server(command, ready=f"http://{address}/-/ready", folder=folder):
        yield Prometheus(f"http://{address}")


class Everything:
    """The process of `everything`, while the block runs."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = {
            "OTEL_SERVICE_NAME": "everything",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_METRIC_EXPORT_INTERVAL": "250",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            **variables,
        }

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", EVERYTHING],
            env=environment(variables=self._variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=20)
        finally:
            self._process.kill()
            self._process.wait()

    def work(self) -> Any:
        """Let it do everything once more, and return its report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
