"""Running the embedded store as a server: starting, finding, ending it.

Input: a `chdb:` DSN. Output: a server on 127.0.0.1 that `connect` and Grafana find by
`server.json` in the store's directory. `ensure_server` never loads the engine into its caller.
"""

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from sysquant.errors import StoreError
from sysquant.home import PACKAGE, home
from sysquant.store import Dsn, Server, find_server, lock_holder

log = logging.getLogger(__name__)

USERS = ("default", "dashboard")
STOP_S = 3.0


def server_dsn(server: Server, database: str = "default", *, user: str = "default") -> str:
    """HTTP DSN of a running server, password included."""
    scheme, _, address = server.url.partition("://")
    return f"{scheme}://{user}:{server.users[user]}@{address}/{database}"


def ensure_server(dsn: str, *, wait_s: float = 20) -> tuple[str, "subprocess.Popen[bytes] | None"]:
    """A server for a DSN: the one that runs, or one started now.

    Parameters
    ----------
    dsn : `chdb:...`; an HTTP DSN is given back as it is.
    wait_s : how long a new server may take to answer, seconds.

    Returns
    -------
    The HTTP DSN, and the process if it was started here. It runs in a session of its own: Ctrl-C
    does not reach it, and it outlives this process unless terminated.

    Raises
    ------
    StoreError
        If another process holds the directory, or the server does not answer in time.
    """
    place = Dsn.parse(dsn)
    if place.directory is None:
        return dsn, None
    server = find_server(place.directory)
    if server:
        return server_dsn(server, place.database), None
    place.directory.mkdir(parents=True, exist_ok=True)
    log_path = place.directory / "server.log"
    with log_path.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, PACKAGE.parent / "runners" / "store.py", "--dsn", f"chdb:{place.directory}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=home(),
            start_new_session=True,
        )
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        server = find_server(place.directory)
        if server:
            return server_dsn(server, place.database), child if server.pid == child.pid else None
        if child.poll() is not None and lock_holder(place.directory) is None:
            break
        time.sleep(0.02)
    if child.poll() is None:
        child.terminate()
    raise StoreError(_why_not(place.directory, log_path))


def _why_not(directory: Path, log_path: Path) -> str:
    holder = lock_holder(directory)
    if holder is not None:
        return (
            f"store {directory} is held by process {holder}, which does not serve it: end that "
            "process, or start `python runners/store.py` instead of it"
        )
    lines = log_path.read_text(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"the server of store {directory} did not start{last}; see {log_path}"


def users(directory: Path) -> dict[str, str]:
    """Users of a directory's server, name -> password, made at the first start (file mode 0600)."""
    path = directory / "credentials.json"
    try:
        found: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        found = {}
    if not all(found.get(name) for name in USERS):
        found = {name: found.get(name) or secrets.token_urlsafe(24) for name in USERS}
        write_private(path, found)
    return found


def write_private(path: Path, content: object) -> None:
    """Write JSON so that only this user reads it, and nobody ever sees half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def serve(dsn: str, *, port: int = 0) -> None:
    """Serve an embedded store until SIGTERM or SIGINT; prints one line when ready.

    Parameters
    ----------
    dsn : `chdb:...`.
    port : on 127.0.0.1; 0 takes a free one.

    Raises
    ------
    StoreError
        If another process holds the directory or the port, or the DSN is of a server.
    """
    place = Dsn.parse(dsn)
    if place.directory is None:
        raise StoreError("only a chdb: dsn can be served, this one is of a server that runs already")
    holder = lock_holder(place.directory)
    if holder is not None:
        running = find_server(place.directory)
        at = f", which serves it at {running.url}" if running else ": end that process first"
        raise StoreError(f"store {place.directory} is held by process {holder}{at}")
    os.environ["TZ"] = "UTC"  # the engine's own time zone, before it is loaded
    time.tzset()
    _serve(place.directory, port)


def _serve(directory: Path, port: int) -> None:
    # The engine takes half a second and 150 MB: only the server itself pays for it.
    from sysquant.serve_engine import Engine, EngineError  # noqa: PLC0415
    from sysquant.serve_http import StoreServer  # noqa: PLC0415

    directory.mkdir(parents=True, exist_ok=True)
    try:
        engine = Engine(directory)
    except EngineError as error:
        raise StoreError(f"store {directory} cannot be opened: {error}") from error
    passwords = users(directory)
    try:
        server = StoreServer(engine, passwords, port=port)
    except OSError as error:
        engine.close()
        raise StoreError(f"port {port} cannot be had ({error.strerror}): choose another") from error
    url = f"http://127.0.0.1:{server.server_address[1]}"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    file = directory / "server.json"
    write_private(file, {"url": url, "pid": os.getpid(), "users": passwords})
    print(f"store {directory} is served at {url}, passwords in {file}", flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        file.unlink(missing_ok=True)
        server.server_close()
        engine.close()
