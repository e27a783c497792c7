"""Who tells people of alerts, as configured by `webhook` and `email`."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from omegaconf import DictConfig

from runners import compose
from sysquant.alerts import Alert, Courier
from sysquant.keys import check_number

log = logging.getLogger(__name__)


@contextmanager
def couriers_of(cfg: DictConfig) -> Iterator[Callable[[Alert], None]]:
    """A function that sends an alert every way that is set; at the end, what is on its way is."""
    retry_s = compose.value(cfg, "retry_s", float)
    check_number("retry_s", retry_s, above=0)
    channels = [compose.build(node) for node in (cfg.webhook, cfg.email)]
    couriers = [Courier(one, retry_s=retry_s) for one in channels if one.is_on]
    if not couriers:
        log.warning("no webhook and no e-mail is set: alerts go to this log alone")

    def tell(alert: Alert) -> None:
        for courier in couriers:
            courier.send(alert)

    try:
        yield tell
    finally:
        for courier in couriers:
            courier.close(1.0)
