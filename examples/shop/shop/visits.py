"""People who visit a shop: what they look at, order and rename, decided by a seed."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import httpx

from .settings import Settings
from .store import Product, Store

CATEGORIES = ("tea", "coffee", "spices", "sweets", "cups")
PRODUCTS = [Product(number, f"{CATEGORIES[number % 5]} no. {number}", CATEGORIES[number % 5]) for number in range(1, 51)]
CUSTOMERS = ("Ada", "Ben", "Eve", "Ida", "Max", "Sam", "Tom", "Zoe")


@dataclass(frozen=True)
class Request:
    """What somebody asks for."""

    method: str
    path: str
    body: dict[str, object] | None = None


@dataclass(frozen=True)
class Visit:
    """What became of a request."""

    request: Request
    status: int
    seconds: float

    @property
    def is_page(self) -> bool:
        """Whether it was a look at a product, which needs its price."""
        return self.request.method == "GET" and self.request.path.startswith("/products/") and self.request.path.count("/") == 2


def stock(settings: Settings) -> None:
    """Fill the shelves of a new shop."""
    store = Store(settings.database)
    store.add(PRODUCTS, stock=20)
    store.close()


def requests(count: int, seed: int = 1) -> Iterator[Request]:
    """Yield requests: few products are popular, most requests only look, and customers come together to order."""
    return islice(_endless(random.Random(seed)), count)


def _endless(chance: random.Random) -> Iterator[Request]:
    popularity = [1 / rank for rank in range(1, len(PRODUCTS) + 1)]
    while True:
        [product] = chance.choices(PRODUCTS, popularity)
        path, dice = f"/products/{product.number}", chance.random()
        if dice < 0.80:
            yield Request("GET", path)
        elif dice < 0.90:
            yield Request("GET", f"/categories/{product.category}")
        elif dice < 0.94:
            yield Request("GET", f"{path}/recommendations")
        elif dice < 0.98:
            for customer in chance.sample(CUSTOMERS, 4):
                yield Request("POST", f"{path}/orders", {"customer": customer})
        else:
            yield Request("PUT", path, {"name": f"{product.name}, now better"})


def visit(url: str, count: int, *, at_once: int = 8, seed: int = 1) -> list[Visit]:
    """Send so many requests to a shop, some at a time, and return what became of them."""
    with httpx.Client(base_url=url, timeout=10.0) as client, ThreadPoolExecutor(at_once) as visitors:

        def send(request: Request) -> Visit:
            begin = time.perf_counter()
            response = client.request(request.method, request.path, json=request.body)
            return Visit(request, response.status_code, time.perf_counter() - begin)

        return list(visitors.map(send, requests(count, seed)))
