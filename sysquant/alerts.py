"""Alerts to people: by webhook and by e-mail, each in a thread of its own, until they arrive.

Input: an alert. Output: a POST of JSON, or a mail. What is refused for good, or does not arrive in
time, is a line of the log; no line holds an address or a password, for an address may be a secret.
"""

import logging
import smtplib
import socket
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Protocol

import urllib3
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_not_exception_type,
    stop_after_delay,
    wait_random_exponential,
)
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from sysquant.errors import AlertError, ConfigError
from sysquant.keys import check_number

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0  # of one connection, and of one answer


@dataclass(frozen=True, slots=True)
class Alert:
    """What a person should know of a book: a word, a sentence, and when, wall clock, ns."""

    book: str
    kind: str
    detail: str
    ts: int

    @property
    def text(self) -> str:
        """All of it in one line."""
        return f"{self.book} {self.kind}: {self.detail} ({self.time})"

    @property
    def time(self) -> str:
        """When, ISO 8601 UTC, to the second."""
        return f"{datetime.fromtimestamp(self.ts // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"


class Channel(Protocol):
    """A way to a person."""

    @property
    def is_on(self) -> bool:
        """Whether it was configured."""
        ...

    def send(self, alert: Alert) -> None:
        """Try once; `AlertError` when trying again is of no use, any other error when it may be."""
        ...


class Webhook:
    """Posts alerts as JSON: `text`, which chat services show, and `book`, `kind`, `detail`, `time`.

    Parameters
    ----------
    url : where to; None for not at all. It may hold a secret, so it comes from the environment.

    Raises
    ------
    ConfigError
        If it is no address of a web server.
    """

    def __init__(self, *, url: str | None = None) -> None:
        if url and not url.startswith(("http://", "https://")):
            raise ConfigError("url must begin with https:// or http://, and did not")
        self._url = url
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT_S, retries=False)

    @property
    def is_on(self) -> bool:
        return bool(self._url)

    def send(self, alert: Alert) -> None:
        body = {"text": alert.text, "book": alert.book, "kind": alert.kind}
        body |= {"detail": alert.detail, "time": alert.time}
        status = self._pool.request("POST", self._url or "", json=body).status
        if 300 <= status < 500 and status not in (408, 425, 429):
            raise AlertError(f"the webhook answered {status}; look at its address")
        if status >= 300:
            raise ConnectionError(f"the webhook answered {status}")


class Email:
    """Sends alerts as plain mail.

    Parameters
    ----------
    host, port : of the mail server; None for not at all.
    sender, recipients : addresses.
    starttls : whether the connection must be encrypted before anything is said.
    ca_file : certificates to trust, PEM; None for those of the system.
    user, password : None for a server that asks for none; the password comes from the environment.

    Raises
    ------
    ConfigError
        If something is missing, or a password would go over the net in clear.
    """

    def __init__(
        self,
        *,
        host: str | None = None,
        port: int = 587,
        sender: str | None = None,
        recipients: Sequence[str] = (),
        starttls: bool = True,
        ca_file: str | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        check_number("port", port, least=1, most=65_535, whole=True)
        if host and not sender:
            raise ConfigError(f"sender must be an address when there is a host, was {sender!r}")
        if host and not recipients:
            raise ConfigError("recipients must name an address when there is a host, was empty")
        if user and not password:
            raise ConfigError("password of the mail user was not set; put it in the environment")
        if user and not starttls:
            raise ConfigError("starttls must be true with a user, was false: else all can read it")
        self._host, self._port = host, port
        self._sender, self._recipients = sender or "", list(recipients)
        self._starttls, self._ca_file = starttls, ca_file
        self._user, self._password = user, password or ""

    @property
    def is_on(self) -> bool:
        return bool(self._host)

    def send(self, alert: Alert) -> None:
        mail = EmailMessage()
        mail["Subject"] = f"[sysquant] {alert.book} {alert.kind}"
        mail["From"], mail["To"] = self._sender, ", ".join(self._recipients)
        mail.set_content(f"{alert.text}\n")
        name = socket.gethostname()  # the full name may take a server of names that is away
        try:
            with smtplib.SMTP(self._host or "", self._port, name, _TIMEOUT_S) as server:
                if self._starttls:
                    server.starttls(context=ssl.create_default_context(cafile=self._ca_file))
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(mail)
        except smtplib.SMTPNotSupportedError as error:
            raise AlertError("the mail server has no STARTTLS or login; look at email") from error
        except smtplib.SMTPResponseException as error:
            _refuse([error.smtp_code])
            raise
        except smtplib.SMTPRecipientsRefused as error:
            _refuse([code for code, _ in error.recipients.values()])
            raise


def _refuse(codes: Sequence[int]) -> None:
    # RFC 5321: 4yz may be tried again, 5yz not.
    if min(codes) >= 500:
        raise AlertError(f"the mail server refused with {codes[0]}; look at email in the settings")


class Courier:
    """Takes alerts to one channel, in order, trying again until each arrives.

    Parameters
    ----------
    channel : the way.
    retry_s : how long one alert is tried, before the next one's turn.
    """

    def __init__(self, channel: Channel, *, retry_s: float = 300.0) -> None:
        self._channel = channel
        self._name = type(channel).__name__.lower()
        self._retry_s = retry_s
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        self._waiting: list[Future[None]] = []

    def send(self, alert: Alert) -> None:
        """Take an alert; returns at once."""
        self._waiting = [future for future in self._waiting if not future.done()]
        self._waiting.append(self._pool.submit(self._deliver, alert))
        self._waiting[-1].add_done_callback(self._look)

    def close(self, timeout_s: float = 0.0) -> None:
        """Wait so long for what is on its way, then give it up."""
        wait(self._waiting, timeout_s)
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _deliver(self, alert: Alert) -> None:
        policy = Retrying(
            retry=retry_if_not_exception_type(AlertError),
            wait=wait_random_exponential(multiplier=0.5, max=30.0),
            sleep=sleep_using_event(self._stop),
            stop=stop_after_delay(self._retry_s) | stop_when_event_set(self._stop),
            before_sleep=self._say_again,
            reraise=True,
        )
        policy(self._channel.send, alert)
        log.info("alert sent channel=%s book=%s kind=%s", self._name, alert.book, alert.kind)

    def _say_again(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("alert again channel=%s reason=%s", self._name, _reason(error))

    def _look(self, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("alert lost channel=%s reason=%s", self._name, _reason(error))


def _reason(error: BaseException | None) -> str:
    # What others say may hold the address; what we say does not.
    return str(error) if isinstance(error, AlertError) else type(error).__name__
