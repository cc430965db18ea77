"""Counts live under the name: summed over components, exact under threads, and never going backwards."""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt import Cache, get_performance_report, measure_performance, record_performance_metric
from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import family as family_module
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.family import Family, Series

HITS = names.Metric("perfopt.test.hits", "counter", "{hit}", "For tests.", ("name",))
LEVEL = names.Metric("perfopt.test.level", "up-down counter", "{level}", "For tests.", ("name",))


class HitCounts(Counts):
    """One count."""

    __slots__ = ("hits",)
    hits: int


class Component:
    """Something that counts."""

    def __init__(self, family: "Family[HitCounts]", name: str) -> None:
        self.level = 1
        self.counts = family.join(name, self, {LEVEL: lambda component: component.level})


def make_family() -> "Family[HitCounts]":
    """Make a family that no instrument reads."""
    before = list(instruments._families)
    try:
        return Family("name", HitCounts, series={"hits": Series(HITS, {})})
    finally:
        instruments._families[:] = before


@pytest.fixture
def family() -> "Family[HitCounts]":
    """A family of its own."""
    return make_family()


def read(family: "Family[HitCounts]", metric: names.Metric = HITS) -> dict[str, float]:
    """The readings of a metric by name."""
    readings = list(family.observe(metric))
    assert len({reading.attributes["name"] for reading in readings}) == len(readings)
    return {reading.attributes["name"]: reading.value for reading in readings}


def test_caches_are_told_apart_by_name(service: Callable[..., Any], name: str) -> None:
    """One instrument, and points of both."""
    collected = service()
    first, second = Cache(f"{name}-1"), Cache(f"{name}-2")
    first.get(1)
    for _ in range(2):
        second.get(1)
    assert collected.collect().values(names.CACHE_REQUESTS, first.name) == {"hit,memory": 0, "stale,memory": 0, "miss": 1}
    assert collected.collect().values(names.CACHE_REQUESTS, second.name) == {"hit,memory": 0, "stale,memory": 0, "miss": 2}


def test_caches_of_one_name_are_summed(service: Callable[..., Any], name: str) -> None:
    """Counts and gauges of both, in one point; a cache without a limit adds none."""
    collected = service()
    caches = [Cache(name, max_size=size) for size in (5, None, 7)]
    for cache in caches:
        cache.set(1, "x")
        cache.get(1)
    data = collected.collect()
    assert data.values(names.CACHE_REQUESTS, name) == {"hit,memory": 3, "stale,memory": 0, "miss": 0}
    assert data.values(names.CACHE_ENTRY_COUNT, name) == {"": 3}
    assert data.values(names.CACHE_ENTRY_LIMIT, name) == {"": 12}
    assert get_performance_report().caches[name].max_size == 12


def test_counts_survive_their_cache(service: Callable[..., Any], name: str) -> None:
    """A cache that was collected leaves its counts, and takes its entries with it."""
    collected = service()
    cache = Cache(name)
    cache.get(1, lambda: 1)
    cache.get(1)
    del cache
    gc.collect()
    data = collected.collect()
    assert data.values(names.CACHE_REQUESTS, name) == {"hit,memory": 1, "stale,memory": 0, "miss": 1}
    assert data.points(names.CACHE_ENTRY_COUNT, name) == []
    row = get_performance_report().caches[name]
    assert (row.hit_count, row.miss_count, row.size, row.max_size, row.loads.count) == (1, 1, 0, None, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.integers(0, 2)),
        st.tuples(st.just("use"), st.integers(0, 9)),
        st.tuples(st.just("drop"), st.integers(0, 9)),
        st.tuples(st.just("cycle"), st.integers(0, 9)),
        st.tuples(st.just("read"), st.just(0)),
    ),
    max_size=60,
)


@pytest.fixture
def quick_garbage() -> Iterator[None]:
    """Collections of garbage look only at what the test has made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("quick_garbage")
@given(STEPS)
def test_sums_are_exact_and_never_go_backwards(steps: list[tuple[str, int]]) -> None:
    """Whoever is made, used, dropped or collected as garbage, and whenever somebody reads."""
    family, live, expected = make_family(), [], dict.fromkeys("012", 0)
    levels = dict.fromkeys("012", 0)
    made: set[str] = set()
    last: dict[str, float] = {}

    def check() -> None:
        nonlocal last
        now = read(family)
        assert now == {name: expected[name] for name in made}
        assert all(now[name] >= value for name, value in last.items())
        assert read(family, LEVEL) == {name: level for name, level in levels.items() if level}
        last = now

    for step, number in steps:
        if step == "make":
            live.append((str(number), Component(family, str(number))))
            made.add(str(number))
            levels[str(number)] += 1
        elif step == "read":
            check()
        elif live:
            name, component = live[number % len(live)]
            component.counts.hits += 1
            expected[name] += 1
            if step != "use":
                del live[number % len(live)]
                levels[name] -= 1
            if step == "cycle":
                component.itself = component  # type: ignore[attr-defined]
                del component
                gc.collect()
            else:
                del component
    check()


@pytest.mark.parametrize("moment", ["merged", "popped"])
def test_an_interrupted_retirement_loses_and_repeats_nothing(
    family: "Family[HitCounts]", monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Ctrl-C between any two of its steps, and the next reading goes on from there."""
    component = Component(family, "a")
    component.counts.hits = 5
    del component
    retire = Family._retire
    named = family._names["a"]
    interruptions = iter([KeyboardInterrupt])

    class Interrupted(dict[Any, Any]):
        def pop(self, *args: Any) -> Any:
            found = super().pop(*args) if moment == "popped" else None
            for interruption in interruptions:
                raise interruption
            return found if moment == "popped" else super().pop(*args)

    named.live = Interrupted(named.live)
    with pytest.raises(KeyboardInterrupt):
        retire(family)
    assert read(family) == {"a": 5}
    assert read(family) == {"a": 5}
    assert not family._gone
    assert not named.live


def test_a_thousand_names_and_the_rest(family: "Family[HitCounts]") -> None:
    """Names beyond the limit count together, nothing is lost, and a name that was there before stays."""
    components = [Component(family, f"n{number}") for number in range(1100)]
    for component in components:
        component.counts.hits += 1
    components.append(Component(family, "n0"))
    components[-1].counts.hits += 1
    now = read(family)
    assert len(now) == family_module.MAX_NAMES
    assert now["other"] == 1100 - 999
    assert now["n0"] == 2
    assert sum(now.values()) == 1101
    assert family.resolve("n998") == "n998"
    assert family.resolve("n1099") == "other"
    assert family.latency("n1099", names.OPERATION_DURATION) is family.latency("n1098", names.OPERATION_DURATION)
    assert read(family, LEVEL)["other"] == 101


def test_error_types_are_limited(family: "Family[HitCounts]") -> None:
    """Beyond 32 kinds, failures count together."""
    latencies = [family.latency("a", names.OPERATION_DURATION, f"E{number}") for number in range(100)]
    assert len(set(map(id, latencies))) == family_module.MAX_ERROR_TYPES + 1
    assert latencies[-1].attributes == {"name": "a", "error.type": "_OTHER"}
    assert family.latency("a", names.OPERATION_DURATION, "E0") is latencies[0]


def test_names_can_be_exported(family: "Family[HitCounts]") -> None:
    """A lone surrogate in a name or an error type would make an exporter lose everything."""
    component = Component(family, "file-\udcff")
    assert set(read(family)) == {"file-?"}
    latency = family.latency("file-\udcff", names.OPERATION_DURATION, "\ud800Error")
    assert latency.attributes == {"name": "file-?", "error.type": "?Error"}
    del component


def test_a_failing_gauge_hides_no_other(family: "Family[HitCounts]") -> None:
    """What a gauge raises concerns its own component."""
    good, bad, other = Component(family, "a"), Component(family, "a"), Component(family, "b")
    del bad.level
    assert read(family, LEVEL) == {"a": 1, "b": 1}
    del other.level, good
    assert read(family, LEVEL) == {}
    assert read(family) == {"a": 0, "b": 0}


def run_in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run `work` in threads that start together, and let what they raise through."""
    barrier, errors = threading.Barrier(count), list[BaseException]()

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_figures_are_exact_under_threads(service: Callable[..., Any], name: str) -> None:
    """Eight threads hit, measure and record, while reports and collections go on."""
    collected, cache, rounds = service(), Cache(name), 2000
    cache.set(1, "value")
    measured = measure_performance(f"{name}-measured", lambda: None, span=False)
    done = threading.Event()
    seen: list[tuple[int, int]] = []

    def work(_: int) -> None:
        for number in range(rounds):
            cache.get(1)
            measured()  # type: ignore[no-untyped-call]  # of a lambda
            record_performance_metric(f"{name}-told", 0.25, success=number % 4 != 0, error_type=None if number % 4 else "Odd")

    def watch() -> None:
        while not done.is_set():
            report = get_performance_report()
            row = report.operations.get(f"{name}-told")
            seen.append((report.caches[name].hit_count, row.count if row else 0))
            collected.collect()

    watcher = threading.Thread(target=watch)
    watcher.start()
    run_in_threads(8, work)
    done.set()
    watcher.join()
    report, data = get_performance_report(), collected.collect()
    assert seen == sorted(seen)
    assert report.caches[name].hit_count == 8 * rounds
    assert data.values(names.CACHE_REQUESTS, name)["hit,memory"] == 8 * rounds
    told, calls = report.operations[f"{name}-told"], report.operations[f"{name}-measured"]
    assert (told.count, told.error_count, told.errors) == (8 * rounds, 2 * rounds, {"Odd": 2 * rounds})
    assert told.total_duration == 8 * rounds * 0.25
    assert calls.count == 8 * rounds
    assert data.total(names.OPERATION_DURATION, f"{name}-told") == (8 * rounds, 8 * rounds * 0.25)
    count, total = data.total(names.OPERATION_DURATION, f"{name}-measured")
    assert count == 8 * rounds
    assert total == pytest.approx(calls.total_duration, rel=1e-9)


def test_joining_and_leaving_is_exact_under_threads(family: "Family[HitCounts]") -> None:
    """Components of one name come and go in eight threads; each counts once."""

    def work(number: int) -> None:
        for round_ in range(300):
            component = Component(family, f"n{(number + round_) % 3}")
            component.counts.hits += 1
            if round_ % 10 == 0:
                read(family)

    run_in_threads(8, work)
    assert sum(read(family).values()) == 8 * 300
    assert read(family, LEVEL) == {}
