"""Loads a shop with 400 requests, four at a time: once as it is, once with caches that keep nothing. Ends by itself.

Each shop, with the service of prices that it asks, is a process of its own and listens on 127.0.0.1 only.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import quantiles
from typing import Any

from shop.app import create_app
from shop.serving import serving
from shop.settings import Settings
from shop.upstream import create_upstream
from shop.visits import stock, visit

COUNT = 400  # or what the command line says
AT_ONCE = 4


def main(count: int = COUNT) -> None:
    print(f"{count} requests, {AT_ONCE} at a time; product pages, in milliseconds:\n")
    print(f"{'':18}{'p50':>8}{'p95':>8}{'p99':>8}{'failed':>9}   prices asked for")
    for title, entries in {"with the caches": "1000", "without them": "0"}.items():
        found = in_a_process(count, {"SHOP_CACHE_ENTRIES": entries})
        latencies = "".join(f"{1000 * found[key]:8.1f}" for key in ("p50", "p95", "p99"))
        print(f"{title:18}{latencies}{found['failed']:9}{found['asked']:13} times", flush=True)


def in_a_process(count: int, environment: dict[str, str]) -> dict[str, Any]:
    """Measure in a process with this environment: caches are made when modules are imported."""
    command = [sys.executable, __file__, "measure", str(count)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=50, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def measure(count: int) -> dict[str, Any]:
    """Return how long product pages took, how many requests failed, and how often prices were asked for."""
    moods: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, serving(create_upstream(moods=moods)) as prices:
        settings = Settings(Path(folder) / "shop.db", prices)
        stock(settings)
        with serving(create_app(settings)) as url:
            visits = visit(url, count, at_once=AT_ONCE)
    percentiles = quantiles((each.seconds for each in visits if each.is_page), n=100)
    figures = {f"p{percent}": percentiles[percent - 1] for percent in (50, 95, 99)}
    return {**figures, "failed": sum(each.status >= 500 for each in visits), "asked": moods.total()}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", count]:
            print(json.dumps(measure(int(count))))
        case counts:
            main(*map(int, counts))
