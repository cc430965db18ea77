"""A shop and its unreliable service of prices, for a short round of visits: what was answered, and what the report says.

Needs no backend, and ends by itself; `python main.py serve` waits for visits of yours until Ctrl-C or SIGTERM. With
OTEL_EXPORTER_OTLP_ENDPOINT set, traces, metrics and logs go there.
"""

import signal
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


def serve(port: int) -> None:
    """Wait for visits until a signal comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    with open_shop(port) as url:
        try:
            print(f"{url}/products/1, {url}/docs and {url}/performance, until Ctrl-C or SIGTERM", flush=True)
            while True:
                time.sleep(1.0)
        except KeyboardInterrupt:
            print("closing")


def main(command: str = "show", port: str = "8000") -> None:
    match command:
        case "show":
            show()
        case "serve":
            serve(int(port))
        case _:
            sys.exit(f"{command!r} is neither show nor serve")


if __name__ == "__main__":
    main(*sys.argv[1:])
