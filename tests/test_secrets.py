"""Secrets: they come from the environment, and no file, table or line of output holds one."""

import os
import re
import subprocess
import sys

import yaml

from sysquant.store import connect
from tests.conftest import REPOSITORY

pytest_plugins = ["tests.served"]

CONF = REPOSITORY / "conf"
SECRET = re.compile(r"passw|secret|token|credential|api_?key|private", re.IGNORECASE)


def _scalars(node, path=""):
    if isinstance(node, dict | list):
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for name, value in pairs:
            yield from _scalars(value, f"{path}.{name}")
    else:
        yield path, str(node)


def test_no_secret_stands_in_conf():
    for path in CONF.rglob("*.yaml"):
        for key, value in _scalars(yaml.safe_load(path.read_text())):
            if SECRET.search(key.rpartition(".")[2]):
                assert value.startswith("${oc.env:"), f"{path.name}{key}"
            without = re.sub(r"\$\{oc\.env:[^}]*\}", "", value)
            assert not re.search(r"://[^/\s]+:[^/\s]+@", without), f"{path.name}{key}"


def test_secret_of_the_environment_is_written_nowhere(home, broker, topic, dsn):
    secrets = {"KAFKA_PASSWORD": "swordfish-of-kafka", "CLICKHOUSE_DSN": dsn}
    words = ["feed=kafka", f"feed.bootstrap={broker.bootstrap}", f"feed.topic={topic}"]
    words += ["universe=sample", "store=clickhouse"]
    words += ["+feed.security.sasl_plain_password=${oc.env:KAFKA_PASSWORD}"]
    words += [f"feed.api_version={list(v)}" for v in broker.client.values()]
    said = ""
    for runner, idle in (("live", "runtime.stop_after_idle_s"), ("ingest", "stop_after_idle_s")):
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "runners" / f"{runner}.py"), *words, f"{idle}=0.2"],
            env=os.environ | secrets, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    client = connect(dsn)
    rows = client.query("SELECT config FROM runs").result_rows
    client.close()
    assert len(rows) == 1
    assert "sasl_plain_password: ${oc.env:KAFKA_PASSWORD}" in rows[0][0]
    written = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    composed_configs = [path for path in written if path.name == "config.yaml"]
    assert len(composed_configs) == 2
    assert {path.name for path in written} >= {"run.json", "overrides.yaml", "journal.db"}
    for path in composed_configs:
        assert b"sasl_plain_password: ${oc.env:KAFKA_PASSWORD}" in written[path]
        assert b"${oc.env:CLICKHOUSE_DSN" in written[path]
    for secret in (secrets["KAFKA_PASSWORD"], dsn.split(":")[2].split("@")[0]):
        assert not [str(p) for p, content in written.items() if secret.encode() in content]
        assert secret not in rows[0][0]
        assert secret not in said
