"""What type checkers know of the loading options and tags. Checked by mypy --strict and pyright (strict), never run."""

from datetime import timedelta
from typing import Any, assert_type

from otel_perfopt import Cache, cached, entry_options

users: Cache[int, str] = Cache(
    "users",
    ttl_jitter=0.1,
    refresh_after="4m",
    stale_for=timedelta(hours=1),
    soft_timeout=0.05,
    hard_timeout="5s",
    error_ttl=None,
)


@cached(stale_for=None, soft_timeout=0, hard_timeout=5, refresh_after=60.0, error_ttl="10s", ttl_jitter=0.5, tags=["users"])
def with_options(number: int) -> str:
    return str(number)


def tags_of(number: int) -> list[str]:
    return [f"user:{number}"]


@cached(tags=tags_of)
async def with_tags(number: int) -> str:
    entry_options(ttl="10s", tags=("user", "group"))
    entry_options(ttl=None)
    return str(number)


def tags_of_method(store: "Store", name: str) -> tuple[str, ...]:
    return (f"{store}:{name}",)


class Store:
    @cached(error_ttl=5, tags=tags_of_method)
    def get(self, name: str) -> int:
        return len(name)


def load() -> str:
    return "value"


async def load_async() -> str:
    return "value"


async def loading() -> None:
    assert_type(users.get(1, load, ttl="5m", tags=["user:1"]), str)
    assert_type(users.get(1, load, ttl=None, tags={"user:1"}), str)
    assert_type(await users.get_async(1, load, tags=(f"user:{number}" for number in range(2))), str)
    assert_type(await users.get_async(1, load_async, ttl=5, tags=["user:1"]), str)
    users.set(1, "value", ttl=timedelta(minutes=1), tags=["user:1"])
    users.set_many({1: "value"}, tags=["user:1"])
    await users.set_async(1, "value", tags=["user:1"])
    await users.set_many_async({1: "value"}, tags=["user:1"])
    users.invalidate_tag("user:1")
    await users.invalidate_tag_async("user:1")
    assert_type(users.expire(1), bool)
    assert_type(await users.expire_async(1), bool)
    assert_type(users.stats().stale_count, int)
    assert_type(users.stats().refreshes, int)
    users.get(1, load, tags=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    users.set(1, "value", tags=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.invalidate_tag(["user:1"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    entry_options(tags=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    entry_options("5s")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def decorated(store: Store) -> None:
    assert_type(with_options(1), str)
    assert_type(with_options.invalidate(1), bool)
    assert_type(await with_tags(1), str)
    assert_type(with_tags.cache, Cache[Any, str])
    assert_type(store.get("a"), int)
    assert_type(Store.get.invalidate(store, "a"), bool)
    cached(stale_for=[])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    cached(ttl_jitter="10%")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    cached(tags=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
