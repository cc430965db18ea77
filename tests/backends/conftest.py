"""Backends that take everything."""

from collections.abc import Iterator

import pytest

from tests.backends.receivers import GrpcBackend, HttpBackend


@pytest.fixture(params=["http/protobuf", "grpc"])
def backend(request: pytest.FixtureRequest) -> Iterator[HttpBackend | GrpcBackend]:
    """A backend that takes everything, for each protocol."""
    with HttpBackend() if request.param == "http/protobuf" else GrpcBackend() as found:
        yield found
