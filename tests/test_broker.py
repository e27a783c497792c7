"""`make kafka`: a real broker on this machine, and one sentence where there can be none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from kafka import KafkaConsumer

from runners import kafka as runner
from sysquant.errors import FeedError

ROOT = Path(__file__).resolve().parents[1]


def command(*words):
    return [sys.executable, str(ROOT / "runners" / "kafka.py"), *words]


def program(directory, name, script):
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    """A PATH with nothing on it, and an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SYSQUANT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_broker_advertises_the_port_it_was_given(broker):
    consumer: Any = KafkaConsumer(bootstrap_servers=broker.bootstrap, **broker.client)
    consumer.topics()
    addresses = {f"{node.host}:{node.port}" for node in consumer._cluster.brokers()}
    consumer.close()
    assert addresses == {broker.bootstrap}


def test_missing_java_is_one_sentence_at_once(no_programs):
    began = time.monotonic()
    with pytest.raises(FeedError, match=r"Java was not found.*install Java 17.*feed=replay"):
        runner.start()
    assert time.monotonic() - began < 1.0


def test_java_that_is_none_counts_as_missing(no_programs):
    program(no_programs, "java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    with pytest.raises(FeedError, match="Java was not found"):
        runner.start()


@pytest.mark.parametrize(("said", "was"), [("11.0.2", "11"), ("1.8.0_292", "8")])
def test_old_java_is_refused_with_its_version(no_programs, said, was):
    program(no_programs, "java", f"echo 'openjdk version \"{said}\"' >&2")
    with pytest.raises(FeedError, match=f"Java must be >= 17 for Kafka, was {was}"):
        runner.start()


def test_missing_maven_is_one_sentence(no_programs):
    with pytest.raises(FeedError, match=r"Maven was not found.*install it"):
        runner.fetch()


def test_maven_that_refuses_is_quoted_and_leaves_no_half_cache(no_programs):
    program(no_programs, "mvn", "echo '[ERROR] no such artifact'; echo more; exit 1")
    with pytest.raises(FeedError, match=r"Maven refused: \[ERROR\] no such artifact"):
        runner.fetch()
    assert not list((no_programs.parent / "cache" / "kafka").iterdir())


def test_taken_port_is_refused_with_another(broker):
    port = broker.bootstrap.rpartition(":")[2]
    done = subprocess.run(command(f"port={port}"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert f"port={int(port) + 1}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_misspelt_argument_is_answered_with_the_nearest():
    done = subprocess.run(command("prot=9092"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "'prot=9092' is not understood; did you mean 'port'?"


def test_pom_pins_every_version_and_names_no_registry():
    text = runner.POM.read_text()
    assert "<repositor" not in text
    assert "<url>" not in text
    pom = ET.fromstring(text)
    versions = [node.text or "" for node in pom.iterfind(".//{*}version")]
    assert len(versions) == 5  # the project, three dependencies, the plugin
    assert not [v for v in versions if set(v) & set("[(,")]
    assert runner.VERSION.startswith("4.")


def test_runner_serves_until_it_is_told_to_end(broker, tmp_path):
    if broker.kind == "mock":
        pytest.skip("there is no real broker to run")
    (port,) = runner.free_ports(1)
    process = subprocess.Popen(
        command(f"port={port}", f"data_dir={tmp_path}"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert f"listens on 127.0.0.1:{port}" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "Kafka ended\n", "")


def test_broker_ends_with_the_process_that_started_it(broker, tmp_path):
    if broker.kind == "mock":
        pytest.skip("there is no real broker to run")
    (port,) = runner.free_ports(1)
    process = subprocess.Popen(
        command(f"port={port}", f"data_dir={tmp_path}"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "listens" in process.stdout.readline()
    process.kill()
    process.communicate()
    until = time.monotonic() + 15
    while runner._is_listening(port):
        assert time.monotonic() < until, "an orphan is left behind"
        time.sleep(0.1)


def test_without_java_the_feed_tests_run_on_the_mock_and_the_report_says_so(tmp_path):
    tests = str(ROOT / "tests" / "test_kafka_feed.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.strip().splitlines()[-2:]
    assert done.returncode == 0, done.stdout
    assert "librdkafka's mock broker (Java was not found" in last[0]
    assert "not shown with it: restart, retention, latency and throughput" in last[0]
    assert "passed" in last[1]
