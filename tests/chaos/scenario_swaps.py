"""Models published and swapped under a full feed: each decision is of one whole model."""

import random
import re
import signal
import statistics
import sys
from contextlib import closing

from sysquant import control
from sysquant.activity import closed_bars
from sysquant.feeds.synthetic import SAMPLE
from sysquant.models.families import pipeline_of
from sysquant.models.labels import QuantileLabels
from sysquant.models.manifest import signing_key
from sysquant.models.registry import Registry
from sysquant.models.training import fit, training_set
from sysquant.strategies.ml_direction import MlDirection
from sysquant.types import SECOND
from tests.chaos.altered import Machine
from tests.chaos.harness import scenario
from tests.chaos.operating import Operator
from tests.chaos.rows import WRONG, compared
from tests.chaos.session import Session, Source, market, until
from tests.published import publish

_SWITCH_S = 0.0002  # or each file that is written waits for the source of ticks, Python's 5 ms
_PAUSE_MS = 10.0
BOOK = ("book=all", "book.only=[ml_direction,momentum]", "book.strategies.momentum.fast=3",
        "book.strategies.momentum.slow=9", "book.strategies.ml_direction.full=0.34",
        "book.strategies.ml_direction.half=0.335", "runtime.snapshot_s=5")  # fmt: skip
ASKS = MlDirection(full=0.34, half=0.335)
ASKED = """
    SELECT uniqExact(model), countIf(model != '' AND NOT has({names:Array(String)}, model))
    FROM (
        SELECT run, strategy, model FROM signals UNION ALL SELECT run, strategy, model FROM orders
    )
    WHERE run = {run:String} AND strategy = 'ml_direction'
"""


class Trainer:
    """Publishes models of the scenario's strategy, each another one, as fast as it is asked."""

    def __init__(self, lab, count):
        bars = closed_bars(market(300), SAMPLE, SECOND)
        self.rows = training_set(ASKS, bars, QuantileLabels(horizon="20s"))
        recipes = ({"c": 1.0 / (1 + number)} for number in range(count))
        self.models = [
            fit(pipeline_of("logistic_regression", one), self.rows).classifier for one in recipes
        ]
        self.key = signing_key(lab.home / "data" / "keys")
        self.registry, self.names = Registry(lab.home / "data" / "models"), list[str]()

    def publish(self):
        model = self.models[len(self.names)]
        self.names.append(publish(
            self.registry, self.key, model, self.rows.x, lineage="ml_direction",
            strategy=repr(ASKS), features=self.rows.features,
        ))  # fmt: skip

    def published(self):
        """Names of all, those of an earlier round among them: a session begins with the last."""
        return [one.name for one in self.registry.numbers("ml_direction").values()]


@scenario(
    small={"swaps": 4, "per_second": 2_000}, full={"swaps": 100, "per_second": None},
    most={"own_pause_ms": _PAUSE_MS}, least={"fills": 20, "models": 3}, zero=(*WRONG, "strange"),
)  # fmt: skip
def swaps(lab, seed, swaps, per_second):
    """A pause is of the swap and of a machine that is busy with brokers and sources beside it.

    `own_pause_ms` is the longest of a hundred less what one in a hundred sleeps is longer by.
    """
    with Machine() as machine:
        figures, said = swapped(lab, swaps, per_second)
    took = re.findall(r"swapped took_ms=([0-9.]+) cpu_ms=([0-9.]+)", said)
    pauses, cpu = ([float(one) for one in each] for each in zip(*took, strict=True))
    return figures | {
        "pause_ms": max(pauses), "pause_p50_ms": statistics.median(pauses),
        "long_pauses": sum(one > _PAUSE_MS for one in pauses), "cpu_ms": max(cpu),
        "machine_p99_ms": machine.p99_ms, "own_pause_ms": max(pauses) - machine.p99_ms,
    }  # fmt: skip


@scenario(
    small={"swaps": 2, "per_second": 2_000}, full={"swaps": 50, "per_second": 5_000},
    least={"fills": 20, "models": 2}, zero=(*WRONG, "strange"),
)  # fmt: skip
def swaps_killed(lab, seed, swaps, per_second):
    figures, _ = swapped(lab, swaps, per_second, random.Random(seed))
    return figures


def swapped(lab, swaps, per_second, draw=None):
    """Figures of what was decided and recorded, and what the session said at last."""
    sys.setswitchinterval(_SWITCH_S)
    topic, trainer = lab.topic(), Trainer(lab, swaps)
    with Source(lab, topic, market(), per_second) as source, Session(lab, topic, *BOOK) as session:
        session.begin()
        for _ in range(swaps):
            trainer.publish()
            operator = Operator(session)
            assert operator.say(control.Refresh("ml_direction"))[0].ok
            if draw:
                session.advance(draw.randrange(3))
                session.end(signal.SIGKILL)
                session.begin()
            serves(operator, trainer.names[-1])
            session.advance(5)
        source.finish(at_once=True)
        said = session.settle(900).said  # the source is faster than the session
    with closing(lab.client(session.name)) as client:
        models, strange = client.query(
            ASKED, {"names": trainer.published(), "run": session.run}
        ).result_rows[0]  # fmt: skip
    return compared(session) | {"models": models, "strange": strange}, said


def serves(operator, name):
    """Wait until the strategy asks this model."""

    def is_it():
        answer, _ = operator.say(control.Status())
        return answer.status["strategies"]["ml_direction"]["model"]["model"] == name

    until(is_it)
