"""The shop: what visitors see while the service of prices fails, and what becomes of their orders."""

import asyncio
import doctest
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.instrumentation.fastapi", reason="uv sync --group examples")

import httpx
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from examples.shop.shop import app as shop_app
from examples.shop.shop import recommendations
from examples.shop.shop.prices import Prices
from examples.shop.shop.service import opened
from examples.shop.shop.serving import serving
from examples.shop.shop.settings import Settings
from examples.shop.shop.store import Order, Product, SoldOut, Store, pages
from examples.shop.shop.upstream import create_upstream
from otel_perfopt import PoolTimeout
from otel_perfopt.testing import Captured, capture
from tests.examples.programs import Backend, run, widest

SERVER = 2  # the kind of a span
PRODUCTS = [Product(1, "green tea", "tea"), Product(2, "black tea", "tea"), Product(3, "mocha", "coffee")]


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    """No test sees what another has cached."""
    yield
    pages.clear()
    Prices.price.cache.clear()


@pytest.fixture
def captured() -> Iterator[Captured]:
    """What is told during a test."""
    with capture() as told:
        yield told


class Upstream(httpx.AsyncBaseTransport):
    """Knows all prices, until it is told otherwise."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_down = False
        self.hangs = False
        self.answered = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        price = 2.5 + self.asked
        if self.hangs:
            await self.goes_on.wait()
            self.answered.set()
        return httpx.Response(503) if self.is_down else httpx.Response(200, json={"price": price})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A shop with three products, and ten of each."""
    settings = Settings(tmp_path / "shop.db", "http://prices.test")
    store = Store(settings.database)
    store.add(PRODUCTS, stock=10)
    store.close()
    return settings


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def visitor(settings: Settings, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Somebody who visits the shop; nothing is exported, because that would be for the whole process."""
    monkeypatch.setattr(shop_app, "exported", nullcontext)
    with TestClient(shop_app.create_app(settings, upstream)) as client:
        yield client


def price_of(visitor: TestClient, number: int) -> float:
    response = visitor.get(f"/products/{number}")
    assert response.status_code == 200, response.text
    return float(response.json()["price"])


def the_price_is_old(number: int) -> None:
    """Make the price of a product stale."""
    assert Prices.price.cache.expire(number)


def test_a_price_is_asked_for_once(visitor: TestClient, upstream: Upstream) -> None:
    assert price_of(visitor, 1) == price_of(visitor, 1) == 3.5
    assert upstream.asked == 1


def test_an_old_price_serves_while_upstream_fails(visitor: TestClient, upstream: Upstream, captured: Captured) -> None:
    assert price_of(visitor, 1) == 3.5
    the_price_is_old(1)
    upstream.is_down = True
    assert price_of(visitor, 1) == 3.5
    assert upstream.asked == 2
    assert captured.metric("perfopt.cache.requests", name="prices", result="stale") == 1
    assert captured.metric("perfopt.cache.load.duration", name="prices", error_type="httpx.HTTPStatusError") == 1


def test_an_old_price_serves_while_upstream_hangs(visitor: TestClient, upstream: Upstream) -> None:
    """The visitor waits 50 ms at most; the answer that comes later is for those who come later."""
    assert price_of(visitor, 1) == 3.5
    the_price_is_old(1)
    upstream.hangs = True
    assert price_of(visitor, 1) == 3.5
    portal = visitor.portal
    assert portal is not None
    portal.call(upstream.goes_on.set)
    portal.call(upstream.answered.wait)
    while (price := price_of(visitor, 1)) == 3.5:
        pass
    assert (price, upstream.asked) == (4.5, 2)


def test_no_price_at_all(visitor: TestClient, upstream: Upstream) -> None:
    """Who has no old price is told so; a product without a price spoils no other."""
    assert price_of(visitor, 2) == 3.5
    upstream.is_down = True
    assert visitor.get("/products/1").status_code == 503
    assert price_of(visitor, 2) == 3.5


def test_a_renamed_product_is_new_on_every_page(visitor: TestClient, captured: Captured) -> None:
    for path in ("/products/1", "/categories/tea", "/categories/coffee"):
        visitor.get(path)
    assert visitor.put("/products/1", json={"name": "sencha"}).status_code == 204
    loads = captured.metric("perfopt.cache.load.duration", name="pages")
    assert visitor.get("/products/1").json()["name"] == "sencha"
    assert [product["name"] for product in visitor.get("/categories/tea").json()] == ["sencha", "black tea"]
    assert captured.metric("perfopt.cache.load.duration", name="pages") == loads + 2
    visitor.get("/categories/coffee")
    assert captured.metric("perfopt.cache.load.duration", name="pages") == loads + 2, "that page does not show it"


def test_a_product_that_was_asked_for_too_early(settings: Settings) -> None:
    store = Store(settings.database)
    assert store.product(4) is None
    store.add([Product(4, "pepper", "spices")], stock=1)
    assert store.product(4) == Product(4, "pepper", "spices")
    store.close()


def test_there_is_no_such_product(visitor: TestClient) -> None:
    assert visitor.get("/products/99").status_code == 404
    assert visitor.post("/products/99/orders", json={"customer": "Ada"}).status_code == 404


def in_the_shop(settings: Settings, visit: Callable[[Any], Any]) -> Any:
    """Open a shop without a server, and return what a visit brings."""

    async def main() -> Any:
        async with opened(settings, Upstream()) as shop:
            return await visit(shop)

    return asyncio.run(main())


def test_orders_are_written_together_and_once_each(settings: Settings, captured: Captured) -> None:
    orders = [Order(f"customer {number}", 1 + number % 3) for number in range(30)]

    async def visit(shop: Any) -> tuple[list[int], list[Order]]:
        numbers = await asyncio.gather(*map(shop.order, orders))
        return numbers, await asyncio.to_thread(shop.store.orders)

    numbers, written = in_the_shop(settings, visit)
    assert numbers == list(range(1, 31))
    assert written == orders
    assert captured.metric("perfopt.batch.flushes", name="orders") == 1
    assert captured.total("perfopt.batch.size", name="orders") == 30


def test_what_is_sold_out_fails_alone(settings: Settings) -> None:
    async def visit(shop: Any) -> list[Any]:
        orders = [*(Order("Ada", 1) for _ in range(11)), Order("Max", 2, quantity=11), Order("Zoe", 3)]
        return await asyncio.gather(*map(shop.order, orders), return_exceptions=True)

    outcomes = in_the_shop(settings, visit)
    assert outcomes[:10] == list(range(1, 11))
    assert [type(outcome) for outcome in outcomes[10:12]] == [SoldOut, SoldOut]
    assert outcomes[12] == 11


def test_sold_out_over_http(visitor: TestClient) -> None:
    assert visitor.post("/products/1/orders", json={"customer": "Ada", "quantity": 10}).json() == 1
    assert visitor.post("/products/1/orders", json={"customer": "Max"}).status_code == 409
    assert visitor.post("/products/1/orders", json={"customer": "Max", "quantity": -1}).status_code == 422


def test_an_order_that_cannot_be_written_is_refused_before_it_spoils_a_batch(visitor: TestClient) -> None:
    """SQLite has no room for these numbers, and would refuse the transaction with the orders of others."""
    assert visitor.post("/products/1/orders", json={"customer": "Max", "quantity": 2**63}).status_code == 422
    assert visitor.post(f"/products/{2**63}/orders", json={"customer": "Max"}).status_code == 422
    assert visitor.get(f"/products/{2**63}").status_code == 422


def test_a_shop_that_closes_writes_what_was_ordered(settings: Settings) -> None:
    async def visit(shop: Any) -> list[asyncio.Future[int]]:
        return [shop.orders.add(Order("Ada", 1)) for _ in range(5)]

    futures = in_the_shop(settings, visit)
    assert [future.result() for future in futures] == [1, 2, 3, 4, 5]
    store = Store(settings.database)
    assert store.orders() == [Order("Ada", 1)] * 5
    store.close()


def test_there_are_never_more_connections_than_three(settings: Settings) -> None:
    store = Store(settings.database)
    everybody = threading.Barrier(12)

    def look(number: int) -> Product | None:
        everybody.wait()
        return store.product(number)

    with ThreadPoolExecutor(12) as visitors:
        assert list(visitors.map(look, range(1, 13)))[:3] == PRODUCTS
    assert store.connections.stats().total_created <= 3
    with ExitStack() as leases:
        for _ in range(3):
            leases.enter_context(store.connections.lease())
        with pytest.raises(PoolTimeout):
            store.connections.acquire(timeout=0)
    store.close()


def test_recommendations_are_computed_once(visitor: TestClient, captured: Captured) -> None:
    for number, customer in ((1, "Ada"), (2, "Ada"), (1, "Max"), (2, "Max"), (3, "Max")):
        visitor.post(f"/products/{number}/orders", json={"customer": customer})
    assert visitor.get("/products/1/recommendations").json() == [2, 3]
    assert visitor.get("/products/3/recommendations").json() == [1, 2]
    assert visitor.get("/products/99/recommendations").json() == []
    assert captured.metric("perfopt.lazy.load.duration", name="recommendations") == 1


def test_the_model() -> None:
    assert doctest.testmod(recommendations) == (0, 2)
    assert recommendations.Recommendations([]).beside(1) == []


def test_the_report_has_all_parts(visitor: TestClient) -> None:
    price_of(visitor, 1)
    visitor.post("/products/1/orders", json={"customer": "Ada"})
    visitor.get("/products/1/recommendations")
    report = visitor.get("/performance").text
    for name in ("pages", "prices", "database", "orders", "recommendations", "checkout"):
        assert f"\n{name} " in report
    assert widest(report) <= 80


def test_main_exports_traces_that_hang_together(tmp_path: Path) -> None:
    with Backend() as backend:
        printed = run("shop/main.py", folder=tmp_path, backend=backend)
    assert "200" in printed
    assert widest(printed) <= 80
    assert list(tmp_path.iterdir()) == []
    assert {span.service for span in backend.tree.values()} == {"shop"}

    requests = {span.number for span in backend.tree.values() if span.kind == SERVER and span.name == "GET /products/{number}"}
    for name in ("load pages", "load prices", "acquire database"):
        assert any(above.number in requests for span in backend.named(name) for above in backend.above(span)), name
    orders = {span.number for span in backend.named("POST /products/{number}/orders")}
    checkouts = {span.number: span for span in backend.named("checkout")}
    assert {span.parent for span in checkouts.values()} <= orders
    flushes = backend.named("flush orders")
    assert frozenset().union(*(flush.links for flush in flushes)) == set(checkouts)
    assert all(not flush.parent and any(flush.number in checkouts[each].links for each in flush.links) for flush in flushes)

    failures = [span for span in backend.named("load prices") if span.is_error]
    assert {span.attributes["error.type"] for span in failures} >= {"httpx.HTTPStatusError"}
    assert all(below.is_error for below in backend.named("GET") if below.parent in {span.number for span in failures})
    assert {point.metric for point in backend.points} >= {
        "perfopt.cache.requests",
        "perfopt.pool.acquires",
        "perfopt.batch.items",
    }


def test_a_shop_opens_where_one_has_just_closed() -> None:
    """Its connections linger, which keeps nobody from this port."""
    with httpx.Client() as client:
        with serving(create_upstream()) as url:
            client.get(f"{url}/prices/1")
        with serving(create_upstream(), httpx.URL(url).port or 0) as again:
            assert client.get(f"{again}/prices/1").status_code == 200
    assert again == url


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a SystemExit, which only ends the thread
def test_a_shop_that_does_not_open_says_so() -> None:
    """Nobody waits for it in vain."""

    @asynccontextmanager
    async def fail(_: Starlette) -> AsyncIterator[None]:
        raise OSError("no space left")
        yield

    with pytest.raises(RuntimeError, match="did not start"), serving(Starlette(lifespan=fail)):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_sigterm_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    printed = run("shop/main.py", "serve", "0", folder=tmp_path, stop_after="until Ctrl-C or SIGTERM")
    assert "closing" in printed
    assert list(tmp_path.iterdir()) == []


def test_load_fits_a_terminal(tmp_path: Path) -> None:
    printed = run("shop/load.py", "30", folder=tmp_path)
    assert "with the caches" in printed
    assert "without them" in printed
    assert widest(printed) <= 80
    assert list(tmp_path.iterdir()) == []
