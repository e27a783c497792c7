"""Alerts arrive: over real HTTP and real SMTP, again and again until they do, and leak nothing."""

import logging
import time

import pytest

from runners.kafka import free_ports
from sysquant.alerts import Alert, Courier, Email, Webhook
from sysquant.errors import AlertError, ConfigError
from tests.receivers import Hook, Mailbox, certificate, hook, mail_server, only
from tests.sessions import until

__all__ = ["certificate", "hook"]  # fixtures

ALERT = Alert("momentum-kafka", "dead", "process 12 is gone", 1_700_000_000 * 10**9)
TEXT = "momentum-kafka dead: process 12 is gone (2023-11-14T22:13:20Z)"
TO = {"sender": "desk@example.org", "recipients": ["me@example.org", "you@example.org"]}


def sent(channel, *alerts, **options):
    """Hand alerts to a courier, and wait until all are delivered or given up."""
    courier = Courier(channel, **options)
    for alert in alerts or [ALERT]:
        courier.send(alert)
    courier.close(20.0)


def test_a_webhook_is_posted_the_alert_as_json(hook):
    sent(Webhook(url=hook.url))
    assert hook.posted == [
        {
            "text": TEXT, "book": "momentum-kafka", "kind": "dead",
            "detail": "process 12 is gone", "time": "2023-11-14T22:13:20Z",
        }
    ]  # fmt: skip


def test_a_webhook_that_fails_is_tried_again_and_order_is_kept(hook):
    hook.answers = [503, 429]
    later = Alert("momentum-kafka", "recovered", "it was dead", ALERT.ts)
    sent(Webhook(url=hook.url), ALERT, later)
    assert hook.kinds() == ["dead", "recovered"]
    assert hook.tries == 4


@pytest.mark.parametrize("status", [301, 400, 404])
def test_a_webhook_that_refuses_is_left_at_once_and_the_log_says_so(hook, status, caplog):
    hook.answers = [status]
    sent(Webhook(url=hook.url))
    assert hook.tries == 1
    assert f"alert lost channel=webhook reason=the webhook answered {status}" in caplog.text


def test_a_receiver_that_is_away_is_given_up_in_time_and_holds_up_nobody(caplog):
    (port,) = free_ports(1)
    courier = Courier(Webhook(url=f"http://127.0.0.1:{port}/secret-of-the-hook"), retry_s=0.5)
    began = time.monotonic()
    courier.send(ALERT)
    assert time.monotonic() - began < 0.1
    courier.close(20.0)
    assert time.monotonic() - began < 10
    assert "alert lost channel=webhook" in caplog.text
    assert "secret" not in caplog.text


def test_a_watchdog_that_ends_does_not_wait_for_a_receiver_that_is_away():
    (port,) = free_ports(1)
    courier = Courier(Webhook(url=f"http://127.0.0.1:{port}/"))
    courier.send(ALERT)
    began = time.monotonic()
    courier.close(0.2)
    assert time.monotonic() - began < 3


def test_mail_arrives_with_its_subject_and_text():
    box = Mailbox()
    with mail_server(box) as port:
        sent(Email(host="127.0.0.1", port=port, starttls=False, **TO))
    (letter,) = box.letters
    assert letter["Subject"] == "[sysquant] momentum-kafka dead"
    assert (letter["From"], letter["To"]) == (TO["sender"], ", ".join(TO["recipients"]))
    assert letter.get_payload().strip() == TEXT


def test_mail_that_is_put_off_is_sent_again_and_one_that_is_refused_is_not(caplog):
    box = Mailbox("451 later", "452 later")
    with mail_server(box) as port:
        channel = Email(host="127.0.0.1", port=port, starttls=False, **TO)
        sent(channel)
        assert (len(box.letters), box.tries) == (1, 3)
        box.answers = ["554 no"]
        sent(channel)
    assert (len(box.letters), box.tries) == (1, 4)
    assert "alert lost channel=email reason=the mail server refused with 554" in caplog.text


def test_mail_goes_encrypted_with_a_password_that_no_log_holds(certificate, caplog):
    caplog.set_level(logging.DEBUG)
    path, context = certificate
    box = Mailbox()
    settings = {"tls_context": context, "require_starttls": True, "auth_required": True}
    with mail_server(box, authenticator=only("desk", "swordfish"), **settings) as port:
        to = {"host": "127.0.0.1", "port": port, "ca_file": path, "user": "desk", **TO}
        sent(Email(password="swordfish", **to))
        assert box.is_encrypted == [True]
        sent(Email(password="wrong-fish", **to))
    assert len(box.letters) == 1
    assert "alert lost channel=email reason=the mail server refused with 535" in caplog.text
    assert "fish" not in caplog.text


def test_mail_is_not_sent_to_a_server_whose_certificate_is_unknown(certificate, caplog):
    box = Mailbox()
    with mail_server(box, tls_context=certificate[1]) as port:
        sent(Email(host="127.0.0.1", port=port, **TO), retry_s=0.1)
    assert not box.letters
    assert "reason=SSLCertVerificationError" in caplog.text


def test_mail_is_not_sent_in_clear_to_a_server_that_cannot_encrypt(caplog):
    box = Mailbox()
    with mail_server(box) as port:
        sent(Email(host="127.0.0.1", port=port, **TO))
    assert not box.letters
    assert "reason=the mail server has no STARTTLS" in caplog.text


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Webhook(url="ftp://x"), "url must begin with https:// or http://"),
        (lambda: Email(host="h"), "sender must be an address when there is a host, was None"),
        (lambda: Email(host="h", sender="a@b"), "recipients must name an address"),
        (lambda: Email(port=0), "port must be a whole number >= 1 and <= 65535, was 0"),
        (lambda: Email(host="h", user="u", **TO), "password of the mail user was not set"),
        (
            lambda: Email(host="h", user="u", password="p", starttls=False, **TO),
            "starttls must be true with a user",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_without_its_secret(make, said):
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(said)


def test_channels_are_off_until_they_are_named():
    assert not Webhook().is_on
    assert not Email().is_on
    assert Webhook(url="https://127.0.0.1/").is_on
    assert Email(host="127.0.0.1", **TO).is_on


def test_an_error_that_nobody_thought_of_is_told_and_ends_nothing(caplog):
    class Broken:
        is_on = True
        tries = 0

        def send(self, alert):
            self.tries += 1
            if self.tries == 1:
                raise AlertError("nobody is there")

    channel = Broken()
    sent(channel, ALERT, ALERT)
    assert channel.tries == 2
    assert "alert lost channel=broken reason=nobody is there" in caplog.text


def test_alerts_of_one_channel_do_not_wait_for_another(hook):
    slow = Hook(*[503] * 100)
    couriers = [Courier(Webhook(url=slow.url)), Courier(Webhook(url=hook.url))]
    for courier in couriers:
        courier.send(ALERT)
    until(lambda: hook.posted, timeout=5)
    for courier in couriers:
        courier.close()
    slow.close()
