"""A Loki of one's own, and what it tells about log records."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.backends.programs import program
from tests.backends.servers import Server, free_port, get_json, wait_for

SETTINGS = """\
auth_enabled: false
server: {{http_listen_address: 127.0.0.1, http_listen_port: {http}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc}}}
common:
  path_prefix: {folder}
  replication_factor: 1
  instance_addr: 127.0.0.1
  ring: {{kvstore: {{store: inmemory}}}}
  storage: {{filesystem: {{chunks_directory: {folder}/chunks, rules_directory: {folder}/rules}}}}
schema_config:
  configs: [{{from: "2024-01-01", store: tsdb, object_store: filesystem, schema: v13, index: {{prefix: index_, period: 24h}}}}]
ingester: {{lifecycler: {{min_ready_duration: 0s}}}}
frontend: {{scheduler_dns_lookup_period: 100ms}}  # it is not ready before its second look, by default after ten seconds
analytics: {{reporting_enabled: false}}
"""


@dataclass(frozen=True)
class Entry:
    """A log record as Loki tells it.

    Attributes:
        line: its line, which is the body.
        labels: its labels and structured metadata.
    """

    line: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Loki:
    """A Loki that runs.

    Attributes:
        url: where to ask it; `/otlp` below it takes log records.
    """

    url: str

    def entries(self, query: str, at_least: int = 1) -> list[Entry]:
        """Return what a LogQL query finds, once there are so many."""

        def ask() -> list[Entry] | None:
            streams = get_json(f"{self.url}/loki/api/v1/query_range", query=query, limit="1000")["data"]["result"]
            found = [Entry(value[1], stream["stream"]) for stream in streams for value in stream["values"]]
            return found if len(found) >= at_least else None

        return wait_for(ask)


@contextmanager
def running(folder: Path) -> Iterator[Loki]:
    """Run a Loki with its files in a folder."""
    ports = {"http": free_port(), "grpc": free_port()}
    settings = folder / "loki.yaml"
    settings.write_text(SETTINGS.format(folder=folder, **ports))
    url = f"http://127.0.0.1:{ports['http']}"
    with Server([program("loki"), f"-config.file={settings}"], ready=f"{url}/ready", folder=folder):
        yield Loki(url)
