"""Hit ratios on generated traces: S3-FIFO against libcachesim's, and against LRU."""

from functools import cache

import libcachesim
import numpy as np
import pytest
from numpy.typing import NDArray

from otel_perfopt._core.policies import Entry
from otel_perfopt._core.store import Store

REQUESTS = 150_000
UNIVERSE = 20_000
ELSEWHERE = 1_000_000  # keys that the popular part of a trace does not use

Trace = NDArray[np.int64]


def zipf(random: np.random.Generator, exponent: float = 0.9) -> Trace:
    """Independent requests, the popularity of the i-th key proportional to ``1 / i**exponent``."""
    shares = np.cumsum(1 / np.arange(1, UNIVERSE + 1) ** exponent)
    return np.searchsorted(shares / shares[-1], random.random(REQUESTS)).astype(np.int64)


def with_scan(random: np.random.Generator) -> Trace:
    """Every fifth request is for a key that is never asked for again."""
    trace = zipf(random)
    scan = random.random(REQUESTS) < 0.2
    trace[scan] = ELSEWHERE + np.arange(scan.sum())
    return trace


def with_loop(random: np.random.Generator) -> Trace:
    """Three of ten requests go round and round through 8,000 keys."""
    trace = zipf(random)
    loop = random.random(REQUESTS) < 0.3
    trace[loop] = ELSEWHERE + np.arange(loop.sum()) % 8000
    return trace


def shifting(random: np.random.Generator) -> Trace:
    """Which keys are popular changes five times."""
    return np.concatenate([random.permutation(UNIVERSE)[part] for part in np.array_split(zipf(random), 6)])


TRACES = {"zipf": zipf, "zipf and scan": with_scan, "zipf and loop": with_loop, "shifting": shifting}


@cache
def requests(name: str) -> list[int]:
    """The keys of a trace, the same ones every time."""
    trace: list[int] = TRACES[name](np.random.default_rng(7)).tolist()
    return trace


def hit_ratio(policy: str, trace: list[int], size: int) -> float:
    """The share of requests that a store of this size answers."""
    store = Store(policy, max_size=size, max_weight=None)
    find, touch, hits = store.entries.get, store.policy.touch, 0
    for key in trace:
        entry = find(key)
        if entry is None:
            store.put(Entry(key, None, float("inf")), 0.0)
        else:
            hits += 1
            touch(entry)
    return hits / len(trace)


def reference(kind: type, trace: list[int], size: int) -> float:
    """The same by libcachesim."""
    simulated, request, hits = kind(cache_size=size), libcachesim.Request(), 0
    request.obj_size = 1
    for key in trace:
        request.obj_id = key
        hits += simulated.get(request)
    return hits / len(trace)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.parametrize("name", TRACES)
def test_s3fifo_is_as_good_as_the_reference(name: str, share: float) -> None:
    """The hit ratio is within 1.5 percentage points of libcachesim's S3-FIFO, at 1 % and 10 % of the keys."""
    trace = requests(name)
    size = int(len(set(trace)) * share)
    assert hit_ratio("s3fifo", trace, size) == pytest.approx(reference(libcachesim.S3FIFO, trace, size), abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES)
def test_lru_is_exact(name: str) -> None:
    """LRU hits exactly where libcachesim's does."""
    trace = requests(name)
    size = len(set(trace)) // 100
    assert hit_ratio("lru", trace, size) == reference(libcachesim.LRU, trace, size)


@pytest.mark.parametrize("name", TRACES)
def test_s3fifo_beats_lru(name: str) -> None:
    """At 1 % of the keys the default policy has at least 5 percentage points more hits than LRU."""
    trace = requests(name)
    size = len(set(trace)) // 100
    assert hit_ratio("s3fifo", trace, size) > hit_ratio("lru", trace, size) + 0.05
