"""The README keeps its word: every command in it runs, and so does its strategy."""

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import yaml
from pyarrow import csv, parquet

from runners.kafka import free_ports
from runners.stream import stream
from sysquant import backfill
from sysquant.feeds.publish import Publisher
from sysquant.feeds.synthetic import SyntheticFeed
from sysquant.serve import ensure_server
from sysquant.store import Dsn, connect, migrate
from sysquant.types import Instrument
from tests.conftest import REPOSITORY
from tests.sessions import journaled, until

README = (REPOSITORY / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    """Every line of the README's shell blocks, without its comment."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*", "", line) for line in text.splitlines()]
    return [" ".join(line.split()) for line in lines if line.strip()]


# -- how each command is checked

# Run as it stands, with words that shorten it or name this test's servers; the output must say so.
RUN = {
    "python runners/live.py strategy=momentum": ([], "ended: end of feed"),
    "python runners/check.py whatif strategy=momentum risk=strict days=30": ([], "orders flip"),
    "python runners/check.py risk strategy=momentum feed.start=-6h feed.kind=ticks": (
        [],
        "risk passes",
    ),
    "python runners/backtest.py strategy=momentum": ([], "Backtest of momentum="),
    "python runners/live.py --help": ([], r"strategy=breakout \| buy_and_hold"),
    "python runners/live.py strategy=momentum journal=fresh": (["feed.start=-5m"], "ended: end"),
    "python runners/backfill.py source=file path=ticks.parquet universe=crypto": ([], "3"),
    "python runners/backfill.py source=file path=bars.csv universe=crypto mapping=bars "
    "mapping.columns.ts=time mapping.unit=s mapping.symbol=BTC-PERP "
    "mapping.label=left mapping.volume_unit=quote": ([], "600"),
    "python runners/backfill.py source=file path=funding.csv universe=crypto mapping=funding": (
        [],
        "3 funding, 3 added",
    ),
    "python runners/backtest.py strategy=momentum universe=crypto feed.kind=bars feed.start=null": (
        [],
        "600 bars",
    ),
    "python runners/backtest.py strategy=momentum universe=crypto feed.kind=bars feed.start=null "
    "execution.funding=store": ([], "600 bars"),
    "python runners/check.py data universe=crypto start=-7d": (
        ["least=0", "symbols=[BTC-PERP]"],
        r"BTC-PERP \d{4}-\d\d-\d\d score 1\.000; 600 of 600 minutes",
    ),
    "python runners/live.py strategy=momentum quality.least=0.9": (
        ["feed.start=-5m", "journal=fresh"],
        "SIM:OAK is not entered: (.|\\n)*ended: end of feed",
    ),
    "python runners/stream.py": (
        ["speed=max", "source.length_s=60", "KAFKA:publisher"],
        r"published \d+ records to price_ticks",
    ),
    "python runners/live.py strategy=momentum feed=kafka bars=1s runtime.clock=event": (
        ["runtime.stop_after_idle_s=0.5", "KAFKA:feed"],
        "ended: idle",
    ),
    "python runners/retain.py store=clickhouse keep=400d export=data/archive": (
        [],
        "no month of ticks is wholly older than 400d",
    ),
    "python runners/ingest.py universe=sample store=clickhouse": (
        ["stop_after_idle_s=0.5", "KAFKA:feed"],
        r"ended: idle; [1-9][0-9,]* ticks, 0 dead letters",
    ),
    "python runners/live.py strategy=momentum feed=kafka store=clickhouse "
    "runtime.clock=event book.name=docker": (
        ["runtime.stop_after_idle_s=0.5", "KAFKA:feed"],
        "ended: idle",
    ),
    "python runners/backtest.py strategy=momentum orders=passive exits=stops": (
        [],
        "Backtest of momentum=",
    ),
    "python runners/backtest.py strategy=momentum execution=impact sizing=volatility_target "
    "exits=bracket": ([], "Backtest of momentum="),
    "python runners/backtest.py strategy=momentum bars=500ticks": ([], "Backtest of momentum="),
    "python runners/backtest.py strategy=trend strategy.span=100": (["feed.start=-10m"], "=100"),
    "python runners/backtest.py strategy=trend strategy.span=20,50,100 --multirun": (
        ["feed.start=-10m"],
        "3 of 3 jobs done(.|\n)*strategy.span=(20|50|100)",
    ),
    "python runners/backtest.py strategy.fast=5,10,20 strategy.slow='range(40,200,20)' "
    "--multirun": (["feed.start=-30m"], "24 of 24 jobs done"),
    "python runners/backtest.py strategy=momentum,breakout execution=free,simulated --multirun": (
        ["feed.start=-30m"],
        "4 of 4 jobs done",
    ),
    "python runners/backtest.py hydra/sweeper=optuna strategy.slow='interval(40,400)' --multirun": (
        ["feed.start=-30m", "hydra.sweeper.trials=3"],
        "3 of 3 jobs done",
    ),
    "python runners/live.py book=all feed.speed=60": (
        ["feed.start=-10m", "feed.speed=max"],
        "ended: end of feed",
    ),
    **{
        f"python runners/live.py strategy=ml_direction feed=kafka serving={serving}": (
            ["runtime.stop_after_idle_s=0.5", "runtime.clock=event", "KAFKA:feed"],
            "ended: idle",
        )
        for serving in ("holds", "challenger")
    },
    "python runners/live.py strategy=trend": (["feed.start=-10m"], "ended: end of feed"),
}
# What another command must have done before.
NEEDS = {
    command: [one for one in RUN if any(f"path={file} " in one for file in files)]
    for command, files in (
        (
            "python runners/backtest.py strategy=momentum universe=crypto feed.kind=bars "
            "feed.start=null",
            ["ticks.parquet", "bars.csv"],
        ),
        ("python runners/check.py data universe=crypto start=-7d", ["bars.csv"]),
        (
            "python runners/backtest.py strategy=momentum universe=crypto feed.kind=bars "
            "feed.start=null execution.funding=store",
            ["ticks.parquet", "bars.csv", "funding.csv"],
        ),
    )
}
NEEDS["python runners/check.py whatif strategy=momentum risk=strict days=30"] = [
    "python runners/live.py strategy=momentum"
]
# Only shown by make (`make -n`), with what it would run.
DRY = {
    "make defects": "-m tests.defects",  # minutes long; test_defects seeds a few of them
    "make test-long": "--long",  # minutes long, a part of the suite
    "make chaos-small": "-m tests.chaos --small",  # test_chaos runs every scenario so
    "make chaos": "-m tests.chaos",
    "make live": "runners/live.py strategy=momentum feed.speed=1500",  # above, without the install
    "make test": "-m pytest",  # this very run
    'make test ARGS="-k journal"': "-m pytest -n 3 --dist loadfile -k journal",  # likewise
    "make lint": "-m ruff check",  # test_style runs these tools
    "make check-engine": "tests/check_engine.py",  # hours long; test_oracle runs it small
    "make bench": "tests/benchmarks/bench_*.py",  # minutes long
    "make kafka": "runners/kafka.py",  # test_broker starts and ends that runner
}


@dataclass
class Desk:
    """A home with a served store, a topic with ticks, and files; where the commands are run."""

    home: Path
    environment: dict[str, str]
    kafka: dict[str, str]
    done: set[str] = field(default_factory=set)
    beside: subprocess.Popen[str] | None = None

    def run(self, command, more):
        """Run one command of the README, with more words; its output."""
        _, runner, *words = shlex.split(command)
        words = [w for word in more for w in self._words(word)] + words
        if "strategy=trend" in words:
            start = ["-c", WITH_TREND, str(REPOSITORY), str(self.home), runner]
        else:
            start = [str(REPOSITORY / runner)]
        done = subprocess.run(
            [sys.executable, *start, *words],
            cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        self.done.add(command)
        return done.stdout

    def trade_beside(self):
        """A book that trades, in a home of its own; of the first call."""
        if self.beside is not None:
            return
        home = self.home / "beside"
        home.mkdir()
        command = [sys.executable, str(REPOSITORY / "runners" / "live.py"), "book=all"]
        command += ["feed=synthetic", "feed.speed=60", "runtime.warmup_bars=0"]
        environment = self.environment | {"SYSQUANT_HOME": str(home)}
        self.beside = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        until(lambda: journaled(home, "all-synthetic") > 0)

    def end(self):
        """End what trades beside, as an operator does."""
        if self.beside is not None:
            self.beside.send_signal(signal.SIGTERM)
            try:
                said, _ = self.beside.communicate(timeout=10)
                assert self.beside.returncode == 0, said
            finally:
                self.beside.kill()

    def _words(self, word):
        kind, _, prefix = word.partition(":")
        if kind != "KAFKA":
            return [word]
        return [f"{prefix}.{name}={value}" for name, value in self.kafka.items()]


# A runner with the README's strategy in place, without writing into the repository.
WITH_TREND = """
import runpy, sys
from pathlib import Path

root, home, runner = sys.argv[1:4]
sys.argv = [f"{root}/{runner}", *sys.argv[4:]]
sys.path.insert(0, root)
import sysquant.strategies
from runners import command_line, compose

sysquant.strategies.__path__.append(f"{home}/strategies")
command_line.CONF = compose.CONF = Path(home, "conf")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _write_files(home):
    start = 1_640_995_200_000
    ticks = {
        "timestamp_ms": [start, start + 5, start + 5],
        "symbol": ["BINANCE:ETHUSDT"] * 3,
        "price": [2446.59, 2446.6, 2446.6],
        "volume": [0.5, 1.0, 1.0],
    }
    parquet.write_table(pa.table(ticks), home / "ticks.parquet")
    price = [46_000.0 + 10 * (i % 37) for i in range(600)]
    bars = dict.fromkeys(("open", "high", "low", "close"), price)
    bars |= {"time": [start // 1000 + 60 * i for i in range(600)], "volume": [1e6] * 600}
    csv.write_csv(pa.table(bars), home / "bars.csv")
    (home / "funding.csv").write_text(
        "ts,symbol,rate\n2022-01-01T00:00:00Z,BTC-PERP,1e-4\n"
        "2022-01-01T08:00:00Z,BTC-PERP,2e-4\n2022-01-01T16:00:00Z,BTC-PERP,-1e-4\n"
    )
    (home / "strategies").mkdir()
    (home / "strategies" / "trend.py").write_text(blocks("python")[0])
    shutil.copytree(REPOSITORY / "conf", home / "conf")
    (home / "conf" / "strategy" / "trend.yaml").write_text(blocks("yaml")[0])


def _sample_universe():
    listed = yaml.safe_load((REPOSITORY / "conf" / "universe" / "sample.yaml").read_text())
    return [Instrument(**instrument) for instrument in listed["instruments"]]


def _publish(broker, topic, universe):
    feed = SyntheticFeed(universe, start="2026-01-01T00:00:00Z", length_s=120, speed="max")
    publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, **broker.client)
    stream(feed, publisher, universe, SimpleNamespace(reason=""))
    publisher.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory, broker, new_topic):
    home = tmp_path_factory.mktemp("readme")
    _write_files(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYSQUANT_HOME", str(home))
        dsn, server = ensure_server("chdb:data/store")
        try:
            universe, topic = _sample_universe(), new_topic()
            with connect(dsn) as client:
                migrate(client)
                backfill.sample(client, universe)
            _publish(broker, topic, universe)
            patch.setenv("CLICKHOUSE_DSN", f"{dsn.rpartition('/')[0]}/clickhouse")
            kafka = {"bootstrap": broker.bootstrap, "topic": topic}
            kafka |= {key: str(list(value)) for key, value in broker.client.items()}
            made = Desk(home, dict(os.environ), kafka)
            yield made
            made.end()
        finally:
            server.terminate()
            server.wait(10)


def test_every_command_of_the_readme_has_its_check():
    assert set(commands()) == {*RUN, *DRY, *OTHER}


@pytest.mark.parametrize("command", RUN)
def test_command_runs(desk, command):
    for needed in NEEDS.get(command, ()):
        if needed not in desk.done:
            desk.run(needed, RUN[needed][0])
    more, said = RUN[command]
    output = desk.run(command, more)
    assert re.search(said, output), output


def make(*words):
    environment = os.environ | {"MAKEFLAGS": ""}  # not those of the make that runs this test
    return subprocess.run(
        ["make", "-n", *words], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("command", DRY)
def test_make_would_run_it(command):
    done = make(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr
    assert DRY[command] in done.stdout


def _activates_what_make_creates(desk):
    assert "VENV := .venv\n" in (REPOSITORY / "Makefile").read_text()
    script = Path(sys.executable).parent / "activate"
    if not script.exists():
        pytest.skip("this Python is in no virtual environment: its activation is not shown here")
    line = f". {shlex.quote(str(script))} && python -c 'import sys; print(sys.prefix)'"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sys.prefix


def _lab_comes_up_on_the_notebooks_and_ends(desk):
    (recipe,) = [line for line in make("lab").stdout.splitlines() if "jupyterlab" in line]
    words = shlex.split(recipe.lstrip("@"))[1:]
    (port,) = free_ports(1)
    token = secrets.token_hex(8)
    words += ["--no-browser", "--allow-root", f"--port={port}", f"--IdentityProvider.token={token}"]
    kept = {f"JUPYTER_{kind}_DIR": str(desk.home / "lab") for kind in ("CONFIG", "DATA", "RUNTIME")}
    with (desk.home / "lab.log").open("wb") as output:
        lab = subprocess.Popen(
            [sys.executable, *words],
            cwd=REPOSITORY, env=desk.environment | kept, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        listed = _answer(f"http://127.0.0.1:{port}/api/contents?token={token}", lab)
        assert "01_first_backtest.ipynb" in listed
        lab.send_signal(signal.SIGTERM)
        assert lab.wait(15) == 0
    finally:
        if lab.poll() is None:
            lab.kill()
            lab.wait()


def _answer(url, process, timeout_s=40):
    # Of a server that is starting.
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return reply.read().decode()
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def _operator_is_answered(*words):
    # By a book that trades beside all of these.
    def check(desk):
        desk.trade_beside()
        asked = [sys.executable, str(REPOSITORY / "runners" / "control.py"), *words]
        environment = desk.environment | {"SYSQUANT_HOME": str(desk.home / "beside")}
        done = subprocess.run(asked, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout, done.stderr

    return check


def _goes_on_until_it_is_ended(runner, second):
    # What it says first, and in its second line.
    def check(desk):
        command = [sys.executable, str(REPOSITORY / "runners" / runner)]
        going = subprocess.Popen(
            command, cwd=desk.home, env=desk.environment, stderr=subprocess.PIPE, text=True
        )
        try:
            said = [going.stderr.readline() for _ in range(2)]
            assert "alerts go to this log alone" in said[0]
            assert second in said[1]
            going.send_signal(signal.SIGINT)
            going.communicate(timeout=10)
            assert going.returncode == 0
        finally:
            going.kill()
            going.communicate()

    return check


def _example_is_there_and_git_ignores_its_copy(desk):
    assert (REPOSITORY / ".env.example").is_file()
    assert ".env" in (REPOSITORY / ".gitignore").read_text().splitlines()


def _compose_has_the_three_servers(desk):
    # Docker is not asked for: test_setup looks into the file, and here is what the page promises.
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"kafka", "clickhouse", "grafana"}
    assert services["grafana"]["ports"] == ["127.0.0.1:3000:3000"]
    assert all("healthcheck" in service for service in services.values())  # what --wait waits for


def _dsn_is_that_of_the_compose_file(desk):
    command = next(command for command in commands() if command.startswith("export "))
    name, _, value = command.removeprefix("export ").partition("=")
    dsn = Dsn.parse(value)
    service = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    said = service["clickhouse"]["environment"]
    assert name in (REPOSITORY / "conf" / "store" / "clickhouse.yaml").read_text()
    assert (dsn.user, dsn.database) == (said["CLICKHOUSE_USER"], said["CLICKHOUSE_DB"])
    assert service["clickhouse"]["ports"] == [f"{dsn.url.removeprefix('http://')}:8123"]


def _model_is_trained_and_published_or_kept(desk):
    # On the sample there is little to foresee: what must be is a verdict, and its notebook.
    small = ["days=5", "training.train=2d", "training.test=1d", "model.settings.trees=10"]
    small += ["universe.instruments=[{symbol: 'SIM:OAK', tick_size: 0.01, lot_size: 0.001}]"]
    command = [sys.executable, str(REPOSITORY / "runners" / "retrain.py"), "model=random_forest"]
    done = subprocess.run(
        [*command, *small], cwd=desk.home, env=desk.environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert re.search(r"^(published|kept)", done.stdout, re.MULTILINE)
    assert Path(re.search(r"^notebook (/.*)$", done.stdout, re.MULTILINE)[1]).is_file()


# What is neither a run nor a recipe.
OTHER = {
    ". .venv/bin/activate": _activates_what_make_creates,
    "python runners/retrain.py model=random_forest": _model_is_trained_and_published_or_kept,
    "make lab": _lab_comes_up_on_the_notebooks_and_ends,
    **{
        f"python runners/control.py {words}": _operator_is_answered(*words.split())
        for words in ("status", "stop momentum", "start momentum", "halt", "rearm")
    },
    "python runners/watchdog.py": _goes_on_until_it_is_ended("watchdog.py", "watching books=all"),
    "python runners/challenge.py": _goes_on_until_it_is_ended(  # test_challenge has its two books
        "challenge.py", "of the books that run here: none"
    ),
    "cp .env.example .env": _example_is_there_and_git_ignores_its_copy,
    "docker compose up -d --wait": _compose_has_the_three_servers,
    "export CLICKHOUSE_DSN=http://sysquant:password@127.0.0.1:8123/sysquant": (
        _dsn_is_that_of_the_compose_file
    ),
}


@pytest.mark.parametrize("command", OTHER)
def test_command_is_what_it_says(desk, command):
    OTHER[command](desk)


# -- what is not a command


def test_strategy_of_the_readme_trades_and_has_its_file(desk, monkeypatch):
    monkeypatch.setenv("SYSQUANT_HOME", str(desk.home))
    monkeypatch.delenv("CLICKHOUSE_DSN")
    names: dict = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert len(names["result"].table("executions")) > 10
    (file,) = map(yaml.safe_load, blocks("yaml"))
    assert file.pop("_target_") == "sysquant.strategies.trend.Trend"
    assert file == names["Trend"]().parameters


def test_every_path_of_the_readme_is_there():
    named = re.findall(r"`((?:sysquant|runners|conf|notebooks|tests|grafana)/[\w/.]*)`", README)
    made = ("/trend.py", "/trend.yaml", "/my_trend.py", "/my_trend.yaml")  # by its reader
    there = [path for path in named if not path.endswith(made)]
    assert len(there) > 5
    assert not [path for path in there if not (REPOSITORY / path).exists()]


def test_readme_holds_its_line_length_and_is_ascii():
    assert README.isascii()
    assert not [line for line in README.splitlines() if len(line) > 100]
