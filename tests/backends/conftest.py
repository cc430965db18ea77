"""Backends: some that take everything, and the real ones."""

from collections.abc import Iterator

import pytest

from tests.backends import jaeger as jaeger_program
from tests.backends import loki as loki_program
from tests.backends.jaeger import Jaeger
from tests.backends.loki import Loki
from tests.backends.receivers import GrpcBackend, HttpBackend


@pytest.fixture(params=["http/protobuf", "grpc"])
def backend(request: pytest.FixtureRequest) -> Iterator[HttpBackend | GrpcBackend]:
    """A backend that takes everything, for each protocol."""
    with HttpBackend() if request.param == "http/protobuf" else GrpcBackend() as found:
        yield found


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A real Jaeger for all tests, each of which exports under a service name of its own."""
    with jaeger_program.running(tmp_path_factory.mktemp("jaeger")) as found:
        yield found


@pytest.fixture(scope="session")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """A real Loki for all tests, each of which logs under a service name of its own."""
    with loki_program.running(tmp_path_factory.mktemp("loki")) as found:
        yield found
