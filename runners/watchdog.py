"""Watch live sessions from outside, and tell people by webhook and e-mail, until Ctrl-C.

A session writes its heartbeat about once a second. Of each book it is told, once in repeat_s:
dead, its process is gone and nobody asked it to end; hung, it runs without a heartbeat for
runtime.hung_s; lost, its feed is not connected; silent, connected without a record for
runtime.silent_s; held, the feed waits for the store; missing, no heartbeat; and recovered.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import signal
import threading
import time
from typing import Literal

from omegaconf import DictConfig

from runners import compose
from runners.couriers import couriers_of
from sysquant.home import home
from sysquant.keys import check_number
from sysquant.watchdog import Watchdog

log = logging.getLogger("watchdog")


@compose.main("watchdog")
def main(cfg: DictConfig) -> None:
    """Look at the heartbeats again and again; send what there is to tell."""
    compose.start_log()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    seconds = {key: compose.value(cfg, key, float) for key in ("every_s", "repeat_s")}
    for key, value in seconds.items():
        check_number(key, value, above=0)
    books = compose.value(cfg, "books", list[str] | Literal["all"])
    journals = home() / "data" / "journals"
    dog = Watchdog(journals, None if books == "all" else books, repeat_s=seconds["repeat_s"])
    with couriers_of(cfg) as tell:
        log.info("watching books=%s", books)
        while True:
            for alert in dog.look(time.time_ns()):
                level = logging.INFO if alert.kind == "recovered" else logging.WARNING
                log.log(level, "%s book=%s detail=%s", alert.kind, alert.book, alert.detail)
                tell(alert)
            if stopped.wait(seconds["every_s"]):
                break


if __name__ == "__main__":
    main()
