"""An operator of a session: says commands as `control.py` does, and forges some."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sysquant import control, journal_reader
from sysquant.control import Answer, Keys, Message, read_answer, request_id
from sysquant.mailbox import post
from tests.chaos.session import Session

TURN_S = 0.002
OTHERS = Keys({"operate": b"x" * 32, "rearm": b"y" * 32})


class Operator:
    """Whoever holds the keys of a session's home."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.keys = Keys.load(session.lab.home / "data" / "keys")
        self.used = list[bytes]()

    def say(self, command: control.Command, timeout_s: float = 60.0) -> tuple[Answer, float]:
        """The answer, and seconds until it was there."""
        role = "rearm" if isinstance(command, control.Rearm) else "operate"
        raw = control.write(
            command, self.keys, book=self.session.name, journal=self.session.run, role=role
        )
        began = time.monotonic()
        post(self.session.directory, raw)
        self.used.append(raw)
        while time.monotonic() - began < timeout_s:
            found = journal_reader.answer(self.session.directory, request_id(raw))
            answer = read_answer(found, self.keys) if found else None
            if answer is not None:
                return answer, time.monotonic() - began
            time.sleep(TURN_S)
        raise TimeoutError(f"no answer to {command} within {timeout_s:g} s")

    def forged(self, draw: random.Random) -> bytes:
        """A message that must not count: of a stranger, stale, replayed, or beyond its role."""
        ways: Sequence[Callable[[], bytes]] = (
            lambda: draw.randbytes(draw.randrange(400)),
            lambda: self._signed(keys=OTHERS),
            lambda: self._signed(issued=time.time_ns() - draw.randrange(31, 10**6) * 10**9),
            lambda: draw.choice(self.used),
            lambda: self._signed(command=control.Rearm()),
            lambda: self._signed(role="rearm"),
            lambda: self._signed(journal="another"),
            lambda: self._signed().replace(b"momentum", b"breakout"),
        )
        return draw.choice(ways)()

    def _signed(self, *, keys: Keys | None = None, **changed: Any) -> bytes:
        said: dict[str, Any] = {
            "book": self.session.name, "journal": self.session.run, "role": "operate",
            "issuer": "somebody", "issued": time.time_ns(), "nonce": random.randbytes(16).hex(),
            "command": control.Stop("momentum"),
        }  # fmt: skip
        message = Message(**(said | changed))
        return (keys or self.keys).sign(message.role, msgspec.json.encode(message))
