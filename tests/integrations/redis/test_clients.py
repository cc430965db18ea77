"""Clients: that of the tier, those of others, of a cluster; and options that make no sense."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from otel_perfopt_redis import RedisTier
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from otel_perfopt.errors import ConfigurationError, TierError
from otel_perfopt.tiers import Change
from tests.integrations.redis.support import TIMEOUT, Server, Told, Wire, free_port, put, until, values

NewTier = Callable[..., RedisTier]
URL = "redis://localhost:1"


def check(tier: RedisTier, other: RedisTier) -> None:
    """Everything works, both ways."""
    told, others_told = Told(tier), Told(other)
    for one, two in ((tier, other), (other, tier)):
        put(one, b"a", b"b", value=b"loaded", tags=("tag",))
        put(one, b"c", replaces=True)
        assert values(two, b"a", b"b", b"c") == {b"a": b"loaded", b"b": b"loaded", b"c": b"value"}
        assert (two.expire([b"a"]), two.delete([b"b", b"c"])) == (True, True)
        assert set(values(one, b"a", b"b", b"c")) == {b"a"}
        one.invalidate_tag("tag")
        assert values(two, b"a") == {}
        one.clear()
        one.add_counts({"hits": 2})
    assert tier.add_counts({}) == {"hits": 4}
    assert other.delete([b"a", b"b", b"c"]) is False
    put(tier, b"last")
    assert other.usage().entries == tier.usage().entries == 1
    by_one, by_the_other = [Change(b"c"), Change(tag="tag"), Change()], [Change(b"a"), Change(b"b"), Change(b"c")]
    others_told.until(*by_one, *by_the_other)
    told.until(*by_the_other, *by_one, *by_the_other)


@pytest.fixture
def client(server: Server) -> Iterator[Callable[..., Any]]:
    """Makes clients."""
    made: list[Any] = []

    def new(**options: Any) -> Any:
        made.append(Redis(port=server.port, socket_timeout=TIMEOUT, **options))
        return made[-1]

    yield new
    for each in made:
        each.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_of_somebody_else(new_tier: NewTier, client: Callable[..., Any], protocol: int) -> None:
    """Of either protocol."""
    check(new_tier(client=client(protocol=protocol)), new_tier())


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_url_may_name_the_protocol(new_tier: NewTier, server: Server, namespace: str, protocol: int) -> None:
    """Nothing is different."""
    tier = RedisTier(f"{server.url}/0?protocol={protocol}", namespace=namespace, timeout=TIMEOUT)
    check(tier, new_tier())
    tier.close()


def test_a_database_of_a_url(server: Server, namespace: str, new_tier: NewTier) -> None:
    """Another one has other records."""
    tier, other = RedisTier(f"{server.url}/3", namespace=namespace, timeout=TIMEOUT), new_tier()
    put(tier, b"key")
    assert (values(tier, b"key"), values(other, b"key")) == ({b"key": b"value"}, {})
    tier.close()


def test_a_socket(own_server: Server, tmp_path: Path, namespace: str) -> None:
    """A URL may be a file."""
    path = tmp_path / "redis.sock"
    own_server.kill()
    own_server._options = ("--unixsocket", str(path))
    own_server.start()
    with RedisClosed(f"unix://{path}", namespace) as tier:
        put(tier, b"key")
        assert values(tier, b"key") == {b"key": b"value"}


class RedisClosed:
    """A tier that is closed at the end."""

    def __init__(self, url: str, namespace: str) -> None:
        self.tier = RedisTier(url, namespace=namespace, timeout=TIMEOUT)

    def __enter__(self) -> RedisTier:
        return self.tier

    def __exit__(self, *_: object) -> None:
        self.tier.close()


def test_a_password(own_server: Server, namespace: str) -> None:
    """A wrong one is an error that does not tell it, and nothing else is said before the right one."""
    own_server.admin.config_set("requirepass", "secret")
    own_server.admin.connection_pool.connection_kwargs["password"] = "secret"
    with RedisClosed(own_server.url.replace("//", "//:secret@"), namespace) as tier:
        put(tier, b"key")
        assert values(tier, b"key") == {b"key": b"value"}
    with pytest.raises(TierError) as caught:
        RedisTier(own_server.url.replace("//", "//:guess@"), namespace=namespace, timeout=TIMEOUT).mark()
    assert "guess" not in str(caught.value)


def test_a_client_of_somebody_else_is_left_alone(new_tier: NewTier, client: Callable[..., Any]) -> None:
    """Neither is it closed, nor are its connections taken from others."""
    shared = client()
    held = shared.connection_pool.get_connection()
    tier = new_tier(client=shared)
    put(tier, b"key")
    tier.close()
    held.send_command("PING")
    assert held.read_response() == b"PONG"
    shared.connection_pool.release(held)
    assert shared.ping()
    assert values(tier, b"key") == {b"key": b"value"}


def test_a_client_of_somebody_else_goes_back_in_time(new_tier: NewTier, own_server: Server) -> None:
    """It is noticed, however its connections are replaced."""
    shared = Redis(port=own_server.port, socket_timeout=TIMEOUT)
    tier = new_tier(client=shared)
    told = Told(tier)
    put(tier, b"key")
    own_server.admin.save()
    tier.delete([b"key"])
    own_server.restart()
    assert values(tier, b"key") == {}
    told.until(Change())
    tier.close()
    shared.close()


def test_a_client_whose_timeout_is_short(new_tier: NewTier, client: Callable[..., Any]) -> None:
    """Waiting for changes takes no longer than that."""
    shared = Redis(port=client().connection_pool.connection_kwargs["port"], socket_timeout=0.2)
    tier, other = new_tier(client=shared), new_tier()
    told = Told(tier)
    assert tier._listener._wait <= 0.1
    for number in range(3):
        other.delete([b"%d" % number])
    told.until(*(Change(b"%d" % number) for number in range(3)))
    tier.close()
    shared.close()


def test_a_client_with_retries_of_its_own(new_tier: NewTier, wire: Wire) -> None:
    """They are its own, and so are its errors."""
    pool = ConnectionPool(port=wire.port, socket_timeout=0.05, retry=Retry(NoBackoff(), 2))
    shared = Redis(connection_pool=pool)
    tier = new_tier(client=shared)
    put(tier, b"key")
    wire.cut()
    assert values(tier, b"key") == {b"key": b"value"}
    wire.is_silent = True
    with pytest.raises(TierError):
        tier.read([b"key"])
    wire.is_silent = False
    wire.cut()
    assert values(tier, b"key") == {b"key": b"value"}
    tier.close()
    shared.close()


# a cluster -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Server]:
    """A cluster of one."""
    bus = free_port()
    node = Server(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes", "--cluster-port", str(bus))
    node.start()
    node.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: node.admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok", pause=0.02)
    yield node
    node.kill()


@pytest.mark.slow
def test_a_cluster(new_tier: NewTier, cluster: Server) -> None:
    """Everything works; all keys of a namespace are in one slot."""
    clients = [RedisCluster(host="127.0.0.1", port=cluster.port, socket_timeout=TIMEOUT) for _ in range(2)]
    tier, other = (new_tier(client=client) for client in clients)
    check(tier, other)
    loads = new_tier(client=clients[0], single_flight="10m")
    loads.read([b"loads"])
    loads.release([b"loads"])
    assert new_tier(client=clients[1], single_flight="10m").read([b"loads"]).records == {}
    cluster.admin.script_flush()
    assert tier.delete([b"last"])
    slots = {cluster.admin.execute_command("CLUSTER", "KEYSLOT", key) for key in cluster.admin.scan_iter()}
    assert len(slots) == 1
    tier.close()
    other.close()
    for client in clients:
        client.close()


@pytest.mark.slow
def test_a_node_of_a_cluster_by_its_url(new_tier: NewTier, cluster: Server) -> None:
    """That works as long as the node has the slot."""
    check(new_tier(cluster), new_tier(cluster))


# options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": None}, r"give either url= or client="),
        ({"client": Redis()}, r"give either url= or client="),
        ({"url": "localhost:6379"}, r"url= is not that of a Redis: .*redis://"),
        ({"url": "redis://:secret@localhost:x"}, r"url= is not that of a Redis"),
        ({"url": "http://:secret@localhost"}, r"url= is not that of a Redis"),
        ({"url": "redis://localhost?decode_responses=yes"}, r"give decode_responses=False"),
        ({"url": None, "client": Redis(decode_responses=True)}, r"give decode_responses=False"),
        ({"namespace": ""}, r"namespace='' must be a text without braces"),
        ({"namespace": "a{b"}, r"namespace='a\{b' must be a text without braces"),
        ({"namespace": "a}b"}, r"must be a text without braces"),
        ({"namespace": None}, r"namespace=None must be a text"),
        ({"namespace": b"users"}, r"namespace=b'users' must be a text"),
        ({"namespace": "\ud800"}, r"namespace='\\ud800' must be a text"),
        ({"timeout": 0}, r"timeout=0 has no meaning"),
        ({"timeout": None}, r"timeout must be seconds"),
        ({"timeout": -1}, r"timeout=-1 must be"),
        ({"timeout": "soon"}, r"timeout='soon' is not a duration"),
        ({"max_ttl": 0}, r"max_ttl=0 has no meaning"),
        ({"max_ttl": None}, r"max_ttl must be seconds"),
        ({"max_ttl": 1e12}, r"max_ttl=1000000000000.0 must not be more than 100 years"),
        ({"single_flight": 0}, r"single_flight=0 has no meaning"),
        ({"single_flight": "1 week"}, r"single_flight='1 week' is not a duration"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    """The message names the option and the fix, and no password."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        RedisTier(**{"url": URL, "namespace": "users", **options})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nothing_is_opened_before_it_is_used() -> None:
    """A tier may be made where there is no Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        tier = RedisTier(f"redis://127.0.0.1:{listening.getsockname()[1]}", namespace="users")
        assert (tier.kind, tier.is_remote) == ("redis", True)
        with pytest.raises(BlockingIOError):
            listening.accept()
