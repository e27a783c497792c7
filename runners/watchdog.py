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
from sysquant.alerts import Courier
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
    seconds = {key: compose.value(cfg, key, float) for key in ("every_s", "repeat_s", "retry_s")}
    for key, value in seconds.items():
        check_number(key, value, above=0)
    books = compose.value(cfg, "books", list[str] | Literal["all"])
    journals = home() / "data" / "journals"
    dog = Watchdog(journals, None if books == "all" else books, repeat_s=seconds["repeat_s"])
    channels = [compose.build(node) for node in (cfg.webhook, cfg.email)]
    couriers = [Courier(c, retry_s=seconds["retry_s"]) for c in channels if c.is_on]
    if not couriers:
        log.warning("no webhook and no e-mail is set: alerts go to this log alone")
    log.info("watching books=%s channels=%d", books, len(couriers))
    try:
        while True:
            for alert in dog.look(time.time_ns()):
                level = logging.INFO if alert.kind == "recovered" else logging.WARNING
                log.log(level, "%s book=%s detail=%s", alert.kind, alert.book, alert.detail)
                for courier in couriers:
                    courier.send(alert)
            if stopped.wait(seconds["every_s"]):
                break
    finally:
        for courier in couriers:
            courier.close(1.0)


if __name__ == "__main__":
    main()
