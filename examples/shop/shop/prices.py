"""Prices, from another service. That one is slow at times, fails or does not answer; the shop goes on."""

import httpx
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

from otel_perfopt import cached

from .settings import CACHE_ENTRIES


class Prices:
    """Asks for prices, and remembers them.

    Args:
        url: where the service is.
        transport: what takes the requests there; None for the network.
    """

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=1.0, transport=transport)
        HTTPXClientInstrumentor().instrument_client(self._client)

    async def close(self) -> None:
        """Close the connections; whoever does not answer is not waited for."""
        await self._client.aclose()

    # A price is good for a minute. After that it is asked for again, and the old one serves for up to an hour when the answer
    # is an error or takes longer than 50 ms. Who has no old price waits, and an error is not asked for again at once.
    @cached(
        name="prices",
        ttl="1m",
        stale_for="1h",
        soft_timeout="50ms",
        error_ttl="250ms",
        max_size=CACHE_ENTRIES,
        key=lambda _, number: number,
    )
    async def price(self, number: int) -> float:
        """Return the price of a product.

        Raises:
            httpx.HTTPError: there is no price to be had.
        """
        response = await self._client.get(f"/prices/{number}")
        response.raise_for_status()
        return float(response.json()["price"])
