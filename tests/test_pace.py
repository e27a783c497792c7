"""Polls in parts: as long as they may take, with commands heard between them."""

from sysquant import control, live, pace
from sysquant.mailbox import Letter
from tests.market import ticks
from tests.test_live import KEYS, MemoryFeed, session


def test_parts_are_as_long_as_they_may_take(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pace, "_KEEPS", 2**-2)
    events, lengths = ticks(1_000), []
    measured = pace.Pace(2**-3)
    for each_s in (2**-10, 2**-13, 2**-7):
        for part in measured.parts(events):
            lengths.append(len(part))
            now[0] += each_s * len(part)
    assert lengths == [1_000, 128, 512, 360, 1_000]


class OneLetter:
    """A mailbox with one letter, there when it is asked for the nth time."""

    name = "once"

    def __init__(self, at: int) -> None:
        self.raw, self.at, self.asked = b"", at, 0
        self.answers: dict[str, bytes] = {}

    def seek(self, mark):
        pass

    def take(self):
        self.asked += 1
        return [Letter(self.raw, "1")] if self.asked == self.at else []

    def answer(self, answers):
        self.answers |= answers

    def close(self):
        pass


def test_a_command_is_heard_between_the_parts_of_a_poll(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "_STEP_S", 1e-9)  # each event is a part
    events, tables, mailbox = ticks(300), {}, OneLetter(at=200)
    runner = session(tmp_path, MemoryFeed(events, size=300), tables, mailboxes=(mailbox,))
    mailbox.raw = control.write(
        control.Halt(), KEYS, book="test", journal=runner.journal.id, role="operate"
    )
    runner.run()
    (answer,) = mailbox.answers.values()
    halted = control.read_answer(answer, KEYS).seq
    found = {
        name: [row for table in tables[name].values() for row in table.to_pylist()]
        for name in ("inputs", "orders")
    }
    kinds = [row["kind"] for row in found["inputs"]]
    assert kinds[: halted - 1].count("ticks") == 199
    assert kinds.count("ticks") == 300
    sent = [row["seq"] for row in found["orders"]]
    assert sent
    assert max(sent) < halted
