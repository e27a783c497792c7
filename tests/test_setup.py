"""The set-up: the environment that make creates, the pins, conda, compose, the hooks."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.conftest import REPOSITORY, answered_once

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
NAMES = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")

# What stands for an interpreter: it notes what it is asked, answers code with the real one, and
# plays `venv` and `pip`, which alone would take minutes.
STUB = f"""#!/bin/sh
echo "$(basename "$0") $*" >> "$STUB_LOG"
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin && cp "$STUB" .venv/bin/python ;;
  *"-m pip install"*) [ ! -e pip_breaks ] || exit 1 ;;
  *) exec "{sys.executable}" "$@" ;;
esac
"""


class Checkout:
    """A working tree with nothing but what make reads, on a machine of our making."""

    def __init__(self, root: Path) -> None:
        self.path, self._bin, self._log = root / "checkout", root / "bin", root / "asked"
        self.path.mkdir()
        self._bin.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, self.path)
        for name in NAMES:
            self.interpreter(name, "exit 1")

    def interpreter(self, name: str, script: str = STUB) -> None:
        """Put an interpreter on PATH; by default one that fits."""
        path = self._bin / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run make there."""
        self._log.write_text("")
        (self._bin / "stub").write_text(STUB)
        (self._bin / "stub").chmod(0o755)
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
        stubs = {"STUB": str(self._bin / "stub"), "STUB_LOG": str(self._log), "PATH": path}
        stubs["MAKEFLAGS"] = ""  # those of the make that runs this test
        command = ["make", "--no-print-directory", *(arguments or ["environment"])]
        return subprocess.run(
            command, cwd=self.path, env=os.environ | stubs, text=True, capture_output=True
        )

    def asked(self, words: str) -> list[str]:
        """The calls of interpreters in the last run that held these words."""
        return [line for line in self._log.read_text().splitlines() if words in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_make_alone_prints_every_target(checkout: Checkout):
    printed = checkout.make("help").stdout
    assert checkout.make("--").stdout == printed
    declared = re.search(r"\.PHONY: (.*)", (REPOSITORY / "Makefile").read_text())
    assert declared
    for target in set(declared.group(1).split()) - {"environment"}:
        assert f"make {target} " in printed


def test_first_python_that_fits_makes_the_environment(checkout: Checkout):
    checkout.interpreter("python3.12")
    checkout.interpreter("python3.13")
    done = checkout.make()
    assert done.returncode == 0, done.stderr
    assert checkout.asked("-m venv") == ["python3.12 -m venv --clear .venv"]
    pip, everything = checkout.asked("-m pip install")
    assert pip.endswith("-c constraints.txt pip")
    assert everything.endswith("-c constraints.txt -e .[dev]")


def test_python_without_venv_is_passed_over(checkout: Checkout):
    checkout.interpreter("python3", 'case "$*" in *ensurepip*) exit 1 ;; esac')
    checkout.interpreter("python3.13")
    assert checkout.make().returncode == 0
    assert checkout.asked("-m venv") == ["python3.13 -m venv --clear .venv"]


def test_missing_venv_is_told_in_one_sentence(checkout: Checkout):
    checkout.interpreter("python3", 'case "$*" in *ensurepip*) exit 1 ;; esac')
    done = checkout.make()
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "python3 has no venv module: install it (Debian: apt install python3-venv) "
        "and run make again"
    )


def test_missing_python_is_told_in_one_sentence(checkout: Checkout):
    done = checkout.make()
    assert done.returncode != 0
    assert done.stderr.startswith("sysquant needs Python 3.11, 3.12, 3.13 or 3.14, and none of ")
    assert not (checkout.path / ".venv").exists()


def test_finished_environment_is_left_alone(checkout: Checkout):
    checkout.interpreter("python3")
    assert checkout.make().returncode == 0
    again = checkout.make()
    assert again.returncode == 0
    assert again.stdout == ""
    assert not checkout.asked("-m")


def test_interrupted_install_is_resumed_in_the_same_environment(checkout: Checkout):
    checkout.interpreter("python3")
    breaks = checkout.path / "pip_breaks"
    breaks.touch()
    assert checkout.make().returncode != 0
    assert not (checkout.path / ".venv" / ".stamp").exists()
    breaks.unlink()
    assert checkout.make().returncode == 0
    assert checkout.asked("-m pip install")
    assert not checkout.asked("-m venv")


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_changed_pin_installs_again_and_a_failed_one_leaves_no_stamp(checkout: Checkout, name: str):
    checkout.interpreter("python3")
    assert checkout.make().returncode == 0
    with (checkout.path / name).open("a") as file:
        file.write("# changed\n")
    (checkout.path / "pip_breaks").touch()
    assert checkout.make().returncode != 0
    (checkout.path / "pip_breaks").unlink()
    assert checkout.make().returncode == 0
    assert checkout.asked("-e .[dev]")


def test_moved_working_tree_installs_again(checkout: Checkout):
    checkout.interpreter("python3")
    assert checkout.make().returncode == 0
    checkout.path = checkout.path.rename(checkout.path.with_name("moved"))
    assert checkout.make().returncode == 0
    assert checkout.asked("-m pip install")


def test_environment_that_does_not_run_is_made_anew(checkout: Checkout):
    checkout.interpreter("python3")
    assert checkout.make().returncode == 0
    (checkout.path / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    assert checkout.make().returncode == 0
    assert checkout.asked("-m venv")


def test_makefile_accepts_the_pythons_of_the_project():
    accepted = re.search(r"not \((.*)\) <= sys.version_info < \((.*?)\)", _read("Makefile"))
    assert accepted
    low, high = (bound.replace(", ", ".") for bound in accepted.groups())
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={low},<{high}")


def test_continuous_integration_runs_make_test():
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
    lines = [line for line in _read(".ci/run").splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "exec make test"
    assert len(lines) == 3


# Pins ---------------------------------------------------------------------------------------------


def test_pins_are_exact_and_name_no_address():
    for line in _read("constraints.txt").splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9-]+==[A-Za-z0-9.+!]+", line), line
    assert "://" not in _read("constraints.txt") + _read("environment.yml")


def test_environment_holds_the_pinned_set():
    needed, pins = _closure(["sysquant[dev]"]), _pins()
    assert not needed.keys() - pins.keys(), "without a pin: run `make constraints`"
    assert needed == {name: pins[name] for name in needed}


def test_every_pin_admits_the_lowest_python():
    lowest = PROJECT["requires-python"].split(",")[0].removeprefix(">=") + ".0"
    for name in _closure(["sysquant[dev]"]):
        asked = dict(importlib.metadata.metadata(name)).get("Requires-Python", "")
        assert SpecifierSet(asked).contains(lowest), f"{name} needs Python {asked}"


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_pins_resolve(version: str):
    resolver = _load(REPOSITORY / ".ci" / "constraints.py")
    python = resolver.interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine: its resolve is not shown here")
    # The answer for the same question is the same, and asking takes pip about 15 s.
    wants = [PROJECT["dependencies"], PROJECT["optional-dependencies"], PROJECT["requires-python"]]
    with answered_once("pins", str(wants), _read("constraints.txt"), version) as is_new:
        if is_new:
            wanted = ("-e", ".[dev]")
            answer = resolver.resolve(python, REPOSITORY / "constraints.txt", wanted)
            assert answer.items() <= _pins().items()


# conda, compose, hooks ----------------------------------------------------------------------------


def test_conda_installs_its_pip_section(tmp_path: Path):
    described = yaml.safe_load(_read("environment.yml"))
    *conda, section = described["dependencies"]
    assert [each.split()[0] for each in conda] == ["python", "pip"]
    assert PROJECT["requires-python"] == conda[0].split()[1]
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    shutil.copytree(REPOSITORY / "sysquant", copy / "sysquant")
    # conda writes the section to a file beside environment.yml and runs pip there.
    (copy / "condaenv.requirements.txt").write_text("\n".join(section["pip"]) + "\n")
    python = _environment_over_this_one(tmp_path / "environment")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "-r", "condaenv.requirements.txt"], cwd=copy, check=True)
    where = "import sysquant.types, sysquant.home; print(sysquant.home.PACKAGE)"
    printed = subprocess.run([python, "-c", where], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert Path(printed.stdout.strip()) == copy / "sysquant"


def test_compose_pins_versions_and_listens_here_alone():
    services = yaml.safe_load(_read("docker-compose.yml"))["services"]
    assert services.keys() == {"kafka", "clickhouse", "grafana"}
    for service in services.values():
        assert re.search(r":\d+\.\d+(\.\d+)?$", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["healthcheck"]["test"]
        assert service["volumes"]
        for name, value in service["environment"].items():
            assert "PASSWORD" not in name or re.match(r"\$\{[A-Z_]+(:\?.*)?\}$", value)
    plugin = services["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]
    assert re.fullmatch(r"grafana-clickhouse-datasource@\d+\.\d+\.\d+", plugin)


def test_compose_names_its_secrets_in_the_example():
    wanted = set(re.findall(r"\$\{([A-Z_]+)", _read("docker-compose.yml")))
    assert wanted == set(re.findall(r"^([A-Z_]+)=$", _read(".env.example"), re.MULTILINE))


def test_compose_and_make_run_the_same_kafka():
    pom = ElementTree.parse(REPOSITORY / "runners" / "kafka" / "pom.xml")
    image = yaml.safe_load(_read("docker-compose.yml"))["services"]["kafka"]["image"]
    assert image.split(":")[1] == pom.findtext(".//{*}kafka.version")


def test_grafana_reads_as_the_reader_that_clickhouse_knows():
    sources = yaml.safe_load(_read("grafana/provisioning/datasources/clickhouse.yaml"))
    (source,) = sources["datasources"]
    users = ElementTree.parse(REPOSITORY / "grafana" / "clickhouse_reader.xml").find("users")
    assert users is not None
    assert source["jsonData"]["username"] in {user.tag for user in users}
    database = yaml.safe_load(_read("docker-compose.yml"))["services"]["clickhouse"]["environment"]
    assert source["jsonData"]["defaultDatabase"] == database["CLICKHOUSE_DB"]
    yaml.safe_load(_read("grafana/provisioning/dashboards/files.yaml"))


def test_five_hooks_run_the_tools_of_the_environment():
    (repo,) = yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"]
    hooks = {hook["id"]: hook["entry"].split()[0] for hook in repo["hooks"]}
    assert list(hooks) == [
        "ruff-check", "ruff-format", "nbstripout", "check-yaml", "check-added-large-files",
    ]  # fmt: skip
    scripts = Path(sysconfig.get_path("scripts"))
    for entry in hooks.values():
        assert (scripts / Path(entry).name).exists()


def _read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def _pins() -> dict[str, str]:
    lines = _read("constraints.txt").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


# Name to installed version of everything these need on this Python and platform.
def _closure(wanted: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    seen, todo = set[str](), list(wanted)
    while todo:
        requirement = Requirement(todo.pop())
        key = str(requirement)
        if key in seen:
            continue
        seen.add(key)
        if requirement.name != "sysquant":
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            found[name] = importlib.metadata.version(requirement.name)
        for line in importlib.metadata.requires(requirement.name) or []:
            inner = Requirement(line)
            extras = requirement.extras or {""}
            environments = [default_environment() | {"extra": extra} for extra in extras]
            if not inner.marker or any(map(inner.marker.evaluate, environments)):
                inner.marker = None
                todo.append(str(inner))
    return found


# A new environment that sees this one's packages, so that pip has sysquant alone to install.
def _environment_over_this_one(path: Path) -> Path:
    venv.create(path, with_pip=False)
    python = path / "bin" / "python"
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    printed = subprocess.run([python, "-c", place], check=True, stdout=subprocess.PIPE, text=True)
    (Path(printed.stdout.strip()) / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
