"""5 % of ticks up to 500 ms late: open bars are those of sorted ticks, no late price trades."""

from sysquant.feeds.synthetic import SAMPLE
from tests.chaos.disorder import bars_of, late, shuffled, untimely
from tests.chaos.harness import scenario
from tests.chaos.rows import WRONG, compared, fills_at_others, traded
from tests.chaos.session import Session, Source, market


@scenario(
    small={"seconds": 120}, full={"seconds": 7200},
    zero=(*WRONG, "wrong_bars", "miscounted", "late_fills"),
    least={"late": 10, "fills": 10, "too_late": 1},
)  # fmt: skip
def shuffled_ticks(lab, seed, seconds):
    topic = lab.topic()
    with Source(lab, topic, shuffled(market(seconds), seed)) as source:
        source.finish()
        with Session(lab, topic) as session:
            session.settle()
    with lab.client(session.name) as client:
        ticks = traded(client, session.run)
        counted = client.query("SELECT max(late) FROM feed_stats").result_rows[0][0]
    is_late, too_late = late(ticks), untimely(ticks)
    found = {"late": int(is_late.sum()), "too_late": int(too_late.sum())}
    found["miscounted"] = abs(counted - found["late"])
    in_order = bars_of(ticks[~too_late], SAMPLE, in_order=True)
    found["wrong_bars"] = int(bars_of(ticks, SAMPLE) != in_order)
    found["late_fills"] = fills_at_others(session, ticks[~is_late])
    return compared(session) | found
