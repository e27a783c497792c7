"""The ingest's own loop: what it seals and when, and a topic that was made anew."""

import time

from sysquant.ingest import Ingest
from sysquant.journal import Journal
from sysquant.stop import StopRequest
from tests.market import UNIVERSE, ticks
from tests.test_live import MemoryFeed


class SlowOutbox:
    """A store that answers only after a while."""

    failing_since = None

    def __init__(self, after_s):
        self.after_s, self.sent = after_s, []

    def send(self, batches):
        self.sent += [(batch, time.monotonic()) for batch in batches]

    def _due(self):
        return [one for one in self.sent if time.monotonic() - one[1] >= self.after_s]

    @property
    def has_arrived(self):
        return any(batch.id not in self.told for batch, _ in self._due())

    told = frozenset()

    def arrived(self):
        found = [batch for batch, _ in self._due() if batch.id not in self.told]
        self.told = self.told | {batch.id for batch in found}
        return found

    def check(self):
        pass

    def flush(self, timeout_s):
        return True

    def close(self, timeout_s):
        pass


class Quiet(MemoryFeed):
    """Records, and then nothing for ever."""

    def poll(self, timeout_s):
        found = super().poll(timeout_s)
        if not len(found.events):
            time.sleep(0.01)
        return found


def ingest(journal, feed, outbox, **more):
    return Ingest(feed=feed, journal=journal, outbox=outbox, universe=UNIVERSE, **more)


def test_the_last_rows_are_sent_while_nothing_comes_though_a_batch_was_on_its_way(tmp_path):
    journal = Journal(tmp_path, seal_rows=97, seal_s=0.05)
    outbox = SlowOutbox(after_s=0.3)
    ingest(journal, Quiet(ticks(150)), outbox, stop_after_idle_s=1.0).run(StopRequest())
    rows = [(batch.rows, at - outbox.sent[0][1]) for batch, at in outbox.sent]
    assert [count for count, _ in rows] == [97, 53]
    assert rows[1][1] < 0.9, "before the end, which seals everything"


def test_a_topic_that_was_made_anew_is_read_from_its_start(tmp_path):
    def run(epoch, count):
        feed = Quiet(ticks(count))
        one = ingest(Journal(tmp_path), feed, SlowOutbox(0.0), epoch=epoch, stop_after_idle_s=0.2)
        one.run(StopRequest())
        return one.ticks

    assert [run("topic-a", 100), run("topic-a", 150)] == [100, 50]
    assert run("topic-b", 120) == 120
    assert run("topic-b", 130) == 10


def test_offsets_are_committed_when_the_store_has_their_rows(tmp_path):
    feed, slow = Quiet(ticks(150)), SlowOutbox(after_s=0.6)
    seen = []
    feed.commit = lambda offsets: seen.append((time.monotonic(), offsets))
    ingest(Journal(tmp_path, seal_s=0.05), feed, slow, stop_after_idle_s=1.2).run(StopRequest())
    assert seen[-1][1] == {0: 150}
    first_sent = slow.sent[0][1]
    assert all(at - first_sent >= 0.6 for at, offsets in seen if offsets)


def test_a_new_journal_goes_on_where_the_store_stands(tmp_path):
    asked = []

    def stands(epoch):
        asked.append(epoch)
        return {0: 60}

    for count in (100, 110):
        feed = Quiet(ticks(count))
        one = ingest(
            Journal(tmp_path), feed, SlowOutbox(0.0), epoch="e", stop_after_idle_s=0.2,
            stands=stands,
        )  # fmt: skip
        one.run(StopRequest())
        assert one.ticks == (40 if count == 100 else 10)
    assert asked == ["e"]


def test_offsets_of_an_earlier_life_follow_when_its_rows_arrive(tmp_path):
    never = SlowOutbox(after_s=60.0)
    ingest(Journal(tmp_path), Quiet(ticks(80)), never, stop_after_idle_s=0.2).run(StopRequest())
    feed = Quiet(ticks(80))
    ingest(Journal(tmp_path), feed, SlowOutbox(0.0), stop_after_idle_s=0.5).run(StopRequest())
    assert feed.committed == {0: 80}
