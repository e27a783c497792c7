"""A notebook as a process of its own: what it is given, what it may see, and how it ended.

papermill runs it, under a guard that kills it when its time is over or its runner is gone. Of the
environment it gets what is named here and nothing else: no key, no password, no home but a scratch
directory.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from omegaconf import OmegaConf

from sysquant.errors import ConfigError, nearest
from sysquant.home import PACKAGE, cache, home, under_home

_PATIENCE_S = 5.0  # with the guard
_KEPT = ("PATH", "LANG")
# What last bits depend on: a model must answer here what it answered there.
_ARITHMETIC = ("OPENBLAS_", "OMP_", "MKL_", "NUMBA_")
_JUPYTER = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")


def notebook_of(said: str, given: Iterable[str]) -> Path:
    """The notebook that `notebook` names: below the repository, or below `home()`.

    Raises
    ------
    ConfigError
        If it is not there, or lacks one of the parameters that it will be given.
    """
    path = PACKAGE.parent / Path(said).expanduser()
    path = path if path.is_file() else under_home(said)
    if not path.is_file():
        places = " or ".join(dict.fromkeys(map(str, (PACKAGE.parent, home()))))
        below = "" if path.is_absolute() and Path(said).is_absolute() else f" below {places}"
        raise ConfigError(f"notebook={said} is no file{below}")
    if path.suffix != ".ipynb":
        raise ConfigError(f"notebook={said} must be an .ipynb: nothing else is opened")
    from papermill import inspect_notebook  # half a second, which `--help` need not wait for

    try:
        known = list(inspect_notebook(str(path)))
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # which quotes the file
        raise ConfigError(
            f"notebook={said} is no notebook: save it anew, or choose another"
        ) from error
    for name in given:
        if name not in known:
            raise ConfigError(
                f"notebook={said} has no parameter {name!r} in a cell that is tagged `parameters`"
                f"{nearest(name, known)}"
            )
    return path


def environment(scratch: Path) -> dict[str, str]:
    """All that a notebook sees of the environment.

    Parameters
    ----------
    scratch : directory that stands for every home.
    """
    seen = {n: v for n, v in os.environ.items() if n in _KEPT or n.startswith(_ARITHMETIC)}
    # The package that reads what comes out is the one that makes it.
    path = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    seen |= {"PYTHONPATH": os.pathsep.join(filter(None, path)), "SYSQUANT_CACHE": str(cache())}
    seen |= dict.fromkeys(("HOME", "TMPDIR", "SYSQUANT_HOME"), str(scratch))
    seen |= {name: str(scratch / name.lower()) for name in _JUPYTER}
    return seen | {"JUPYTER_PREFER_ENV_PATH": "1"}


def run(
    notebook: Path, done: Path, parameters: Mapping[str, Any], *, scratch: Path, timeout_s: float
) -> str:
    """Run a notebook to its end.

    Parameters
    ----------
    notebook : to run.
    done : where it is kept with its outputs, also those before a failure; beside it a log.
    parameters : of plain values.
    scratch : its working directory, and home; deleted when this process is killed.
    timeout_s : after which it and all that it started are killed.

    Returns
    -------
    Why it failed; empty when it did not.
    """
    command = [
        sys.executable, "-P", str(PACKAGE / "guard.py"), str(scratch),
        sys.executable, "-m", "papermill", str(notebook), str(done), "--kernel", "python3",
        "--cwd", str(scratch), "--no-progress-bar",
        # YAML of its own: 1e-05, as JSON has it, would be read as text.
        "--parameters_yaml", OmegaConf.to_yaml(OmegaConf.create(dict(parameters))),
    ]  # fmt: skip
    scratch.mkdir(parents=True, exist_ok=True)
    log = done.with_suffix(".log")
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=scratch, env=environment(scratch), start_new_session=True,
            stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"it was stopped after timeout_s={timeout_s:g}"
        finally:
            _end(process)
    return "" if code == 0 else _fault(done) or _last_line(log) or f"papermill ended with {code}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    # The guard ends all that it started; one that is stopped itself is ended with them.
    if process.stdin is not None:
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE_S)
        return
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
        for each in (*started, process):
            with suppress(psutil.Error):
                each.kill()
    process.wait()


def _fault(done: Path) -> str:
    # The error that the notebook ended with.
    with suppress(OSError, ValueError, KeyError):
        for cell in json.loads(done.read_text())["cells"]:
            for output in cell.get("outputs", ()):
                if output["output_type"] == "error":
                    return f"{output['ename']}: {output['evalue']}".splitlines()[0]
    return ""


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
