"""Where alerts arrive in tests: a web server and a mail server of this process, on 127.0.0.1."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from runners.kafka import free_ports


class Hook:
    """A web server that keeps what is posted to it; `answers` come first, then 204s."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.posted: list[dict[str, str]] = []
        self.tries = 0
        hook = self

        class Pages(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = hook.answers.pop(0) if hook.answers else 204
                hook.tries += 1
                if status == 204:
                    hook.posted.append(body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *said):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-of-the-hook"
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()

    def kinds(self) -> list[str]:
        return [alert["kind"] for alert in self.posted]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Mailbox:
    """What a mail server hands its letters to; `answers` come first, then letters are taken."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.letters: list[Any] = []
        self.tries = 0
        self.is_encrypted: list[bool] = []

    async def handle_DATA(self, _server, session, envelope):  # noqa: N802
        self.tries += 1
        if self.answers:
            return self.answers.pop(0)
        self.letters.append(message_from_bytes(envelope.content))
        self.is_encrypted.append(session.ssl is not None)
        return "250 taken"


@contextmanager
def mail_server(box: Mailbox, **settings: Any) -> Iterator[int]:
    """A real SMTP server; its port."""
    (port,) = free_ports(1)
    server = Controller(box, hostname="127.0.0.1", port=port, **settings)
    server.start()
    try:
        yield port
    finally:
        server.stop()


def only(user: str, password: str) -> Any:
    """An authenticator that knows one user."""

    def check(_server, _session, _envelope, _mechanism, data):
        is_known = isinstance(data, LoginPassword) and (data.login, data.password) == (
            user.encode(),
            password.encode(),
        )
        return AuthResult(success=is_known, handled=False)

    return check


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Path of a certificate for 127.0.0.1, and what a server encrypts with it."""
    place = tmp_path_factory.mktemp("certificate")
    key, path = place / "key.pem", place / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-keyout", key, "-out", path], check=True, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError:
        pytest.skip("openssl is not on this machine: STARTTLS is not shown here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return str(path), context


@pytest.fixture
def hook():
    """A web server that takes what is posted."""
    found = Hook()
    yield found
    found.close()
