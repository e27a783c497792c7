"""Models of a running book: taken whole between two batches, refused with a reason, rolled back."""

import numpy as np
import pytest

from sysquant import control
from sysquant.errors import ConfigError
from sysquant.journal import Journal
from sysquant.models.manifest import TrainedOn
from sysquant.recovery import replay
from sysquant.swapping import Serving
from sysquant.types import SECOND
from tests.market import START, ticks
from tests.published import Published
from tests.test_desk import commanded, events_of
from tests.test_live import MemoryFeed, rows


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "registry")


class Publishing(MemoryFeed):
    """A feed at whose records something is done to the registry."""

    def __init__(self, events, done=None, **more):
        super().__init__(events, **more)
        self.done = dict(done or {})

    def poll(self, timeout_s):
        for at in [at for at in self.done if at <= self.at]:
            self.done.pop(at)()
        return super().poll(timeout_s)


def traded(tmp_path, published, *said, done=None, count=1_500, directory="book", **more):
    """A session of which an operator speaks; its runner, answers and tables."""
    tables, loader = {}, published.loader()
    runner, mailbox, _ = commanded(
        tmp_path / directory, *said, tables=tables, feed=Publishing(ticks(count), done),
        book=published.book(loader), loader=loader, **more,
    )  # fmt: skip
    runner.run()
    return runner, mailbox.told(), tables


def asked(tables, name="orders"):
    """Model of each row of the strategy that asks one, in order; others have none."""
    found = rows(tables, name)
    assert {row["model"] for row in found if row["strategy"] != "asks"} == {""}
    return [row["model"] for row in found if row["strategy"] == "asks"]


def served(tables):
    return [(row["strategy"], row["model"]) for row in rows(tables, "models_served")]


def test_the_newest_model_decides_from_the_first_bar_on(tmp_path, published):
    published.publish(-1.0)
    name = published.publish()
    _, _, tables = traded(tmp_path, published)
    assert set(asked(tables)) == set(asked(tables, "signals")) == {name}
    assert served(tables) == [("asks", name)]


def test_a_book_without_a_model_trades_without_opinion_and_takes_one_that_comes(
    tmp_path, published
):
    names = []
    _, told, tables = traded(
        tmp_path, published, (485, control.Status()), (679, control.Refresh("asks")),
        (970, control.Status()), done={582: lambda: names.append(published.publish())},
    )  # fmt: skip
    before, answer, after = told
    assert answer.ok and answer.text == "asks looks for its newest model"
    said = before.status["strategies"]["asks"]["model"]
    assert said["model"] == "" and "there is no model yet" in said["said"]
    assert before.status["strategies"]["flip"]["model"] == {}
    assert after.status["strategies"]["asks"]["model"]["model"] == names[0]
    assert set(asked(tables)) == set(names)


def test_every_order_has_one_whole_model_over_many_swaps_and_is_the_same_again(tmp_path, published):
    names = []
    done = {97 * n: lambda n=n: names.append(published.publish(seed=n)) for n in range(1, 15)}
    said = [(97 * (n + 1), control.Refresh("asks")) for n in range(1, 15)]
    runner, told, tables = traded(
        tmp_path, published, *said, done=done, count=1_800, snapshot_s=3600.0
    )
    assert all(answer.ok for answer in told) and len(set(names)) == 14
    assert [model for _, model in served(tables)] == names
    found = asked(tables, "signals")
    assert len(set(found)) > 10 and set(found) <= {"", *names}
    assert found == sorted(found), "none that was replaced comes back"
    journal = Journal(tmp_path / "book")
    again = published.book(published.loader())
    for entry in journal.inputs():
        replay(again, entry)
    journal.close()
    assert again.models == {"asks": names[-1]}
    assert again.positions() == runner.engine.positions()


def test_a_bad_model_is_refused_and_the_old_one_serves_on(tmp_path, published):
    first = published.publish()

    def tamper():
        name = published.publish(-1.0)
        (published.registry.directory / "asks" / name / "model.skops").write_bytes(b"PK")

    _, told, tables = traded(
        tmp_path, published, (582, control.Refresh("asks")), (970, control.Status()),
        done={485: tamper},
    )  # fmt: skip
    said = told[1].status["strategies"]["asks"]["model"]
    assert said["model"] == first and "is not what was signed" in said["said"]
    assert set(asked(tables)) == {first}
    (event,) = events_of(tables, "model_refused")
    assert event["strategy"] == "asks" and "model.skops is not what was signed" in event["detail"]


def test_a_rollback_holds_over_restarts_until_a_newer_model_comes(tmp_path, published):
    old, new = published.publish(), published.publish(-1.0)
    _, told, tables = traded(
        tmp_path, published, (485, control.Rollback("asks", 1)), (776, control.Refresh("asks")),
        (970, control.Status()), (970, control.Rollback("asks", 9)), (1_261, control.Status()),
    )  # fmt: skip
    assert [model for _, model in served(tables)] == [new, old]
    assert "rolled back from" in told[2].status["strategies"]["asks"]["model"]["said"]
    assert "there is no model asks 9" in told[4].status["strategies"]["asks"]["model"]["said"]
    _, _, tables = traded(tmp_path, published, count=1_900)
    assert set(asked(tables)) == {old} and served(tables) == []
    newest = published.publish(seed=3)
    _, _, tables = traded(tmp_path, published, count=2_300)
    assert newest in asked(tables) and served(tables) == [("asks", newest)]


def test_of_a_number_no_other_model_is_taken_than_the_one_that_was_named(tmp_path, published):
    old, new = published.publish(), published.publish(-1.0)
    content = old.partition("-")[2]
    _, told, tables = traded(
        tmp_path, published, (485, control.Rollback("asks", 1, "deadbeef0000")),
        (582, control.Status()), (679, control.Rollback("asks", 1, content + "00ff")),
        (776, control.Status()), (873, control.Rollback("asks", 1, content[:5])),
        (970, control.Status()),
    )  # fmt: skip
    said, long, short = (one.status["strategies"]["asks"]["model"] for one in told[1::2])
    assert said["model"] == new
    assert f"model asks 1 is {old}, asked for was 000001-deadbeef0000" in said["said"]
    assert long["model"] == short["model"] == old, "by its whole id, or how that begins"
    assert [model for _, model in served(tables)] == [new, old]
    (event,) = events_of(tables, "model_refused")
    assert "asked for was" in event["detail"]


def test_a_model_that_expires_gives_no_opinion_from_then_on(tmp_path, published):
    events = ticks(1_500)
    name = published.publish(expires=int(events.ts[700]))
    _, told, tables = traded(tmp_path, published, (1_455, control.Status()))
    assert served(tables) == [("asks", name), ("asks", "")]
    assert "has expired" in told[0].status["strategies"]["asks"]["model"]["said"]
    late = [row for row in rows(tables, "signals") if row["strategy"] == "asks"]
    times = np.array([row["ts"].value for row in late])
    assert len(times) and times.max() < events.ts[900]


def test_a_model_that_knows_what_is_still_to_come_is_refused(tmp_path, published):
    published.publish()
    published.publish(trained=TrainedOn(1, 2, START + 10 * 3600 * SECOND, 9, "hash"))
    _, told, tables = traded(tmp_path, published, (300, control.Status()))
    said = told[0].status["strategies"]["asks"]["model"]
    assert "were known 10.0 hours after the market's time" in said["said"]
    assert said["model"] == ""  # the newest was asked for, and nothing stands in for it
    assert asked(tables) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (control.Refresh("flip"), "'flip' uses no model"),
        (control.Refresh("ask"), "did you mean 'asks'"),
        (control.Rollback("flip", 1), "'flip' uses no model"),
    ],
)
def test_what_uses_no_model_cannot_be_refreshed(tmp_path, published, command, said):
    _, told, _ = traded(tmp_path, published, (97, command), count=300)
    assert not told[0].ok and said in told[0].text


def test_how_far_the_market_has_moved_from_training_is_told(tmp_path, published):
    name = published.publish()
    _, (status,), tables = traded(
        tmp_path, published, (3_880, control.Status()), count=4_000, report_s=0.01
    )
    told = rows(tables, "drift")
    said = [row["psi"] for row in told if row["kind"] == "prediction"]
    assert status.status["strategies"]["asks"]["model"]["drift"] in said
    assert {row["model"] for row in told} == {name} and {row["strategy"] for row in told} == {
        "asks"
    }
    assert {(row["kind"], row["name"]) for row in told} == {
        ("feature", "change"), ("prediction", "down"), ("prediction", "flat"), ("prediction", "up"),
    }  # fmt: skip
    counts = sorted({row["rows"] for row in told})
    assert counts[0] >= 200 and all(row["psi"] >= 0 for row in told)
    assert len(told) < 4 * 60, "not at every report"


# -- limits, and books that hold what they have

HOLDS = Serving(holds=True)


def test_a_new_model_that_loses_too_much_gives_way_to_the_one_before(tmp_path, published):
    good = published.publish()
    bad = []
    options = {"serving": Serving(most_lost=1e-4), "count": 2_500}
    _, told, tables = traded(
        tmp_path, published, (679, control.Refresh("asks")), (2_328, control.Refresh("asks")),
        (2_425, control.Status()), done={582: lambda: bad.append(published.publish(-1.0))},
        **options,
    )  # fmt: skip
    assert [model for _, model in served(tables)] == [good, bad[0], good]
    (event,) = events_of(tables, "went_back")
    assert f"lost since {bad[0]} serves, most 50.00; {good} in place of" in event["detail"]
    assert "rolled back from" in told[-1].status["strategies"]["asks"]["model"]["said"]
    assert asked(tables)[-1] == good
    _, _, tables = traded(tmp_path, published, **{**options, "count": 3_000})
    assert served(tables) == [] and set(asked(tables)) == {good}


def test_where_the_one_before_may_not_serve_none_does(tmp_path, published):
    good = published.publish()

    def tamper():
        published.publish(-1.0)
        (published.registry.directory / "asks" / good / "model.skops").write_bytes(b"PK")

    _, _, tables = traded(
        tmp_path, published, (679, control.Refresh("asks")), done={582: tamper},
        serving=Serving(most_lost=1e-4), count=2_500,
    )  # fmt: skip
    assert [model for _, model in served(tables)][2:] == [""]
    assert "is not what was signed" in events_of(tables, "went_back")[0]["detail"]


def test_the_limit_is_of_what_was_lost_since_the_swap_over_a_restart(tmp_path, published):
    good = published.publish()
    options = {"serving": Serving(most_lost=0.03)}
    _, _, tables = traded(tmp_path, published, **options)
    bad = published.publish(-1.0)
    lost = []
    for count in (1_900, 2_300, 2_700, 3_100, 3_500):
        runner, _, tables = traded(tmp_path, published, count=count, **options)
        account = runner.engine.accounts()["asks"]
        lost.append(account["equity"])
        if runner.engine.models["asks"] == good:
            break
    assert len(lost) > 1, "it needed more than one session to lose so much"
    assert [model for _, model in served(tables)] == [good]
    assert bad in events_of(tables, "went_back")[0]["detail"]


def test_a_model_that_says_one_thing_only_gives_way(tmp_path, published):
    good, bad = published.publish(), []
    _, _, tables = traded(
        tmp_path, published, (679, control.Refresh("asks")),
        done={582: lambda: bad.append(published.publish(scale=1e-6))},
        serving=Serving(most_drift=4.0), count=2_500, report_s=0.01,
    )  # fmt: skip
    assert [model for _, model in served(tables)] == [good, bad[0], good]
    assert "has drifted by" in events_of(tables, "went_back")[0]["detail"]


def test_a_book_that_holds_takes_the_first_and_then_what_is_promoted(tmp_path, published):
    first, later = published.publish(), []
    _, told, tables = traded(
        tmp_path, published, (582, control.Refresh("asks")), (679, control.Status()),
        (776, control.Promote("asks", 1)), (873, control.Promote("asks", 2)),
        (970, control.Status()), serving=HOLDS,
        done={485: lambda: later.append(published.publish(seed=4))},
    )  # fmt: skip
    assert told[0].text == f"asks holds {first}: a newer one is to be promoted"
    assert told[1].status["strategies"]["asks"]["model"]["model"] == first
    assert not told[2].ok and told[2].text == "model 1 has served already: go back to 1 instead"
    assert told[3].ok and told[4].status["strategies"]["asks"]["model"]["model"] == later[0]
    assert [model for _, model in served(tables)] == [first, later[0]]
    published.publish(seed=5)
    _, _, tables = traded(tmp_path, published, count=1_900, serving=HOLDS)
    assert served(tables) == [] and set(asked(tables)) == {later[0]}


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), "much"])
def test_a_limit_that_cannot_be_meant_is_refused(limit):
    with pytest.raises(ConfigError, match=r"serving\.most_lost"):
        Serving(most_lost=limit)
    with pytest.raises(ConfigError, match=r"serving\.most_drift"):
        Serving(most_drift=limit)
