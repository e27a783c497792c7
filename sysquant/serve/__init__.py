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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sysquant.errors import StoreError
from sysquant.home import PACKAGE, write_whole
from sysquant.stop import end, spawn
from sysquant.store import Dsn, Server, find_server, lock_holder

if TYPE_CHECKING:
    from sysquant.serve.http import StoreServer

log = logging.getLogger(__name__)

Start = Callable[..., "subprocess.Popen[bytes]"]
USERS = ("default", "dashboard")
STOP_S, HOLDER_STARTS_S, SIGNAL_S = 3.0, 4.0, 0.2
RUNNER = PACKAGE.parent / "runners" / "store.py"


def server_dsn(server: Server, database: str = "default", *, user: str = "default") -> str:
    """HTTP DSN of a running server, password included."""
    scheme, _, address = server.url.partition("://")
    return f"{scheme}://{user}:{server.users[user]}@{address}/{database}"


def ensure_server(
    dsn: str, *, wait_s: float = 20, start: Start = spawn
) -> tuple[str, "subprocess.Popen[bytes] | None"]:
    """A server for a DSN: the one that runs, or one started now.

    Parameters
    ----------
    dsn : `chdb:...`; an HTTP DSN is given back as it is.
    wait_s : how long a new server may take to answer, seconds.
    start : starts its process; `StopRequest.spawn` makes sure that the two end together.

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
        child = start(
            [sys.executable, RUNNER, "--dsn", f"chdb:{quote(str(place.directory))}"],
            output,
            place.directory,
        )
    gone = time.monotonic()
    deadline = gone + wait_s
    while time.monotonic() < deadline:
        server = find_server(place.directory)
        if server and server.pid == child.pid:
            return server_dsn(server, place.database), child
        if child.poll() is None:  # another may be quicker: ours finds the directory held, and ends
            gone = time.monotonic()
        elif server:
            return server_dsn(server, place.database), None
        elif lock_holder(place.directory) is None:
            break
        else:  # whoever holds the directory may be a server that starts
            deadline = min(deadline, gone + HOLDER_STARTS_S)
        time.sleep(0.02)
    end(child)
    raise StoreError(_why_not(place.directory, log_path))


def revive(dsn: str, start: Start) -> None:
    """Start the server of a `chdb:` DSN again if it died; one that is stalled is left alone.

    Parameters
    ----------
    dsn : `chdb:...`; nothing is done for an HTTP DSN.
    start : starts its process, see `ensure_server`.

    Raises
    ------
    StoreError
        If it does not start.
    """
    directory = Dsn.parse(dsn).directory
    if directory is None or lock_holder(directory) is not None:
        return
    ensure_server(dsn, start=start)


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
    write_whole(path, json.dumps(content, indent=1).encode(), 0o600)


def serve(dsn: str, *, port: int = 0) -> None:
    """Serve an embedded store until SIGTERM or SIGINT; prints one line when ready.

    Parameters
    ----------
    dsn : `chdb:...`.
    port : on 127.0.0.1; 0 takes the one of last time, so that clients find it again, or a free one.

    Raises
    ------
    StoreError
        If another process holds the directory or the port, or the DSN is of a server.
    """
    place = Dsn.parse(dsn)
    if place.directory is None:
        raise StoreError(
            "only a chdb: dsn can be served, this one is of a server that runs already"
        )
    holder = lock_holder(place.directory)
    if holder is not None:
        running = find_server(place.directory)
        at = f", which serves it at {running.url}" if running else ": end that process first"
        raise StoreError(f"store {place.directory} is held by process {holder}{at}")
    os.environ["TZ"] = "UTC"  # the engine's own time zone, before it is loaded
    time.tzset()
    _serve(place.directory, port)


# Clients and Grafana's data source keep the address over a restart, unless the port is taken.
def _listen(directory: Path, port: int, listen: "Callable[[int], StoreServer]") -> "StoreServer":
    kept = directory / "port"
    if port:
        return listen(port)
    try:
        return listen(int(kept.read_text()))
    except (OSError, ValueError):
        server = listen(0)
    kept.write_text(str(server.server_address[1]))
    return server


def _serve(directory: Path, port: int) -> None:
    # The engine takes half a second and 150 MB: only the server itself pays for it.
    from sysquant.serve.engine import Engine, EngineError
    from sysquant.serve.http import StoreServer, start

    directory.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if stop.is_set():  # asked twice
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    try:
        engine = Engine(directory)
    except EngineError as error:
        raise StoreError(f"store {directory} cannot be opened: {error}") from error
    passwords = users(directory)
    try:
        server = _listen(
            directory, port, lambda chosen: StoreServer(engine, passwords, port=chosen)
        )
    except OSError as error:
        engine.close()
        raise StoreError(f"port {port} cannot be had ({error.strerror}): choose another") from error
    start(server)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    file = directory / "server.json"
    write_private(file, {"url": url, "pid": os.getpid(), "users": passwords})
    print(f"store {directory} is served at {url}, passwords in {file}", flush=True)
    while not stop.wait(SIGNAL_S):  # a signal that another thread took wakes nobody
        pass
    file.unlink(missing_ok=True)
    server.shutdown()
    server.server_close()
    if not server.drain(STOP_S):
        log.warning("statements cut off connections=%d", len(server.connections))
        os._exit(0)  # the engine cannot be closed under them; what was acknowledged is on disk
    engine.close()
