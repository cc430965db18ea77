"""One namespace, two tiers, anything in any order, losses included: no record that was invalidated after its value was made."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from otel_perfopt_redis import RedisTier

from otel_perfopt.tiers import Change, Record
from tests.integrations.redis.support import PATIENT, Server, until

KEYS = [b"a", b"b", b"c"]
TAGS = ["x", "y"]

keys = st.sampled_from(KEYS)
tags = st.sampled_from(TAGS)
who = st.integers(0, 1)


class TwoTiers(RuleBasedStateMachine):
    """A value is its number; the model knows what has happened since each was made, in the order of calls."""

    server: Server
    marks = Bundle("marks")

    @initialize()
    def begin(self) -> None:
        """Two tiers, whose clocks differ."""
        self.now = [1_000_000.0, 5_000_000.0]
        namespace = uuid.uuid4().hex
        self.tiers = [
            RedisTier(self.server.url, namespace=namespace, timeout=PATIENT, clock=lambda now=now: now)  # type: ignore[misc]
            for now in self.now
        ]
        self.told: list[list[Change]] = [[], []]
        for told, tier in zip(self.told, self.tiers, strict=True):
            tier.watch(told.append)
        self.time = 0
        self.made: dict[bytes, tuple[int, bytes, tuple[str, ...]]] = {}
        self.ended: dict[Change, int] = {}  # when a key, a tag or everything was last invalidated
        self.expired: dict[bytes, int] = {}
        self.replaced: dict[bytes, int] = {}  # when it was last set
        self.loaded: set[bytes] = set()
        self.lost = 0  # when Redis has lost what says which records are valid
        self.is_lost = False  # whether the next value may be lost, because it is then that the loss of others is noticed
        self.surely: dict[bytes, bytes] = {}  # what must be there: written by a tier that was flushed, and nothing since

    def teardown(self) -> None:
        """Leave nothing behind."""
        for tier in getattr(self, "tiers", ()):
            tier.close()

    def record(self, by: int, made: int, key: bytes, tagged: set[str]) -> Record:
        """A record of a new value."""
        self.time += 1
        value, labels, now = b"%d" % self.time, tuple(sorted(tagged)), self.now[by]
        self.made[value] = (made, key, labels)
        return Record(value, now, now + 100, now + 200, labels)

    @rule(target=marks, by=who, asked=st.lists(keys, max_size=2))
    def mark(self, by: int, asked: list[bytes]) -> Any:
        """Begin to make values."""
        self.time += 1
        return (by, self.time, self.tiers[by].read(asked).mark if asked else self.tiers[by].mark())

    @rule(marked=marks, key=keys, tagged=st.sets(tags))
    def load(self, marked: tuple[int, int, Any], key: bytes, tagged: set[str]) -> None:
        """Write a value that was made at a mark."""
        by, made, mark = marked
        written = self.record(by, made, key, tagged)
        self.loaded.add(written.value)
        self.tiers[by].write({key: written}, mark)
        self.surely.pop(key, None)

    @rule(marked=marks, key=keys, tagged=st.sets(tags))
    def put(self, marked: tuple[int, int, Any], key: bytes, tagged: set[str]) -> None:
        """Set a value, whose mark may be old; once that is over, what was there before is gone."""
        by, made, mark = marked
        written = self.record(by, made, key, tagged)
        self.tiers[by].write({key: written}, mark, replaces=True)
        self.tiers[by].flush()
        self.surely.pop(key, None)
        if max(self.lost, self.ended.get(Change(), 0), self.ended.get(Change(key), 0)) < made:
            self.replace(key, written.value)

    def replace(self, key: bytes, new: bytes) -> None:
        """Note that a value was set, and is there now, or nothing is."""
        self.time += 1
        self.replaced[key] = self.time
        self.surely.pop(key, None)
        for value, (_, of, labels) in list(self.made.items()):
            if of == key and value != new and value not in self.loaded:
                self.made[value] = (-1, of, labels)

    @rule(by=who, key=keys, tagged=st.sets(tags))
    def put_for_sure(self, by: int, key: bytes, tagged: set[str]) -> None:
        """Set a value now."""
        self.tiers[1 - by].flush()
        self.time += 1
        made, mark = self.time, self.tiers[by].mark()
        written = self.record(by, made, key, tagged)
        self.tiers[by].write({key: written}, mark, replaces=True)
        self.tiers[by].flush()
        self.replace(key, written.value)
        if not self.is_lost:
            self.surely[key] = written.value
        self.is_lost = False

    def end(self, change: Change) -> None:
        """Note an invalidation."""
        self.time += 1
        self.ended[change] = self.time
        for key, value in list(self.surely.items()):
            if change in (Change(), Change(key)) or change.tag in self.made[value][2]:
                del self.surely[key]

    @rule(by=who, key=keys)
    def delete(self, by: int, key: bytes) -> None:
        """Delete; what was surely there was fresh."""
        was_there = self.tiers[by].delete([key])
        assert was_there or key not in self.surely or self.expired.get(key, 0) > self.made[self.surely[key]][0]
        self.end(Change(key))

    @rule(by=who, key=keys)
    def expire(self, by: int, key: bytes) -> None:
        """Make stale."""
        self.tiers[by].expire([key])
        self.time += 1
        self.expired[key] = self.time

    @rule(by=who, tag=tags)
    def invalidate_tag(self, by: int, tag: str) -> None:
        """Invalidate a tag."""
        self.tiers[by].invalidate_tag(tag)
        self.end(Change(tag=tag))

    @rule(by=who)
    def clear(self, by: int) -> None:
        """Clear."""
        self.tiers[by].clear()
        self.end(Change())

    @rule(by=who)
    def flush(self, by: int) -> None:
        """Write what waits."""
        self.tiers[by].flush()

    @rule(by=who)
    def reopen(self, by: int) -> None:
        """Close; the next call opens it again."""
        self.tiers[by].close()

    @rule(which=st.sampled_from([0, 1, 2, 3, None]))
    def lose(self, which: int | None) -> None:
        """Redis forgets one of the tier's own keys, or everything."""
        if which is None:
            self.server.admin.flushall()
        else:
            self.server.admin.delete(self.tiers[0]._keys[which])
        if which not in (2, 3):
            self.surely.clear()
            self.is_lost = True
            self.time += 1
            self.lost = self.time

    @rule()
    def forget_scripts(self) -> None:
        """Redis forgets the scripts."""
        self.server.admin.script_flush()

    @rule()
    def disconnect(self) -> None:
        """Redis closes all connections."""
        self.server.kill_connections()

    @rule(by=who, key=keys)
    def noticed(self, by: int, key: bytes) -> None:
        """Whatever one does, the other is told."""
        self.tiers[1 - by].mark()
        told = self.told[1 - by]
        told.clear()
        self.tiers[by].delete([key])
        self.end(Change(key))
        until(lambda: Change(key) in told or Change() in told)

    @invariant()
    def nothing_comes_back(self) -> None:
        """Both tiers give only what may be given."""
        for now, tier in zip(getattr(self, "now", ()), getattr(self, "tiers", ()), strict=True):
            found = dict(tier.read(KEYS).records)
            for key, record in found.items():
                made, of, labels = self.made[record.value]
                assert (of, labels) == (key, record.tags)
                ends = [Change(), Change(key), *(Change(tag=tag) for tag in labels)]
                least = self.replaced.get(key, 0) if record.value in self.loaded else 0
                assert made >= least, "what was replaced is back"
                assert all(self.ended.get(end, 0) < made for end in ends), "what was invalidated is back"
                if self.expired.get(key, 0) > made:
                    assert record.fresh_until <= now, "what has expired is fresh"
            for key, value in self.surely.items():
                assert found[key].value == value, "what was written is lost"


@pytest.fixture
def machine(server: Server) -> Iterator[type[TwoTiers]]:
    """The machine, with its server."""
    TwoTiers.server = server
    yield TwoTiers
    del TwoTiers.server


@pytest.mark.slow
def test_two_tiers(machine: type[TwoTiers]) -> None:
    """Anything in any order."""
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
