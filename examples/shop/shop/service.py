"""The shop itself: what is made when the application starts, is shared by all requests, and is closed in the right order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from otel_perfopt import AsyncBatchProcessor, LazyLoader, measure_performance

from .prices import Prices
from .recommendations import Recommendations
from .settings import Settings
from .store import Order, Store


@dataclass(frozen=True)
class Shop:
    """All that requests share."""

    store: Store
    prices: Prices
    orders: AsyncBatchProcessor[Order, int]
    recommendations: LazyLoader[Recommendations]

    @measure_performance("checkout")
    async def order(self, order: Order) -> int:
        """Write an order, together with those that others place in the same milliseconds, and return its number.

        Raises:
            SoldOut: there is not enough left; the other orders of the batch do not notice.
        """
        return await self.orders.add(order)


@asynccontextmanager
async def opened(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Shop]:
    """Open a shop; at the end what was ordered is written before the connections go."""
    store, prices = Store(settings.database), Prices(settings.prices, transport)
    model = LazyLoader(lambda: Recommendations(store.orders()), name="recommendations", ttl="10m", error_ttl="5s")
    try:
        async with AsyncBatchProcessor("orders", store.place, batch_size=50, batch_timeout="10ms", max_queue=1000) as orders:
            yield Shop(store, prices, orders, model)
    finally:
        await prices.close()
        store.close()
