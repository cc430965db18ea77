"""What may happen to a Redis: it loses everything or some of it, goes back in time, becomes another one, or is full."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from otel_perfopt_redis import RedisTier, writer

from otel_perfopt.errors import TierError
from otel_perfopt.tiers import Change
from tests.integrations.redis.support import PATIENT, Server, Told, Wire, put, record, until, values

NewTier = Callable[..., RedisTier]


def works(tier: RedisTier, *others: RedisTier) -> None:
    """All of them can write, find and delete."""
    for each in (tier, *others):
        put(each, b"works", value=b"yes", replaces=True)
        assert all(values(other, b"works") == {b"works": b"yes"} for other in (tier, *others))
        assert each.delete([b"works"])
        assert all(values(other, b"works") == {} for other in (tier, *others))


@pytest.mark.parametrize("is_noticed", ["by a plain command", "by a script", "by a write", "by a deletion"])
def test_everything_is_lost(new_tier: NewTier, own_server: Server, is_noticed: str) -> None:
    """What is written afterwards is kept, what was made before is not, and all are told that everything may have changed."""
    tier, other = new_tier(), new_tier()
    told = Told(other)
    put(tier, b"key")
    mark = other.mark()
    own_server.admin.flushall()
    if is_noticed == "by a script":
        tier._connection._told = (0.0, 0.0)
    if is_noticed == "by a deletion":
        assert not tier.delete([b"key"])
    if is_noticed == "by a write":
        tier.write({b"key": record()}, mark)
        tier.flush()
    assert values(tier, b"key") == {}
    other.write({b"key": record()}, mark)
    assert values(other, b"key") == {}
    told.until(Change())
    works(tier, other)


@pytest.mark.parametrize("which", ["head", "facts", "recent", "changes"])
@pytest.mark.parametrize("change", ["delete", "tag", "clear"])
def test_one_of_its_own_keys_is_lost(new_tier: NewTier, own_server: Server, change: str, which: str) -> None:
    """A Redis that needs room forgets what it likes: nothing that was invalidated comes back."""
    tier, other = new_tier(), new_tier()
    told = Told(other)
    put(tier, b"key", b"another", tags=("tag",))
    early = other.mark()
    {"delete": lambda: tier.delete([b"key"]), "tag": lambda: tier.invalidate_tag("tag"), "clear": tier.clear}[change]()
    name = tier._keys[["head", "facts", "recent", "changes"].index(which)]
    assert own_server.admin.delete(name) == 1
    for _ in range(2):
        assert b"key" not in values(tier, b"key")
        other.write({b"key": record(b"early", "tag")}, early)
        other.flush()
        assert b"key" not in values(other, b"key")
    works(tier, other)
    tier.delete([b"last"])
    until(lambda: Change() in told.changes or Change(b"last") in told.changes)


@pytest.mark.slow
def test_eviction(new_tier: NewTier, own_server: Server) -> None:
    """A Redis with too little memory throws away keys of all kinds; whatever that is, nothing invalidated comes back."""
    own_server.admin.config_set("maxmemory-policy", "allkeys-random")
    tier, other = new_tier(), new_tier()
    own_server.admin.config_set("maxmemory", own_server.admin.info("memory")["used_memory"] + 600_000)
    lives = set()
    for turn in range(80):
        try:
            early = other.mark()
            put(tier, *(b"%d/%d" % (turn, number) for number in range(100)), value=b"x" * 1000, tags=(f"tag {turn % 3}",))
            lives.add(tier.mark().born)
            tier.delete([b"key", b"%d/0" % turn])
            tier.invalidate_tag(f"tag {turn % 3}")
            put(tier, *(b"fill %d/%d" % (turn, number) for number in range(100)), value=b"x" * 1000)
            assert values(tier, *(b"%d/%d" % (turn, number) for number in range(0, 100, 9))) == {}
            other.write({b"key": record(b"early"), b"tagged": record(b"early", f"tag {turn % 3}")}, early)
            other.flush()
            assert values(other, b"key", b"tagged") == {}
        except TierError as error:
            assert "again and again" in str(error), "that may be, if it throws away what it was just given"  # noqa: PT017
    assert own_server.admin.info("stats")["evicted_keys"] > 1000
    assert len(lives) > 1, "it never threw away what says which records are valid"
    own_server.admin.config_set("maxmemory", 0)
    works(tier, other)


def test_scripts_are_lost(new_tier: NewTier, server: Server) -> None:
    """They are told again, whatever needs them."""
    tier = new_tier(single_flight="1s")
    steps: list[Callable[[], Any]] = [
        lambda: put(tier, b"key"),
        lambda: values(tier, b"key"),
        lambda: tier.expire([b"key"]),
        lambda: tier.delete([b"key"]),
        lambda: tier.invalidate_tag("tag"),
        tier.clear,
        lambda: tier.release([b"key"]),
    ]
    for step in steps:
        server.admin.script_flush()
        step()
    works(tier)


# restarts ------------------------------------------------------------------------------------------------------


def test_it_comes_back_empty(new_tier: NewTier, own_server: Server) -> None:
    """Everything goes on."""
    tier, other = new_tier(), new_tier()
    told = Told(other)
    put(tier, b"key")
    own_server.restart(empty=True)
    assert values(tier, b"key") == {}
    told.until(Change())
    works(tier, other)


@pytest.mark.parametrize("change", ["delete", "tag", "clear", "set"])
@pytest.mark.parametrize(
    ("first", "tells"),
    [("itself", True), ("another", True), ("a newcomer", True), ("itself", False)],
    ids=["itself", "another", "a newcomer", "itself, of one that does not tell who it is"],
)
def test_bug_it_goes_back_in_time(new_tier: NewTier, own_server: Server, first: str, tells: bool, change: str) -> None:
    """What was invalidated after it was saved does not come back, whoever asks first, as soon as somebody may know better."""
    if not tells:
        own_server.admin.execute_command("ACL SETUSER default -info")
    tier, other = new_tier(), new_tier()
    told = Told(other)
    put(tier, b"key", b"another", tags=("tag",))
    tier.mark()
    other.mark()
    own_server.admin.save()
    if change == "set":
        put(tier, b"key", value=b"new", replaces=True)
    else:
        {"delete": lambda: tier.delete([b"key"]), "tag": lambda: tier.invalidate_tag("tag"), "clear": tier.clear}[change]()
    own_server.kill()
    own_server.start()
    if not tells:
        own_server.admin.execute_command("ACL SETUSER default -info")
    asks = {"itself": tier, "another": other, "a newcomer": new_tier()}[first]
    for each in (asks, tier, other):
        assert values(each, b"key") == {}
    told.until(Change())
    works(tier, other)


def test_one_who_has_deleted_something_before_a_restart_is_not_told_of_it_as_news(new_tier: NewTier, own_server: Server) -> None:
    """A clean restart, with everything saved: nothing of it is trusted, because nobody can know."""
    tier = new_tier()
    put(tier, b"key")
    own_server.admin.save()
    own_server.restart()
    assert values(tier, b"key") == {}
    works(tier, new_tier())


def test_two_users_of_whom_one_may_not_ask_who_it_is(new_tier: NewTier, own_server: Server) -> None:
    """Neither takes the other's Redis for another one."""
    own_server.admin.execute_command("ACL SETUSER poor on nopass ~* +@all -info")
    poor = RedisTier(own_server.url.replace("//", "//poor:x@"), namespace=new_tier().namespace, timeout=PATIENT)
    rich = new_tier()
    put(rich, b"key")
    for tier in (poor, rich, poor, rich):
        tier.close()
        assert values(tier, b"key") == {b"key": b"value"}
    poor.close()


def test_another_server_takes_over(new_tier: NewTier, own_server: Server, tmp_path: Any) -> None:
    """A replica has most of what the first one had; what it may lack was invalidated."""
    folder = tmp_path / "replica"
    folder.mkdir()
    replica = Server(folder)
    replica.start()
    wire = Wire(own_server.port)
    try:
        tier = new_tier(wire)
        put(tier, b"key", b"kept")
        own_server.admin.config_set("repl-diskless-sync-delay", 0)
        replica.admin.replicaof("127.0.0.1", own_server.port)
        until(lambda: replica.admin.info("replication").get("master_link_status") == "up" and replica.admin.dbsize() > 0)
        replica.admin.replicaof("NO", "ONE")
        tier.delete([b"key"])  # which the replica does not hear of
        wire._server = replica.port
        wire.cut()
        assert values(tier, b"key", b"kept") == {}
        works(tier, new_tier(replica))
    finally:
        wire.close()
        replica.kill()


# full ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_server(own_server: Server) -> Server:
    """A server that has no room for more, and throws nothing away."""
    own_server.admin.config_set("maxmemory-policy", "noeviction")
    return own_server


@pytest.mark.parametrize("has_life", [True, False], ids=["in use", "new"])
def test_it_is_full(new_tier: NewTier, full_server: Server, has_life: bool) -> None:
    """What was loaded is not kept, what was set is told as lost; deletes, tags and clears work, and so does reading."""
    tier = new_tier()
    lost: list[tuple[bytes, ...]] = []
    tier.on_loss = lambda keys, _: lost.append(tuple(keys))
    if has_life:
        put(tier, *(b"%d" % number for number in range(10)), tags=("tag",))
    full_server.admin.config_set("maxmemory", 1)
    for replaces in (False, True):
        tier.write({b"0": record(b"new")}, tier.mark(), replaces=replaces)
        with pytest.raises(TierError, match="used memory"):
            tier.flush()
    assert [keys for keys in lost if keys] == [(b"0",)]
    assert tier.delete([b"1"]) is has_life
    assert tier.expire([b"2"]) is has_life
    assert len(values(tier, b"1", b"2", b"3")) == (2 if has_life else 0)
    tier.invalidate_tag("tag")
    assert values(tier, b"2", b"3") == {}
    tier.clear()
    full_server.admin.config_set("maxmemory", 0)
    works(tier, new_tier())


def test_a_lease_in_a_full_redis(new_tier: NewTier, full_server: Server) -> None:
    """There is no room for it; everybody loads."""
    tier, other = new_tier(single_flight="20s"), new_tier(single_flight="20s")
    tier.mark()
    other.mark()
    full_server.admin.config_set("maxmemory", 1)
    begin = time.monotonic()
    assert values(tier, b"key") == values(other, b"key") == {}
    assert time.monotonic() - begin < 10


def test_what_cannot_be_written_at_all(new_tier: NewTier, own_server: Server) -> None:
    """A Redis that cannot save refuses all changes, and says so; it can be read."""
    tier = new_tier()
    put(tier, b"key")
    own_server.admin.config_set("min-replicas-to-write", 1)
    assert values(tier, b"key") == {b"key": b"value"}
    for change in (lambda: tier.delete([b"key"]), lambda: tier.invalidate_tag("tag"), tier.clear, lambda: put(tier, b"key")):
        with pytest.raises(TierError, match="NOREPLICAS"):
            change()
    own_server.admin.config_set("min-replicas-to-write", 0)
    works(tier)


# away ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "closed", "silent", "paused", "slow"])
def test_it_does_not_answer(new_tier: NewTier, server: Server, wire: Wire, how: str) -> None:
    """Each call fails with a TierError in time, and works again when Redis does."""
    tier = new_tier(wire, timeout=0.05)
    told = Told(tier)
    tier.mark()
    calls: list[Callable[[], object]] = [
        lambda: tier.read([b"key"]),
        tier.mark,
        lambda: tier.delete([b"key"]),
        lambda: tier.expire([b"key"]),
        lambda: tier.invalidate_tag("tag"),
        tier.clear,
        lambda: tier.add_counts({"hits": 1}),
        tier.usage,
    ]
    if how == "refused":
        wire._server = 1
        wire.cut()
    elif how == "closed":
        wire.is_closed = True
        wire.cut()
    elif how == "silent":
        wire.is_silent = True
    elif how == "paused":
        server.pause()
    else:
        wire.delay = 0.3
    try:
        for call in calls:
            begin = time.monotonic()
            with pytest.raises(TierError, match="Redis: "):
                call()
            assert time.monotonic() - begin < 2, "it is a hundredth of that"
    finally:
        wire._server, wire.is_closed, wire.is_silent, wire.delay = server.port, False, False, 0.0
        server.resume()
    wire.cut()
    other = new_tier()
    until(lambda: _reads(tier), pause=0.01)
    other.delete([b"later"])
    told.until(Change(b"later"))


def _reads(tier: RedisTier) -> bool:
    try:
        tier.read([b"key"])
    except TierError:
        return False
    return True


@pytest.mark.parametrize(
    "answer",
    [
        b"-ERR whatever\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"-BUSY Redis is busy running a script\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=lambda answer: answer.split()[0].decode(),
)
def test_it_answers_with_errors(new_tier: NewTier, wire: Wire, answer: bytes) -> None:
    """They are TierErrors, for reads and for changes; afterwards everything works."""
    tier = new_tier(wire)
    put(tier, b"key")
    wire.answer = answer
    calls: list[Callable[[], object]] = [lambda: tier.read([b"key"]), lambda: tier.delete([b"key"]), lambda: put(tier, b"key")]
    for call in calls:
        with pytest.raises(TierError, match="Redis: "):
            call()
    wire.answer = b""
    works(tier)


def test_what_was_set_and_could_not_be_written_is_told(new_tier: NewTier, wire: Wire) -> None:
    """All of it, in one go: nothing waits for ever, and nothing comes later."""
    tier = new_tier(wire, timeout=0.05)
    lost: list[bytes] = []
    tier.on_loss = lambda keys, _: lost.extend(keys)
    mark = tier.mark()
    wire.is_silent = True
    tier._writer._is_asked = True  # nobody writes behind
    tier.write({b"%d" % number: record() for number in range(1000)}, mark, replaces=True)
    tier.write({b"loaded": record()}, mark)
    with pytest.raises(TierError):
        tier.flush()
    assert sorted(lost) == sorted(b"%d" % number for number in range(1000))
    assert not tier._writer._waiting
    assert tier._writer._size == 0


def test_too_many_are_waiting(new_tier: NewTier, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is too slow for what is written: the rest is refused."""
    monkeypatch.setattr(writer, "MANY", 100)
    monkeypatch.setattr(writer, "LARGE", 1000)
    tier = new_tier(wire)
    mark = tier.mark()
    tier._writer._is_asked = True  # nobody writes behind
    with pytest.raises(TierError, match="100 records wait to be written"):
        tier.write({b"%d" % number: record(b"") for number in range(101)}, mark)
    tier.flush()
    assert len(tier.read([b"%d" % number for number in range(101)]).records) == 100
    with pytest.raises(TierError, match="10 records wait to be written"):
        tier.write({b"%d" % number: record(bytes(100)) for number in range(100)}, mark)
    tier.delete([b"%d" % number for number in range(10)])
    assert tier._writer._size == 0
