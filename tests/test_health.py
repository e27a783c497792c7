"""A session says how it is: a heartbeat from its loop, what is wrong by it, and both over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from runners.kafka import free_ports
from sysquant import health
from sysquant.errors import ConfigError, DataError, FeedError
from sysquant.health import Beacon, Heartbeat, Limits, is_alive, judge, read_heartbeat, served
from sysquant.runtime import Runtime
from sysquant.types import Poll, Ticks
from sysquant.vitals import Measures
from tests.market import ticks
from tests.test_live import MemoryFeed, session

pytest_plugins = ["tests.served"]

NOW = 1_700_000_000 * 10**9
LIMITS = Limits(start_s=120, hung_s=10, lost_s=5, silent_s=60)


def beat(state="running", *, age_s=0.0, away_s=0.0, quiet_s=0.0, limits=LIMITS, **values):
    """A heartbeat, so many seconds before `NOW`."""
    ago = {"ts": age_s, "connected_ts": away_s, "record_ts": quiet_s, "commit_ts": quiet_s}
    given = {name: NOW - round(seconds * 1e9) for name, seconds in ago.items()}
    given |= {"pid": os.getpid(), "started": psutil.Process().create_time()}
    given |= {"book": "a", "run": "r", "reason": "", "engine_ts": 1, "outbox_rows": 3}
    return Heartbeat(state=state, limits=limits, **given | values)


@pytest.mark.parametrize(
    ("found", "alive", "kind", "said"),
    [
        (beat(), True, "", ""),
        (beat(age_s=9.9, away_s=4.9, quiet_s=59), True, "", ""),
        (beat(age_s=30), False, "dead", "is gone, 30 s after its last beat"),
        (beat(), False, "dead", "is gone, 0 s after"),
        (beat("starting"), False, "dead", "is gone"),
        (beat("held"), False, "dead", "is gone"),
        (beat("failed", reason="error: the disk"), False, "dead", "it ended: error: the disk"),
        (beat("ended", age_s=1e6), False, "", ""),
        (beat("ended", age_s=1e6), True, "", ""),
        (beat("stopping", age_s=3, reason="SIGTERM"), False, "", ""),
        (beat("stopping", reason="error: the disk"), False, "dead", "it ended: error: the disk"),
        (beat("stopping", age_s=11), True, "hung", "without a beat for 11 s"),
        (beat(age_s=10.1), True, "hung", "runs, without a beat for 10 s"),
        (beat("starting", age_s=119), True, "", ""),
        (beat("starting", age_s=121), True, "hung", "121 s"),
        (beat("starting", away_s=50, quiet_s=90), True, "", ""),
        (beat(away_s=5.1), True, "lost", "the feed is not connected, for 5 s"),
        (beat(away_s=90, quiet_s=90), True, "lost", "not connected"),
        (beat(quiet_s=61), True, "silent", "connected, without a record for 61 s"),
        (beat("held", away_s=90, quiet_s=90), True, "held", "3 rows wait"),
        (beat(quiet_s=1e6, limits=Limits(120, 10, 5, None)), True, "", ""),
    ],
)
def test_what_is_wrong_is_told_by_the_heartbeat(found, alive, kind, said):
    problem = judge(found, NOW, is_alive=alive)
    assert (problem.kind if problem else "") == kind
    assert said in (problem.detail if problem else "")


def test_a_process_is_known_by_its_number_and_its_start():
    mine = beat()
    assert is_alive(mine)
    assert not is_alive(msgspec.structs.replace(mine, started=mine.started - 3600))
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdout=subprocess.DEVNULL)
    theirs = msgspec.structs.replace(
        mine, pid=child.pid, started=psutil.Process(child.pid).create_time()
    )
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(theirs)  # not yet reaped
    child.wait()
    assert not is_alive(theirs)


def beacon(directory, *, rows=0, **runtime):
    """Of a book whose journal is said to lie there; engine time is 5."""
    journal: Any = SimpleNamespace(directory=directory, id="r", outbox_rows=rows)
    return Beacon(journal, SimpleNamespace(engine_ts=5), Runtime(**runtime))


def test_a_heartbeat_is_written_once_a_second_and_when_the_state_changes(tmp_path, monkeypatch):
    assert read_heartbeat(tmp_path) is None
    clock = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: clock[0])
    written = beacon(tmp_path, silent_s=None, rows=2)
    written.beat("starting")
    written.beat("running")
    found = read_heartbeat(tmp_path)
    written.beat("running")
    assert found == read_heartbeat(tmp_path) == written.last
    assert (found.state, found.engine_ts, found.book) == ("running", 5, tmp_path.name)
    assert (found.pid, found.outbox_rows) == (os.getpid(), 2)
    assert found.limits == Limits(120.0, 10.0, 5.0, None)
    clock[0] += 1.0
    written.beat("running")
    assert written.last.ts > found.ts
    assert read_heartbeat(tmp_path) == written.last
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat.json"]


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    written = beacon(tmp_path / "gone")
    written.beat("running")
    assert "no heartbeat reason=" in caplog.text


def test_a_session_with_a_full_outbox_is_held_and_one_that_ends_by_an_error_has_failed(tmp_path):
    written = beacon(tmp_path, rows=10, outbox_rows=10)
    for state, reason, said in (
        ("starting", "", "starting"), ("running", "", "held"), ("ended", "SIGTERM", "ended"),
        ("stopping", "error: x", "stopping"), ("ended", "error: x", "failed"),
    ):  # fmt: skip
        written.beat(state, reason)
        assert (written.last.state, written.last.reason) == (said, reason)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"pid": 1', b"\xff"])
def test_what_is_no_heartbeat_is_said_to_be_none(tmp_path, content):
    (tmp_path / health.FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"heartbeat\.json cannot be read: .* writes it anew"):
        read_heartbeat(tmp_path)


# -- a session in one process


def states(monkeypatch):
    """States that beats of this process name, in their order."""
    said, write = [], Beacon.beat

    def noted(self, state, reason=""):
        if said[-1:] != [state]:
            said.append(state)
        write(self, state, reason)

    monkeypatch.setattr(Beacon, "beat", noted)
    return said


def test_a_session_beats_from_its_start_to_its_end(tmp_path, monkeypatch):
    said, tables = states(monkeypatch), {}
    events = ticks(300)
    runner = session(tmp_path, MemoryFeed(events), tables, report_s=0.01)
    runner.run()
    assert said == ["starting", "running", "stopping", "ended"]
    last = read_heartbeat(tmp_path)
    assert (last.state, last.reason) == ("ended", "end of feed")
    assert last.engine_ts == events.ts.max()
    assert last.commit_ts >= last.record_ts > 0
    assert judge(last, time.time_ns(), is_alive=False) is None
    rows = [row for table in tables["runtime_metrics"].values() for row in table.to_pylist()]
    assert [*rows[0]] == ["run", *Measures.__dataclass_fields__]
    counted = sum(row["ticks_per_s"] * row["period_s"] for row in rows)
    assert counted == pytest.approx(len(events))


def test_a_session_that_ends_by_an_error_is_dead(tmp_path):
    runner = session(tmp_path, MemoryFeed(ticks(300)), {})
    runner.feed.breaks_at = 200
    with pytest.raises(FeedError):
        runner.run()
    last = read_heartbeat(tmp_path)
    assert (last.state, last.reason) == ("failed", "error: the broker refuses for good")
    problem = judge(last, time.time_ns(), is_alive=False)
    assert problem and problem.kind == "dead"


def test_a_session_that_waits_for_the_store_says_so(tmp_path):
    runner = session(tmp_path, MemoryFeed(ticks(300)), {}, outbox_rows=1)
    runner.journal.commit(None, {"feed_stats": runner._stats()["feed_stats"]})
    assert runner._is_held_back()
    problem = judge(runner.beacon.last, time.time_ns(), is_alive=True)
    assert problem and problem.kind == "held"
    runner.outbox.close()
    runner.journal.close()


def test_measures_reach_the_store_and_every_column_says_what_it_is(tmp_path, client):
    tables = {}
    session(tmp_path, MemoryFeed(ticks(300)), tables).run()
    for table in tables["runtime_metrics"].values():
        client.insert_arrow("runtime_metrics", table)
    found = client.query_arrow("SELECT * FROM runtime_metrics")
    assert found.num_rows == 1
    assert np.isnan(found["exchange_ms_p99"][0].as_py())
    assert found["memory_bytes"][0].as_py() > 1e7
    described = client.query("DESCRIBE TABLE runtime_metrics").named_results()
    comments = {row["name"]: row["comment"] for row in described}
    assert [*comments] == ["run", *Measures.__dataclass_fields__]
    assert all(comments.values())


# -- over HTTP


def fetched(url):
    """Status and text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def page(tmp_path):
    """A served beacon, and the address of its pages."""
    (port,) = free_ports(1)
    (tmp_path / "momentum-kafka").mkdir()
    told = beacon(tmp_path / "momentum-kafka", silent_s=5.0)
    with served(port, told):
        yield told, f"http://127.0.0.1:{port}"


def test_healthz_answers_200_while_all_is_well_and_503_with_what_is_wrong(page):
    told, url = page
    told.beat("running")
    status, text = fetched(f"{url}/healthz")
    assert status == 200
    found = json.loads(text)
    assert found["problem"] is None
    assert (found["heartbeat"]["book"], found["heartbeat"]["state"]) == (
        "momentum-kafka", "running",
    )  # fmt: skip
    told.last = msgspec.structs.replace(told.last, record_ts=time.time_ns() - 6 * 10**9)
    status, text = fetched(f"{url}/healthz")
    assert (status, json.loads(text)["problem"]["kind"]) == (503, "silent")
    told.last = msgspec.structs.replace(told.last, ts=time.time_ns() - 11 * 10**9)
    status, text = fetched(f"{url}/healthz")
    assert (status, json.loads(text)["problem"]["kind"]) == (503, "hung")


def test_metrics_are_the_columns_of_runtime_metrics(page):
    told, url = page
    told.beat("running")
    status, before = fetched(f"{url}/metrics")
    assert status == 200
    assert 'sysquant_is_well{book="momentum-kafka"} 1.0' in before
    assert "ticks_per_s" not in before
    told.vitals.polled(Poll(ticks(10), lag=4))
    told.vitals.taken(ticks(10))
    told.measure(1.5, 0.0, snapshot_age_s=0.0)
    _, text = fetched(f"{url}/metrics")
    named = [line.split("{")[0] for line in text.splitlines() if not line.startswith("#")]
    columns = [name for name in Measures.__dataclass_fields__ if name != "ts"]
    assert named == [f"sysquant_{name}" for name in ("is_well", "beat_age_s", *columns)]
    assert 'sysquant_lag_records{book="momentum-kafka"} 4.0' in text
    assert 'sysquant_exchange_ms_p50{book="momentum-kafka"} NaN' in text


def test_other_pages_are_not_there(page):
    assert fetched(f"{page[1]}/other") == (404, "there is: /healthz, /metrics\n")


def test_pages_are_served_on_127_0_0_1_alone(page):
    port = int(page[1].rpartition(":")[2])
    listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"]
    assert [address.ip for address in listening if address.port == port] == ["127.0.0.1"]


def test_nothing_is_served_by_default_and_a_taken_port_is_one_sentence(tmp_path):
    assert Runtime().health_port is None
    told = beacon(tmp_path)

    def listening():
        found = psutil.Process().net_connections("tcp")
        return sum(connection.status == "LISTEN" for connection in found)

    before = listening()
    with served(None, told):
        assert listening() == before
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = rf"health_port must be free .* was {port}: .*or 0"
        with pytest.raises(ConfigError, match=said), served(port, told):
            pass
    with served(0, told):
        assert listening() == before + 1
    assert listening() == before


def test_pages_answer_while_the_loop_hangs(tmp_path):
    (port,) = free_ports(1)

    class StuckFeed(MemoryFeed):
        answers = []

        def poll(self, timeout_s):
            if self.at:
                time.sleep(0.4)
                self.answers.append(fetched(f"http://127.0.0.1:{port}/healthz"))
            return super().poll(timeout_s)

    runner = session(tmp_path, StuckFeed(ticks(300), size=200), {}, hung_s=0.2)
    with served(port, runner.beacon):
        runner.run()
    ((status, text),) = StuckFeed.answers
    assert (status, json.loads(text)["problem"]["kind"]) == (503, "hung")


def test_a_feed_that_is_not_connected_is_lost_and_one_without_records_silent(tmp_path):
    class Feed(MemoryFeed):
        def poll(self, timeout_s):
            time.sleep(0.05)
            return Poll(Ticks.empty(), next_offset={0: 0}, is_connected=False)

    limits = {"lost_s": 0.1, "silent_s": 0.3, "stop_after_idle_s": 0.2}
    runner = session(tmp_path, Feed(ticks(1)), {}, **limits)
    runner._finish = lambda **_: None
    runner.run()
    runner.beacon._next = 0.0
    runner.beacon.beat("running")
    found = judge(runner.beacon.last, time.time_ns(), is_alive=True)
    assert found and found.kind == "lost"
    now = time.time_ns() + 300_000_000
    connected = msgspec.structs.replace(runner.beacon.last, ts=now, connected_ts=now)
    found = judge(connected, now, is_alive=True)
    assert found and found.kind == "silent"
