"""What type checkers know of lazy values. Checked by mypy --strict and pyright (strict), never run."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, assert_type

from otel_perfopt.lazy import LazyFunction, LazyLoader, LazyMethod, create_lazy_loader, lazy


def load() -> list[int]:
    return [1]


async def load_async() -> list[int]:
    return [1]


@lazy
def settings() -> dict[str, int]:
    return {}


@lazy(ttl="5m", error_ttl=0, name="model")
def model() -> bytes:
    return b""


@lazy
async def session() -> bytes:
    return b""


@lazy(ttl=60)
async def token() -> str:
    return ""


class Service:
    @lazy
    def connection(self) -> list[str]:
        return []

    @lazy
    async def session(self) -> list[str]:
        return []

    @lazy(error_ttl="5s")
    def retried(self) -> int:
        return 1

    @lazy(error_ttl="5s")
    async def retried_async(self) -> int:
        return 1

    @property
    @lazy
    def size(self) -> int:
        return 1

    @staticmethod
    @lazy
    def shared() -> int:
        return 1


class Child(Service):
    pass


async def loaders() -> None:
    # The value, whichever way it is loaded and asked for.
    assert_type(LazyLoader(load), LazyLoader[list[int]])
    assert_type(LazyLoader(load_async, ttl="5m", error_ttl=0, name="x"), LazyLoader[list[int]])
    assert_type(create_lazy_loader(load), LazyLoader[list[int]])
    assert_type(create_lazy_loader(load_async), LazyLoader[list[int]])
    loader = LazyLoader(load_async)
    assert_type(loader.get(), list[int])
    assert_type(await loader.get_async(), list[int])
    assert_type(loader.loaded, bool)
    assert_type(loader.name, str)
    loader.reset()
    annotated: LazyLoader[int] = LazyLoader(lambda: 1)
    assert_type(annotated.get(), int)
    # Options are checked.
    LazyLoader(load, ttl=[])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    LazyLoader(len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    loader.nothing()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def functions() -> None:
    assert_type(settings(), dict[str, int])
    assert_type(settings.get(), dict[str, int])
    assert_type(await settings.get_async(), dict[str, int])
    assert_type(model(), bytes)
    assert_type(model.loaded, bool)
    model.reset()
    settings(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    # A coroutine function is awaited.
    assert_type(await session(), bytes)
    assert_type(await token(), str)
    assert_type(await session.get_async(), bytes)
    assert_type(session.get(), bytes)
    # They are callables, and their own types can be written down.
    as_callable: Callable[[], dict[str, int]] = settings
    as_awaitable: Callable[[], Awaitable[bytes]] = session
    as_lazy: LazyFunction[dict[str, int]] = settings
    as_async: LazyFunction[bytes, Coroutine[Any, Any, bytes]] = session
    assert_type(as_callable(), dict[str, int])
    assert_type(await as_awaitable(), bytes)
    assert_type(as_lazy(), dict[str, int])
    assert_type(await as_async(), bytes)
    # Called as a function, not as a decorator.
    assert_type(lazy(load)(), list[int])
    assert_type(lazy(name="x")(load)(), list[int])


async def methods(service: Service, child: Child) -> None:
    assert_type(service.connection(), list[str])
    assert_type(child.connection(), list[str])
    assert_type(service.connection.loaded, bool)
    assert_type(await service.connection.get_async(), list[str])
    service.connection.reset()
    assert_type(await service.session(), list[str])
    assert_type(await service.session.get_async(), list[str])
    assert_type(service.retried(), int)
    assert_type(await service.retried_async(), int)
    assert_type(service.size, int)
    assert_type(service.shared(), int)
    assert_type(Service.shared(), int)
    # Through the class.
    assert_type(Service.connection(service), list[str])
    assert_type(await Service.session(child), list[str])
    as_method: LazyMethod[Service, list[str]] = Service.connection
    assert_type(as_method(service), list[str])
    service.connection(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Service.connection(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
