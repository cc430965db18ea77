"""One file, two tiers, anything in any order: never a record that was invalidated after its value was made."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from otel_perfopt.telemetry import background
from otel_perfopt.testing import ManualClock
from otel_perfopt.tiers.base import Change, Record
from otel_perfopt.tiers.sqlite import SQLiteTier
from tests.tiers.sqlite_support import NOW, TIMEOUT

KEYS = [b"a", b"b", b"c"]
TAGS = ["x", "y"]

keys = st.sampled_from(KEYS)
tags = st.sampled_from(TAGS)
who = st.integers(0, 1)


class TwoTiers(RuleBasedStateMachine):
    """A value is its number; the model knows what has happened since each was made, in the order of calls."""

    marks = Bundle("marks")

    @initialize()
    def begin(self) -> None:
        """Open the file twice."""
        self.folder = tempfile.mkdtemp()
        self.clock = ManualClock(NOW)
        self.tiers = [self.open() for _ in range(2)]
        self.told: list[set[Any]] = [set(), set()]
        for number, tier in enumerate(self.tiers):
            tier.watch(lambda change, number=number: self.told[number].add(change))  # type: ignore[misc]
        self.time = 0
        self.made: dict[bytes, tuple[int, bytes, tuple[str, ...], float]] = {}
        self.ended: dict[Change, int] = {}  # when a key, a tag or everything was last invalidated
        self.expired: dict[bytes, int] = {}
        self.surely: dict[bytes, bytes] = {}  # what must be there: written by a tier that was flushed, and nothing since

    def open(self) -> SQLiteTier:
        """One more tier."""
        return SQLiteTier(Path(self.folder) / "cache.db", clock=self.clock, write_delay=5, poll_interval=60)

    def teardown(self) -> None:
        """Leave nothing behind."""
        for tier in getattr(self, "tiers", ()):
            tier.close()
        shutil.rmtree(getattr(self, "folder", "/nonexistent"), ignore_errors=True)

    @rule(target=marks, by=who, asked=st.lists(keys, max_size=2))
    def mark(self, by: int, asked: list[bytes]) -> Any:
        """Begin to make values."""
        self.time += 1
        return (by, self.time, self.tiers[by].read(asked).mark if asked else self.tiers[by].mark())

    @rule(marked=marks, key=keys, tagged=st.sets(tags), replaces=st.booleans(), fresh=st.sampled_from([10.0, 100.0]))
    def write(self, marked: tuple[int, int, Any], key: bytes, tagged: set[str], replaces: bool, fresh: float) -> None:
        """Write a value that was made at a mark."""
        by, made, mark = marked
        self.time += 1
        value, labels, now = b"%d" % self.time, tuple(sorted(tagged)), self.clock()
        self.made[value] = (made, key, labels, now + 2 * fresh)
        self.tiers[by].write({key: Record(value, now, now + fresh, now + 2 * fresh, labels)}, mark, replaces=replaces)
        self.surely.pop(key, None)

    @rule(by=who, key=keys, tagged=st.sets(tags))
    def put(self, by: int, key: bytes, tagged: set[str]) -> None:
        """Set a value now, for sure."""
        tier, other = self.tiers[by], self.tiers[1 - by]
        other.flush()
        self.time += 1
        value, labels, now = b"%d" % self.time, tuple(sorted(tagged)), self.clock()
        self.made[value] = (self.time, key, labels, now + 2000)
        tier.write({key: Record(value, now, now + 1000, now + 2000, labels)}, tier.mark(), replaces=True)
        tier.flush()
        self.surely[key] = value

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
        assert was_there or key not in self.surely or self.made[self.surely[key]][3] - 1000 <= self.clock() or key in self.expired
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
        """Close and open."""
        self.tiers[by].close()

    @rule(seconds=st.sampled_from([1.0, 15.0, 150.0]))
    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due be done."""
        self.clock.advance(seconds)
        assert background.wait(TIMEOUT)

    @rule(by=who, key=keys)
    def noticed(self, by: int, key: bytes) -> None:
        """Whatever one does, the other is told."""
        assert background.wait(TIMEOUT)
        self.told[1 - by].clear()
        self.tiers[by].delete([key])
        self.end(Change(key))
        self.clock.advance(60)
        assert background.wait(TIMEOUT)
        assert Change(key) in self.told[1 - by]

    @invariant()
    def nothing_comes_back(self) -> None:
        """Both tiers give only what may be given."""
        for tier in getattr(self, "tiers", ()):
            found = dict(tier.read(KEYS).records)
            for key in KEYS:
                assert tier.read([key]).records.get(key) == found.get(key)
            for key, record in found.items():
                made, of, labels, kept = self.made[record.value]
                assert (of, labels, kept) == (key, record.tags, record.kept_until)
                assert kept > self.clock()
                ends = [Change(), Change(key), *(Change(tag=tag) for tag in labels)]
                assert all(self.ended.get(end, 0) < made for end in ends), "what was invalidated is back"
                if self.expired.get(key, 0) > made:
                    assert record.fresh_until <= self.clock(), "what has expired is fresh"
            for key, value in self.surely.items():
                if self.made[value][3] > self.clock():
                    assert found[key].value == value, "what was written is lost"


TestTwoTiers = TwoTiers.TestCase
TestTwoTiers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
