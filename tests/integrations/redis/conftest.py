"""What the tests of the Redis tier share: servers, and tiers that are closed at the end."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from otel_perfopt_redis import RedisTier

from otel_perfopt import Cache
from tests.integrations.redis.support import PATIENT, PROGRAM, Calls, Server, Wire


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the servers of a failed test have logged."""
    report: Any = yield
    if report.failed:
        for server in {each for each in getattr(item, "funcargs", {}).values() if isinstance(each, Server)}:
            report.sections.append(("redis-server", server.log.read_text()[-4000:]))
    return report  # type: ignore[no-any-return]


def _started(folder: Path, *options: str) -> Server:
    if PROGRAM is None:
        pytest.skip("needs a redis-server: apt-get install redis-server")
    server = Server(folder, *options)
    server.start()
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests of a module, which leave it as they found it."""
    server = _started(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may do with as it likes."""
    server = _started(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A way to the server of the module."""
    wire = Wire(server.port)
    yield wire
    wire.close()


@pytest.fixture
def namespace() -> str:
    """A namespace that nobody else uses."""
    return uuid.uuid4().hex[:12]


@pytest.fixture
def new_tier(request: pytest.FixtureRequest, namespace: str) -> Iterator[Callable[..., RedisTier]]:
    """Makes tiers of one namespace; with options of the tier, and the server or wire that is asked."""
    made: list[RedisTier] = []

    def new(at: Server | Wire | None = None, **options: Any) -> RedisTier:
        if at is None and "client" not in options:
            at = request.getfixturevalue("own_server" if "own_server" in request.fixturenames else "server")
        url = None if at is None else at.url
        made.append(RedisTier(url, **{"namespace": namespace, "timeout": PATIENT, **options}))
        return made[-1]

    yield new
    for tier in made:
        try:
            tier.close()
        except Exception:  # the server may be gone
            pass


@pytest.fixture
def new_cache(new_tier: Callable[..., RedisTier]) -> Callable[..., Any]:
    """Makes caches of one namespace; each is as good as another process."""

    def new(at: Server | Wire | None = None, *, timeout: float | None = None, single_flight: Any = None, **options: Any) -> Any:
        given = {} if timeout is None else {"timeout": timeout}
        tier = new_tier(at, single_flight=single_flight, **given)
        return Cache("redis", **{"tiers": [tier], "ttl": None, **options})

    return new


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest) -> Calls:
    """Calls of either kind."""
    return Calls(request.param)
