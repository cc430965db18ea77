"""A shop and its unreliable service of prices, for a short round of visits: what was answered, and what the report says.

Needs no backend, and ends by itself; `python main.py serve` waits for visits of yours until Ctrl-C. With
OTEL_EXPORTER_OTLP_ENDPOINT set, traces, metrics and logs go there.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from shop.app import create_app
from shop.serving import serving
from shop.settings import Settings
from shop.upstream import create_upstream
from shop.visits import PRODUCTS, stock, visit

from otel_perfopt import get_cache

moods: Counter[str] = Counter()


@contextmanager
def open_shop(port: int = 0) -> Iterator[str]:
    """Serve a shop whose shelves are full, and which is gone when the block ends."""
    with tempfile.TemporaryDirectory() as folder, serving(create_upstream(moods=moods)) as prices:
        settings = Settings(Path(folder) / "shop.db", prices)
        stock(settings)
        with serving(create_app(settings), port) as url:
            yield url


def show() -> None:
    """Visit the shop, twice: the second time all prices are old, and serve while their service fails or dawdles."""
    with open_shop() as url:
        visits = visit(url, 200)
        for product in PRODUCTS:  # as if a minute had passed
            get_cache("prices").expire(product.number)
        visits += visit(url, 200, seed=2)
        report = httpx.get(f"{url}/performance").text
    print("answered:", dict(Counter(each.status for each in visits)))
    print(f"asked for prices {moods.total()} times:", dict(moods))
    print()
    print(report)


def serve() -> None:
    with open_shop(8000) as url:
        print(f"{url}/products/1, {url}/docs and {url}/performance, until Ctrl-C", flush=True)
        try:
            while True:
                time.sleep(1.0)
        except KeyboardInterrupt:
            print("closing")


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else show()
