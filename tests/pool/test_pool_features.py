"""Options of pools: what they do, and what is said of those that cannot work."""

import inspect
import re
from typing import Any

import pytest

from otel_perfopt.errors import ConfigurationError, PoolFull, PoolTimeout
from otel_perfopt.pool import AsyncResourcePool, ResourcePool
from otel_perfopt.unset import UNSET
from tests.pool.support import PATIENCE, ThreadWorld, World, raising


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": -1}, "min_size=-1 must be a whole number, 0 or more"),
        ({"min_size": 1.5}, "min_size=1.5 must be a whole number, 0 or more"),
        ({"max_size": 0}, "max_size=0 must be a whole number, 1 or more"),
        ({"max_size": True}, "max_size=True must be a whole number, 1 or more"),
        ({"min_size": 3, "max_size": 2}, "max_size=2 is below min_size=3; raise it, or lower min_size"),
        ({"max_waiting": -1}, "max_waiting=-1 must be a whole number, 0 or more"),
        ({"idle_order": "random"}, "idle_order='random' must be 'lifo' or 'fifo'"),
        ({"semconv": "http"}, "semconv='http' must be 'perfopt' or 'db'"),
        ({"validate": 1}, "validate=1 must be callable with a resource, or None"),
        ({"reset": "x"}, "reset='x' must be callable with a resource, or None"),
        ({"dispose": ()}, "dispose=() must be callable with a resource, or None"),
        ({"acquire_timeout": -1}, "acquire_timeout=-1"),
        ({"idle_timeout": 0}, "idle_timeout=0"),
        ({"max_lifetime": "soon"}, "max_lifetime='soon'"),
        ({"leak_after": object}, "leak_after must be seconds"),
        ({"name": " "}, "name=' ': a pool needs a name"),
        ({"factory": 1}, "factory=1 must be callable without arguments, and return a resource"),
    ],
)
def test_options_that_cannot_work(world: World, options: dict[str, Any], message: str) -> None:
    """The message has the option, its value and what is allowed."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        world.pool(**options)


def test_coroutine_functions_in_a_pool_for_threads(threads: ThreadWorld) -> None:
    """They are refused at once, and what turns out to be awaitable later is, too."""

    async def make() -> None:
        """Do nothing."""

    for option in ("factory", "validate", "reset", "dispose"):
        with pytest.raises(TypeError, match=f"{option}=.* is a coroutine function; use AsyncResourcePool"):
            threads.pool(**{option: make})


@pytest.mark.parametrize("timeout", [-1, "soon", object()])
def test_timeouts_that_cannot_work(world: World, timeout: Any) -> None:
    """The same for those of a call; nobody stays in line."""
    pool = world.filled()
    with world.borrowed(pool):
        for call in (pool.acquire, pool.close):
            with pytest.raises(ConfigurationError, match="timeout"):
                world.do(call, timeout=timeout)
    assert (pool.stats().waiting, pool.is_closed) == (0, False)


def test_resize_that_cannot_work(world: World) -> None:
    """Nor can the size be less than the floor."""
    pool = world.pool(min_size=2, max_size=3)
    with pytest.raises(ConfigurationError, match="max_size=1 is below min_size=2"):
        world.call(pool.resize, 1)
    assert pool.max_size == 3


def test_both_kinds_have_the_same_names_and_parameters() -> None:
    """Whoever knows one knows the other."""

    def public(kind: type[Any]) -> dict[str, Any]:
        members = {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}
        return {
            name: [
                (parameter.name, parameter.kind, parameter.default) for parameter in inspect.signature(member).parameters.values()
            ]
            if callable(member)
            else None
            for name, member in {**members, "__init__": kind.__init__}.items()
        }

    assert public(ResourcePool) == public(AsyncResourcePool)
    for name in ("lease", "acquire", "open", "close", "release", "destroy", "resize", "drain", "stats"):
        assert getattr(ResourcePool, name).__doc__
        assert getattr(AsyncResourcePool, name).__doc__


def test_nothing_is_created_before_the_first_use(world: World) -> None:
    """And then the floor at once."""
    pool = world.pool(min_size=3, max_size=5)
    world.settle()
    assert (world.factory.calls, repr(pool)) == (
        0,
        f"<{world.kind.__name__} 'things': 0 in use, 0 idle, 0 waiting, max_size=5>",
    )
    caller = world.served(world.lease(pool))
    world.until(lambda: pool.stats().available == 2)
    assert world.leave(caller) is None
    assert world.close(pool)
    assert repr(pool) == f"<{world.kind.__name__} 'things': closed, 0 in use, 0 idle, 0 waiting, max_size=5>"


@pytest.mark.parametrize("wait", [True, False])
def test_open(world: World, wait: bool) -> None:
    """The first resources are there when it returns, or are on their way."""
    world.factory.hold()
    pool = world.pool(min_size=2, max_size=3)
    opening = world.start(pool.open, wait=wait)
    world.until(lambda: world.factory.held == 2)
    if not wait:
        world.until(opening.done)
    assert opening.done() is not wait
    world.factory.let_go()
    world.until(opening.done)
    opening.result()
    world.until(lambda: pool.stats().available == 2)
    world.do(pool.open)


def test_open_when_the_factory_fails_or_hangs(world: World) -> None:
    """The factory's error at once as long as nothing ever worked; what hangs is bounded by the timeout."""
    world.factory.does = raising(OSError("no such host"))
    with pytest.raises(OSError, match="no such host"):
        world.do(world.pool(min_size=1).open)
    world.factory.hold()
    pool = world.pool(min_size=1)
    opening = world.start(pool.open, timeout=PATIENCE)
    world.until(lambda: world.factory.held == 1)
    world.in_time(opening.done, step=PATIENCE)
    with pytest.raises(PoolTimeout, match="1 being created"):
        opening.result()
    world.factory.does = world.make


def test_context_manager(world: World) -> None:
    """The floor is created at its beginning, and everything is closed at its end, whatever happens inside."""
    pool = world.pool(min_size=1)

    def use() -> None:
        with pool as same:
            assert same is pool
            with pool.lease():
                raise KeyError("mine")

    async def use_async() -> None:
        async with pool as same:
            assert same is pool
            async with pool.lease():
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        world.do(use if isinstance(world, ThreadWorld) else use_async)
    assert pool.is_closed
    assert [thing.ends for thing in world.things] == [1]


@pytest.mark.parametrize(("idle_order", "expected"), [("lifo", [2, 2, 2]), ("fifo", [0, 1, 2])])
def test_idle_order(world: World, idle_order: str, expected: list[int]) -> None:
    """Lifo takes the same one again and again, so that others can go; fifo takes turns."""
    pool = world.filled(max_size=3, idle_order=idle_order)
    order = [slot.find().number for slot in pool._core.idle]
    taken = []
    for _ in range(3):
        thing = world.do(pool.acquire)
        taken.append(order.index(thing.number))
        world.call(pool.release, thing)
    assert taken == expected


def test_idle_timeout(world: World) -> None:
    """What nobody needs goes after its time, and what is used again and again stays."""
    pool = world.filled(min_size=1, max_size=3, idle_timeout="1m")
    for _ in range(6):
        world.clock.advance(15)
        world.settle()
        world.call(pool.release, world.do(pool.acquire))
    world.until(lambda: pool.stats().destroyed == {"idle": 2})
    world.clock.advance(10_000)
    world.settle()
    assert (pool.stats().available, pool.stats().destroyed) == (1, {"idle": 2})


def test_max_lifetime(world: World) -> None:
    """A resource lives at most so long, up to a tenth less, and not all of a pool end together."""
    pool = world.filled(max_size=20, max_lifetime=1000, idle_timeout=None)
    ends = sorted(slot.expires - world.clock() for slot in pool._core.slots.values())
    assert 899 <= ends[0] <= ends[-1] <= 1000
    assert len(set(ends)) > 10
    world.clock.advance(899)
    world.settle()
    assert pool.stats().destroyed == {}
    world.in_time(lambda: pool.stats().destroyed == {"lifetime": 20}, within=200, step=20)
    assert pool.stats().available == 0


def test_expired_resource_is_not_lent(world: World) -> None:
    """Not even if it is the next caller who finds it out."""
    pool = world.filled(max_lifetime=100)
    world.clock._now += 200  # nothing that was due has happened yet
    caller = world.served(world.lease(pool, timeout=None))
    assert caller.thing is world.things[1]
    assert world.leave(caller) is None


def test_drain(world: World) -> None:
    """Everything is replaced, what is idle at once."""
    pool = world.filled(min_size=2, max_size=2)
    caller = world.served(world.lease(pool))
    world.call(pool.drain)
    world.until(lambda: pool.stats().available == 1 and pool.stats().destroyed == {"drain": 1})
    assert world.leave(caller) is None
    world.until(lambda: pool.stats().available == 2)
    assert sorted(thing.ends for thing in world.things) == [0, 0, 1, 1]


@pytest.mark.parametrize("hook", ["none", "validate", "reset"])
def test_bug_nobody_may_wait_but_nobody_needs_to(world: World, hook: str) -> None:
    """With `max_waiting=0`, what is created, validated or reset is waited for: no other caller has to return anything."""
    step = world.step(lambda thing: True)
    pool = world.pool(max_waiting=0, max_size=1, **({} if hook == "none" else {hook: step}))
    for _ in range(3):
        assert world.leave(world.served(world.lease(pool))) is None
    if hook == "reset":
        step.hold()
        assert world.leave(world.served(world.lease(pool))) is None
        waiter = world.line(pool, 1)[0]
        step.let_go()
        world.leave(world.served(waiter))
    holder = world.served(world.lease(pool))
    with pytest.raises(PoolFull, match="max_waiting=0"):
        world.do(pool.acquire)
    assert world.leave(holder) is None


def test_bug_expired_resource_needs_no_place_in_the_line(world: World) -> None:
    """With `max_waiting=0`, the only resource being too old is no reason to refuse anybody."""
    pool = world.filled(max_waiting=0, max_lifetime=100)
    world.clock._now += 200
    assert world.leave(world.served(world.lease(pool))) is None


def test_acquire_without_patience(world: World) -> None:
    """With a timeout of 0 nobody waits, not even for a creation, which is begun all the same."""
    world.factory.hold()
    pool = world.pool()
    with pytest.raises(PoolTimeout, match="no resource to give within 0 s"):
        world.do(pool.acquire, timeout=0)
    world.factory.let_go()
    world.until(lambda: pool.stats().available == 1)
    world.call(pool.release, world.do(pool.acquire, timeout=0))


def test_acquire_with_all_patience(world: World) -> None:
    """With None for a timeout there is no deadline; by default it is that of the pool."""
    pool = world.filled(acquire_timeout="1m")
    holder = world.served(world.lease(pool))
    patient = world.line(pool, 1, timeout=None)[0]
    usual = world.line(pool, 1, timeout=UNSET)[0]
    world.clock.advance(59)
    world.settle()
    assert pool.stats().waiting == 2
    world.clock.advance(1)
    assert isinstance(world.outcome(usual), PoolTimeout)
    world.clock.advance(10_000)
    world.leave(holder)
    assert world.leave(world.served(patient)) is None


def test_lease_is_for_one_block_at_a_time(world: World) -> None:
    """Entered again inside of itself it says so; one after the other is allowed."""
    pool = world.filled(max_size=2)

    def use() -> None:
        lease = pool.lease()
        with lease, pytest.raises(RuntimeError, match=r"this lease of pool 'things' is in use; call lease\(\) for each with"):
            lease.__enter__()
        with lease:
            pass

    async def use_async() -> None:
        lease = pool.lease()
        async with lease:
            with pytest.raises(RuntimeError, match=r"this lease of pool 'things' is in use; call lease\(\) for each async with"):
                await lease.__aenter__()
        async with lease:
            pass

    world.do(use if isinstance(world, ThreadWorld) else use_async)
    world.assert_full(pool)
