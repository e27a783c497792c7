"""Configuration: every option composes and builds, every mistake is answered."""

import copy
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache, partial

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from runners import compose, control, kafka, parts
from runners.command_line import check_command_line, groups_of, options_of
from runners.parts import universe_of
from sysquant.activity import bar_size
from sysquant.errors import ConfigError
from sysquant.serve import ensure_server
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Instrument
from tests import forked
from tests.conftest import REPOSITORY

pytest_plugins = ["tests.served"]

CONF = REPOSITORY / "conf"
ROOTS = sorted(path.stem for path in CONF.glob("*.yaml"))
BEGUN_FROM = {"check_whatif": "config"}  # whose groups they have
OPTIONS = [
    (r, g, o) for r in ROOTS if r not in BEGUN_FROM for g in groups_of(r) for o in options_of(g)
]
SOURCES = {path.stem: path.read_text() for path in (REPOSITORY / "runners").glob("*.py")}
RUNNERS = sorted(name for name, source in SOURCES.items() if "__main__" in source)
UNIVERSE = [Instrument("SIM:OAK", tick_size=0.01)]
UNIVERSE += [Instrument("BINANCE:BTCUSDT"), Instrument("COINBASE:BTC-USD")]

# What only a runner, or the person who starts it, knows.
GIVEN_BY_RUNNER = {
    "sysquant.feeds.kafka.KafkaFeed": ["universe"],
    "sysquant.feeds.replay.ReplayFeed": ["universe", "connect"],
    "sysquant.feeds.synthetic.SyntheticFeed": ["universe"],
    "sysquant.feeds.socket.SocketFeed": ["universe"],
    "sysquant.feeds.publish.Publisher": ["mark", "patience_s"],
}
SAID_BY_PERSON = {
    "mapping=bars": ["mapping.symbol=SIM:OAK", "mapping.label=left", "mapping.volume_unit=base"],
    "source=file": ["path=ticks.csv"],
    "source=binance_archive": ["source.start=2024-01-01"],
    "source=ccxt": ["source.start=2024-01-01"],
    "source=finnhub": ["source.venue.token=x"],
    "runtime=default": ["runtime.clock=event"],  # the runner puts it for `auto`
}
# Parameters that a file leaves out on purpose: they mean nothing there.
LEFT_OUT = {
    "mapping=ticks": {"label", "volume_unit"},
    "mapping=funding": {"label", "volume_unit"},
    "source=synthetic": {"end"},
    "source=store": {"interval"},
    "source=finnhub": {"hold_s", "give_up_s", "retry_s", "most_filled"},  # its trades have no ids
    "store=embedded": {"read_only", "wait_s"},
    "store=clickhouse": {"read_only", "wait_s"},
}
TICKS = "timestamp_ms,symbol,price,volume,received_at\n1,SIM:OAK,1.5,1,1970-01-01T00:00:00Z\n"


@pytest.fixture(autouse=True)
def resolvers():
    """What the entry point of a runner registers."""
    for name in ("home", "job", "about", "groups"):
        OmegaConf.register_new_resolver(name, lambda name=name: name, replace=True)


def composed(root, *words, hydra_too=False):
    return copy.deepcopy(_composed(root, words, hydra_too))


@cache  # a tenth of a second each
def _composed(root, words, hydra_too):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(root, list(words), return_hydra_config=hydra_too)


def root_of(name):
    # The root configuration of a runner; None where it needs no Hydra.
    found = re.search(r'@compose\.main\("(\w+)"', SOURCES[name])
    return found and found.group(1)


# -- every option


@pytest.mark.parametrize(("root", "group", "option"), OPTIONS)
def test_every_option_composes_with_every_root(root, group, option):
    node = composed(root, f"{group}={option}", *SAID_BY_PERSON.get(f"{group}={option}", []))[group]
    assert OmegaConf.to_container(node)  # no key of it is missing


@pytest.mark.parametrize(("root", "other"), BEGUN_FROM.items())
def test_a_root_that_begins_from_another_has_its_groups_and_keys(root, other):
    assert groups_of(root) == groups_of(other)
    words = ["strategy=breakout", "risk=canary", "risk.checks.0.limit=1", "execution=free"]
    check_command_line(root, words)
    own, theirs = composed(root, *words), composed(other, *words)
    assert own == OmegaConf.merge(own, theirs)
    with pytest.raises(ConfigError, match="did you mean 'desk'"):
        check_command_line(root, ["risk=dsk"])


@cache
def _nodes():
    # One node for each file that names an object, as its main user composes it (backfill reads
    # of `source`, and ingest of `feed`, less than there is), and those of the roots themselves.
    found = {}
    order = ["retain", "watchdog", "schedule", "challenge", "check_data", "retrain", "ingest"]
    order += ["backfill", "stream", "config"]
    for root in sorted(set(ROOTS) - BEGUN_FROM.keys(), key=order.index):
        for group in groups_of(root):
            for name in (f"{group}={option}" for option in options_of(group)):
                found[name] = composed(root, name, *SAID_BY_PERSON.get(name, []))[group]
    for root in ROOTS:
        found |= {k: n for k, n in composed(root).items() if k not in groups_of(root)}
    found |= {f"promotion {part}": node for part, node in composed("config").promotion.items()}
    return {k: n for k, n in found.items() if OmegaConf.is_dict(n) and "_target_" in n}


def test_every_file_that_names_an_object_builds_it(home, broker, topic, monkeypatch):
    (home / "ticks.csv").write_text(TICKS)
    dsn, server = ensure_server("chdb:data/store")
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    arguments = {"universe": UNIVERSE, "connect": lambda: None, "mark": "", "patience_s": None}
    try:
        for name, node in _nodes().items():
            given = {k: arguments[k] for k in GIVEN_BY_RUNNER.get(node._target_, [])}
            if "topic" in node:
                changed = {"bootstrap": broker.bootstrap, "topic": topic, **broker.client}
                node = OmegaConf.merge(node, changed)
            built = compose.build(node, **given)
            assert built is not None, name
            if hasattr(built, "close"):
                built.close()
    finally:
        server.terminate()
        server.wait(10)


def test_every_parameter_stands_in_its_file_and_can_be_set_without_a_plus():
    for name, node in _nodes().items():
        made = hydra.utils.get_object(node._target_)
        if inspect.isclass(made) and issubclass(made, Strategy):
            parameters = set(made().parameters)
        else:
            parameters = set(inspect.signature(made).parameters)
        parameters -= {*GIVEN_BY_RUNNER.get(node._target_, []), *LEFT_OUT.get(name, ())}
        assert parameters == {str(key) for key in node} - {"_target_"}, name


def _terms(option, *words):
    node = composed("config", f"execution={option}", *words).execution
    return compose.build(node).terms(60 * SECOND)


def test_simulated_and_free_execution_cost_what_they_say():
    simulated, free = _terms("simulated"), _terms("free")
    costs = {"latency_ns": 50_000_000, "latency_sigma": 0.3, "fixed_slippage": 1e-4}
    assert {key: simulated[key] for key in costs} == costs
    assert not any(free[key] for key in costs)
    rates = [
        compose.build(composed("config", f"execution={option}").execution).rates(UNIVERSE[0])
        for option in ("simulated", "free")
    ]
    assert rates == [(5e-4, 5e-4), (0.0, 0.0)]
    nothing = ("half_spread", "impact", "volatility_scale", "queue_share", "reject_probability")
    nothing += ("fee_fixed", "fee_minimum", "borrow_rate", "interest_rate", "funding_rate")
    assert not any(terms[key] for terms in (simulated, free) for key in nothing)


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("half_spread", {"fixed_slippage", "spread_model"}),
        ("impact", {"impact", "participation", "queue_share"}),
        ("volatility", {"fixed_slippage", "volatility_scale"}),
        ("replayed", {"latency_sigma", "latency_samples"}),
    ],
)
def test_other_executions_change_what_they_are_named_for(option, changed):
    simulated, other = _terms("simulated"), _terms(option)
    assert {key for key in simulated if simulated[key] != other[key]} == changed


def test_values_that_yaml_cannot_mean_are_refused_where_they_stand():
    for word in ("impact=high", "spread_model=rol", "funding=3", "statistics_span=2.5"):
        with pytest.raises(ConfigError, match=word.partition("=")[0]):
            _terms("simulated", f"execution.{word}")
    with pytest.raises(ConfigError, match="tiers"):
        _terms("simulated", "+execution.tiers.vip=3")


UNMEANT = [
    ("runtime.clock=evnt", "does not know 'evnt'; did you mean 'event'?"),
    ("runtime.clock=stopped", "does not know 'stopped'; there is: auto, event, wall"),
    ("runtime.warmup_bars=2.5", "must be a whole number, was 2.5"),
    ("runtime.warmup_bars=-1", "must be a whole number >= 0 and finite, was -1"),
    ("runtime.snapshot_s=abc", "must be a number, was 'abc'"),
    ("runtime.snapshot_s=inf", "must be >= 0 and finite, was inf"),
    ("runtime.outbox_rows=null", "must be a whole number, was None"),
    ("runtime.stop_after_idle_s=-1", "must be >= 0 and finite, was -1"),
    ("execution.funding=stor", "does not know 'stor'; did you mean 'store'?"),
    ("execution.funding=daily", "does not know 'daily'; there is: null, store"),
    ("execution.latency_sample_ms=5", "must be [a number, ...] or null, was 5"),
    ("execution.tiers=null", "must be {name: {name: a number or null}}, was None"),
    ("risk.checks=null", "must be [{name: a value}, ...], was None"),
    ("risk.risk_bar=1.5", "must be like 1s, 5m, 1h or 1d, was '1.5'"),
    ("risk.risk_bar=5", "must be like 1s, 5m, 1h or 1d, was '5'"),
    ("risk.risk_bar=0h", "must be like 1s, 5m, 1h or 1d, was '0h'"),
    ("snapshots=0s", "must be like 1s, 5m, 1h or 1d, was '0s'"),
    ("bars=60", "must be like 1s, 5m, 1h or 1d, or like 500ticks, 10volume or 1e6value, was '60'"),
    ("book.capital=0", "must be > 0 and finite, was 0.0"),
    ("book.capital=inf", "must be > 0 and finite, was inf"),
    ("book.fraction=0", "must be > 0 and <= 1, was 0.0"),
    ("book.fraction=1.5", "must be > 0 and <= 1, was 1.5"),
    ("strategy.fast=1.5", "must be int, was 1.5"),
    ("quality.least=2", "must be >= 0 and <= 1, was 2.0"),
    ("quality.least=high", "must be a number or null, was 'high'"),
    ("seed=1.7", "must be a whole number, was 1.7"),
]


def configured(monkeypatch, *words):
    """What a runner gets, and what it knows of itself."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    cfg = composed("config", *words, hydra_too=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


@pytest.mark.parametrize(("word", "said"), UNMEANT, ids=[word for word, _ in UNMEANT])
def test_a_value_that_cannot_be_meant_is_refused_by_its_full_key(word, said, monkeypatch):
    cfg = configured(monkeypatch, word)
    made = (
        parts.runtime_of
        if word.startswith("runtime.")
        else partial(parts.engine_of, universe=UNIVERSE)
    )
    with pytest.raises(ConfigError) as caught:
        made(cfg)
    assert str(caught.value) == f"{word.partition('=')[0]} {said}"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("runtime.warmup_bars=2.5", "runtime.warmup_bars must be a whole number, was 2.5"),
        ("journal=new", "journal does not know 'new'; there is: fresh, resume"),
        ("ingest=maybe", "ingest does not know 'maybe'; there is: auto, none"),
    ],
)
def test_a_backtest_refuses_what_a_session_refuses(word, said, home):
    done = forked.run("backtest", "feed=synthetic", word, cwd=home)
    assert (done.returncode, done.stderr) == (1, f"error: {said}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["feed.batch=0"], "feed.batch must be >= 1 row, was 0"),
        (["feed.speed=-1"], "feed.speed must be 'max' or a positive number, was -1"),
        (["feed=synthetic", "feed.start=abc"], "feed.start must be like 2026-01-31 or "),
        (["bars=5ticks", "feed.kind=bars"], "bars=5ticks are made of ticks, feed.kind was bars"),
        (["feed=synthetic", "feed.length_s=90"], "feed.start + length_s must be a whole minute"),
    ],
)
def test_a_feed_refuses_its_keys_by_their_full_names(words, said, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        parts.feed_of(configured(monkeypatch, *words), UNIVERSE, lambda: None)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("time", ["5", "-6", "'\"-6\"'", "999999999999999", "abc", "-6parsec"])
def test_a_time_that_cannot_be_meant_is_refused_before_the_store_is_asked(time, monkeypatch):
    for key in ("feed.start", "feed.end"):
        cfg = configured(monkeypatch, f"{key}={time}")
        with pytest.raises(ConfigError) as caught:
            parts.feed_of(cfg, UNIVERSE, lambda: None)
        like = "like -6h, 2026-01-31 or 2026-01-31T12:00"
        assert str(caught.value).startswith(f"{key} must be {like}, was ")


@pytest.mark.parametrize(
    "time", ["-20m", "null", "2026-01-31", "2026-01-31T12:00:00Z", "1767225600000000000"]
)
def test_a_time_that_can_be_meant_is_taken(time, monkeypatch):
    cfg = configured(monkeypatch, f"feed.start={time}", f"feed.end={time}")
    assert parts.feed_of(cfg, UNIVERSE, lambda: None)


def test_a_word_that_only_the_runner_understands_becomes_what_it_means(monkeypatch):
    cfg = configured(monkeypatch, "execution.funding=store", "runtime.clock=auto")
    assert parts.runtime_of(cfg).clock == "event"
    rates = {"SIM:OAK": ([1, 5], [0.1, -0.2])}
    engine, without = (parts.engine_of(cfg, UNIVERSE, funding) for funding in (rates, None))
    assert engine.fingerprint()["series"] != without.fingerprint()["series"]


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        (["quality.least=0.8"], [0.8]),
        (["risk=full", "quality.least=0.8"], [0.8]),
        (["risk=full"], [0.9]),
        ([], []),
    ],
)
def test_a_threshold_of_data_quality_is_the_limit_of_its_check(words, limits, monkeypatch):
    chain = parts.engine_of(configured(monkeypatch, *words), UNIVERSE).risk
    pairs = zip(chain.names, chain.limits, strict=True)
    assert [limit for name, limit in pairs if name == "data_quality"] == limits


@pytest.mark.parametrize("size", ["500ticks", "10volume", "1e6value", "0.5volume"])
def test_bars_may_be_of_an_activity(size, monkeypatch):
    cfg = configured(monkeypatch, f"bars={size}")
    assert parts.engine_of(cfg, UNIVERSE).interval == bar_size(size)
    assert parts.feed_of(cfg, UNIVERSE, lambda: None).kind == "ticks"


def test_tiers_and_funding_can_be_said_on_the_command_line():
    words = ["+execution.tiers.vip={fee_bps: 2.0, maker_fee_bps: 0.0}"]
    words += ["execution.funding={P: [[1, 5], [0.1, -0.2]]}"]
    execution = compose.build(composed("config", *words).execution)
    assert execution.rates(Instrument("A", fee_tier="vip")) == (0.0, 2e-4)
    assert [part.tolist() for part in execution.series("P")] == [[1, 5], [0.1, -0.2]]


# -- universe


def _universe(*instruments):
    return universe_of(OmegaConf.create({"universe": {"instruments": list(instruments)}}))


def test_every_universe_of_conf_makes_instruments():
    for option in options_of("universe"):
        assert universe_of(composed("config", f"universe={option}"))


def test_every_key_of_an_instrument_stands_in_the_comment_of_crypto():
    said = re.findall(r"^#   (\w+) ", (CONF / "universe" / "crypto.yaml").read_text(), re.MULTILINE)
    assert said == list(Instrument.__dataclass_fields__)


def test_keys_of_an_instrument_reach_it_and_null_means_no_largest_position():
    given = {"symbol": "A", "max_position": None, "multiplier": 50, "calendar": "XNYS"}
    given |= {"currency": "USD", "conversion": "B", "volume_unit": "quote", "shortable": False}
    (found, _) = _universe(given, {"symbol": "B"})
    assert found == Instrument(**(given | {"max_position": float("inf")}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"symbol": "A", "perpetaul": True}, "no key 'perpetaul'; did you mean 'perpetual'?"),
        ({"symbol": "A", "tick_size": None}, "tick_size"),
        ({"symbol": "A", "shortable": "no"}, "shortable"),
        ({"symbol": "A", "multiplier": -1}, "multiplier of A must be > 0 and finite, was -1"),
        ({"tick_size": 1.0}, "universe.instruments.0 has no symbol, was {'tick_size': 1.0}"),
        ({"symbol": 5}, "universe.instruments.0.symbol must be text, was 5"),
        ({"symbol": "A", "tick_size": "abc"}, "universe.instruments.0.tick_size must be a number"),
        ({"symbol": "A", 1: 2}, "no key 1"),
        (5, "universe.instruments must be [{name: a value}, ...], was [5]"),
    ],
)
def test_instrument_that_cannot_be_meant_is_answered_with_its_key(given, said):
    with pytest.raises(ConfigError, match=r"universe\.instruments") as caught:
        _universe(given)
    assert said in str(caught.value)


@pytest.mark.parametrize("given", [5, "abc", {"a": 1}, [[]], [None]], ids=str)
def test_instruments_that_are_no_list_of_mappings_are_refused(given):
    cfg = OmegaConf.create({"universe": {"instruments": given}})
    said = f"universe.instruments must be [{{name: a value}}, ...], was {given!r}"
    with pytest.raises(ConfigError) as caught:
        universe_of(cfg)
    assert str(caught.value) == said


def test_every_group_of_conf_belongs_to_a_root():
    used = {group for root in ROOTS for group in groups_of(root)} | {"hydra"}
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == used


# -- mistakes on the command line

MISTAKES = [
    ("stratgy=momentum", "there is no key 'stratgy'; did you mean 'strategy'?"),
    ("source=file", "there is no key 'source'"),
    ("strategy=momentun", "strategy=momentun does not exist; did you mean 'momentum'?"),
    ("strategy=null", "strategy=None does not exist; there is: breakout, buy_and_hold, "),
    ("strategy=1", "strategy=1 does not exist"),
    ("strategy=[momentum]", "did you mean 'momentum'?"),
    ("strategy=", "strategy= does not exist"),
    ("strategy@other=momentum", "write it without @"),
    ("+strategy=momentum", "write it without the +"),
    ("experiment=mine", "conf/experiment has no file yet"),
    ("sed=2", "there is no key 'sed'; did you mean 'seed'?"),
    ("strategy.fsat=3", "there is no key 'fsat' in 'strategy'; did you mean 'fast'?"),
    ("strategy.fast.x=3", "'strategy.fast' is one value: it has no key 'x'"),
    ("book.name.x=3", "'book.name' is one value"),
    ("orders.tiff=ioc", "there is no key 'tiff' in 'orders'; did you mean 'tif'?"),
    ("orders=pasive", "orders=pasive does not exist; did you mean 'passive'?"),
    ("exits=stop", "exits=stop does not exist; did you mean 'stops'?"),
    ("exits=null", "exits=None does not exist; did you mean 'none'?"),
    ("sizing=volatility", "did you mean 'volatility_target'?"),
    ("sizing.notional=1", "there is no key 'notional' in 'sizing'"),
    ("execution.latency=5", "did you mean 'latency_ms'?"),
    ("risk.checks.0.limt=1", "there is no key 'limt' in 'risk.checks.0'; did you mean 'limit'?"),
    ("risk.checks.4.limit=1", "'risk.checks' has entries 0 to 3, was '4'"),
    ("risk.checks.cash=1", "'risk.checks' has entries 0 to 3, was 'cash'"),
    ("universe.instruments.0.tick_sze=1", "did you mean 'tick_size'?"),
    ("hydra.job.nme=x", "there is no key 'nme' in 'hydra.job'; did you mean 'name'?"),
    ("hydra/job_logging=nope", "Could not find 'hydra/job_logging/nope'"),
    ("risk.checks=[{check: cash}", "stands in quotes of its own"),
    ("store.dsn=chdb:data/x?database=y", "stands in quotes of its own"),
    ("risk.checks={a: 1}", "risk.checks must be [{check: ..., limit: ...}, ...], was {a: 1}"),
    ("execution.tiers=[1]", "execution.tiers must be {name: ...}, was [1]"),
    ("execution.tiers={vip: {fee_bps: 2.0}}", "write +execution.tiers.vip=..."),
    ("universe.instruments={a: 1}", "universe.instruments must be [{symbol: ..., tick_size: ..."),
    ("hydra.job={nme: x}", "there is no key 'nme' in 'hydra.job'; did you mean 'name'?"),
    ("nonsense", "'nonsense' is not understood: write key=value"),
    ("=3", "there is no key ''"),
    ("+new=1", "there is no key 'new'; there is: bars, book, "),
    ("++new=1", "there is no key 'new'"),
    ("+strategy.new=1", "there is no key 'new' in 'strategy'; there is: fast, slow"),
    ("+strategy.fast=1", "'strategy.fast' is there already"),
    ("~strategy.fast", "nothing can be left out"),
    ("~strategy", "nothing can be left out"),
    ("~strategy.fast=20", "nothing can be left out"),
    ("feed=kafka feed.security.sasl_mechanism=PLAIN", "write +feed.security.sasl_mechanism=PLAIN"),
    ("bars=1m,5m", "'bars=1m,5m' is several values: this runner has no --multirun"),
    ("seed=range(1,3)", "this runner has no --multirun"),
    ("bars=5m --multirun seed=1,2", "it has no --multirun"),
    ("--multirun seed=1,2", "it has no --multirun"),
    ("-m", "it has no --multirun"),
    ("--multir", "it has no --multirun"),
    ("hydra.mode=MULTIRUN", "has no --multirun"),
    ("seed=1 --cfg job bars=5m", "'bars=5m' stands behind an option"),
    ("--mutlirun", "there is no option '--mutlirun'; did you mean '--multirun'?"),
    ("--config-name=stream", "it has no --config-name"),
    ("--config-dir=.", "it has no --config-dir"),
    ("--config-path=.", "it has no --config-path"),
    ("--experimental-rerun=config.pickle", "it has no --experimental-rerun"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_mistake_on_the_command_line_is_answered_in_one_sentence(words, said):
    listed = [words] if "{" in words else words.split()
    with pytest.raises(ConfigError) as caught:
        check_command_line("config", listed)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["--cfg", "job"],
        ["strategy=buy_and_hold", "strategy.weight=0.5"],
        ["risk.checks.0.limit=1"],
        ["risk.checks=[{check: cash, limit: 0}]"],
        ["'store.dsn=\"chdb:data/x?database=y\"'".strip("'")],
        ["feed.start=-2h", "feed.end=2026-01-01T00:00:00Z"],
        ["feed=kafka", "+feed.security.sasl_mechanism=PLAIN", "++feed.security.a=1"],
        ["++strategy.fast=3"],
        ["bars='1m,5m'"],
        ["hydra.verbose=true", "hydra/job_logging=disabled"],
        ["sizing=fixed_notional", "sizing.notional=1", "orders=twap", "exits=bracket"],
        ["execution=replayed", "execution.latency_sample_ms=[1.5, 2.5]"],
        ["+execution.tiers.vip={fee_bps: 2.0, maker_fee_bps: 0.0}"],
        ["++execution.tiers={vip: {fee_bps: 2.0, maker_fee_bps: 0.0}}"],
    ],
)
def test_what_can_be_meant_is_let_through(words):
    check_command_line("config", words)


def test_index_into_a_list_changes_that_entry_alone():
    checks = composed("config", "risk.checks.0.limit=1").risk.checks
    assert [check.limit for check in checks] == [1, 0.0, 1.0, 0.5]


def test_overrides_of_some_groups_are_handed_on_as_they_were_said(monkeypatch):
    said = ["feed=kafka", "feed.topic=t", "+feed.security.a=b", "seed=2", "store=clickhouse"]
    configured(monkeypatch, *said)
    assert compose.overrides("feed", "store") == [*said[:3], said[4]]
    assert compose.chosen("feed", "universe", "store") == [
        "feed=kafka", "universe=sample", "store=clickhouse", *said[1:3],
    ]  # fmt: skip


def test_sweep_is_checked_in_each_of_its_choices():
    check_command_line("config", ["-m", "strategy=glob(*)", "bars=1m,5m"], multirun=True)
    for words, said in (
        (["-m", "strategy=momentum,buy_hold"], "did you mean 'buy_and_hold'?"),
        (["-m", "strategy.fsat=1,2"], "did you mean 'fast'?"),
        (["-m", "strategy=momentum,buy_and_hold", "strategy.fast=3"], "there is: weight"),
        (["strategy.fast=1,2"], "add --multirun"),
        (["hydra.mode=MULTIRUN"], "use --multirun"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_command_line("config", words, multirun=True)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "sysquantum.feeds.Feed",
        "sysquant",
        "sysquant.nothing.Here",
        "sysquant.strategies.momentum.Missing",
        "sysquant.feeds",
        "sysquant.home.Path",  # imported by a module of ours, and not ours
        "sysquant.home.os.system",
        "sysquant.store.DEFAULT_DSN",
        None,
    ],
)
def test_target_that_is_nothing_of_the_package_is_refused(target):
    node = OmegaConf.create({} if target is None else {"_target_": target, "args": "true"})
    with pytest.raises(
        ConfigError, match=r"_target_.* (lies outside sysquant|does not exist|so no object)"
    ):
        compose.build(node)


def test_argument_that_a_constructor_does_not_take_is_refused():
    node = OmegaConf.create({"_target_": "sysquant.sizing.WeightSizing", "bnad": 0.1})
    with pytest.raises(ConfigError, match="bnad"):
        compose.build(node)


# -- help


@pytest.mark.parametrize("runner", RUNNERS)
def test_help_says_what_the_runner_does_and_its_examples_can_be_meant(runner, home):
    first_word = ["data"] if runner == "check" else []
    command = [sys.executable, str(REPOSITORY / "runners" / f"{runner}.py"), *first_word, "--help"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    first = SOURCES[runner].removeprefix('"""').splitlines()[0]
    assert first.removesuffix('"""') in done.stdout
    shown = done.stdout.replace("\\\n", " ")
    indent = "" if runner == "control" else "  "
    examples = re.findall(rf"^{indent}python runners/{runner}\.py(.*)$", shown, re.MULTILINE)
    assert len(examples) >= 3
    root = root_of(runner)
    for words in (shlex.split(example, comments=True) for example in examples):
        assert words[: len(first_word)] == first_word
        words = words[len(first_word) :]
        if root is not None:
            check_command_line(root, words)
        elif runner == "kafka":
            kafka._arguments(words)
        elif runner == "control":
            control._parser().parse_args(words)
        else:
            assert {word for word in words if word.startswith("-")} <= {"--port", "--dsn"}
    for group in groups_of(root) if root else ():
        assert f"  {group}=" in done.stdout
    assert list(home.iterdir()) == []  # it makes nothing


@pytest.mark.parametrize("asked", [["--help"], ["--cfg", "job"]], ids=" ".join)
def test_output_that_is_not_read_to_its_end_is_no_error(asked, home):
    command = [sys.executable, str(REPOSITORY / "runners" / "live.py"), *asked]
    reader, writer = os.pipe()
    os.close(reader)
    # The worst parent, a notebook with the embedded engine open, leaves the signal blocked to us.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        with os.fdopen(writer, "wb") as output:
            done = subprocess.run(
                command, cwd=home, stdout=output, stderr=subprocess.PIPE, timeout=60
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert done.stderr == b""
