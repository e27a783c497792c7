"""Commands to a running book: typed, signed, dated, used once; and the answers to them.

Input: a command and a key, or the bytes of an answer. Output: the bytes of a message, or what was
answered. Which messages count is `gate.py`'s, what a command does `desk.py`'s, and how messages
travel `mailbox.py`'s.
"""

import getpass
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from sysquant.errors import ControlError

Role: TypeAlias = Literal["operate", "rearm"]
ROLES: tuple[Role, ...] = ("operate", "rearm")
ENVIRONMENT = {role: f"SYSQUANT_{role.upper()}_KEY" for role in ROLES}
MOST_BYTES = 4096
_KEY_BYTES = 32
_LEAST_KEY = 32  # characters of a key from the environment
NONCE_BYTES = 16


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=str.lower):
    @classmethod
    def word(cls) -> str:
        """As it is typed."""
        return str(cls.__struct_config__.tag)


class Status(_Command, frozen=True):
    """Tell how the book stands."""


class Start(_Command, frozen=True):
    """Let what is off trade again."""

    strategy: str | None = None
    symbol: str | None = None


class Stop(_Command, frozen=True):
    """Cancel, flatten, and give the cash back to the pool."""

    strategy: str | None = None
    symbol: str | None = None


class Drain(_Command, frozen=True):
    """Only reduce."""

    strategy: str | None = None
    symbol: str | None = None


class Pause(_Command, frozen=True):
    """Keep what is held, but for exits."""

    strategy: str | None = None
    symbol: str | None = None


class Resume(_Command, frozen=True):
    """Let what is paused or drained trade again; for the whole book, also after a gap."""

    strategy: str | None = None
    symbol: str | None = None


class Weight(_Command, frozen=True):
    """Multiply a strategy's targets, in [0, 1]."""

    strategy: str | None
    weight: float


class MoveCash(_Command, frozen=True, tag="move-cash"):
    """Move capital between strategies, or from or to the pool ("")."""

    source: str
    target: str
    amount: float


class Refresh(_Command, frozen=True):
    """Let a strategy ask its newest model."""

    strategy: str


class Rollback(_Command, frozen=True, omit_defaults=True):
    """Let a strategy ask an earlier model again, by its number; newer ones are taken from then."""

    strategy: str
    number: int
    id: str = ""  # where it is said, of that number no other is taken


class Promote(_Command, frozen=True, omit_defaults=True):
    """Let a strategy ask a newer model, by its number, though it holds the one it has."""

    strategy: str
    number: int
    id: str = ""


class Retrain(_Command, frozen=True):
    """Train a model now, by the name of its job; for the schedule."""

    job: str


class Halt(_Command, frozen=True):
    """Send no order any more, until the book is re-armed."""


class Rearm(_Command, frozen=True):
    """End a halt; or, of a strategy, what disabled it."""

    strategy: str | None = None


Command: TypeAlias = (
    Status | Start | Stop | Drain | Pause | Resume | Weight | MoveCash | Refresh | Rollback
    | Promote | Retrain | Halt | Rearm
)  # fmt: skip
# Who may say what: a key that only re-arms cannot trade, one that trades cannot re-arm.
MAY: Mapping[Role, tuple[type[_Command], ...]] = {
    "operate": (
        Status, Start, Stop, Drain, Pause, Resume, Weight, MoveCash, Refresh, Rollback, Promote,
        Retrain, Halt,
    ),
    "rearm": (Status, Halt, Rearm),
}  # fmt: skip


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed.

    Parameters
    ----------
    book, journal : whom it is for: name, and the journal's id.
    role : whose key signs it.
    issuer : who says it, for the record.
    issued : when, ns UTC.
    nonce : random; no message counts twice.
    """

    book: str
    journal: str
    role: Role
    issuer: str
    issued: int
    nonce: str
    command: Command


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a message.

    Parameters
    ----------
    request : `request_id` of its bytes.
    ok : whether it was accepted.
    text : what it did, or why not.
    seq : of the input in which it took effect; 0 for none.
    status : how the book stands, for `Status`.
    """

    request: str
    ok: bool
    text: str
    seq: int = 0
    status: dict[str, object] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """Keys by role, of those that are held; a repr shows none."""

    of: Mapping[Role, bytes]

    @classmethod
    def load(cls, directory: Path, *, make: bool = False) -> "Keys":
        """Keys from the environment, else from files, 0600.

        Parameters
        ----------
        directory : of the files `operate.key` and `rearm.key`.
        make : whether files that are missing are made, in a directory 0700: the book's own part.

        Raises
        ------
        ControlError
            If a key is short, both are the same, or others may read a file.
        """
        found: dict[Role, bytes | None] = {
            role: _from_environment(role) or _from_file(directory, role) for role in ROLES
        }
        if make:
            found = {role: key or _made(directory, role) for role, key in found.items()}
        keys: dict[Role, bytes] = {role: key for role, key in found.items() if key}
        if len(set(keys.values())) < len(keys):
            raise ControlError(
                f"{ENVIRONMENT['operate']} and {ENVIRONMENT['rearm']} are the same key: whoever "
                "may trade could end a halt; make another, openssl rand -hex 32"
            )
        return cls(keys)

    def role_for(self, command: type[_Command]) -> Role:
        """As who to say a kind of command.

        Raises
        ------
        ControlError
            If no key is held that may say it.
        """
        may: list[Role] = [role for role in MAY if command in MAY[role]]
        held: list[Role] = [role for role in may if role in self.of]
        if not held:
            names = " or ".join(ENVIRONMENT[role] for role in may)
            raise ControlError(f"no key for {command.word()} here: set {names}")
        return held[0]

    def mac(self, role: Role, body: bytes) -> bytes:
        """Signature of exactly these bytes, in hex."""
        return hmac.new(self.of[role], body, hashlib.sha256).hexdigest().encode()

    def sign(self, role: Role, body: bytes) -> bytes:
        """The bytes to send."""
        return self.mac(role, body) + b" " + body

    def role_of(self, raw: bytes) -> tuple[Role, bytes] | None:
        """Whose signature stands before a body, and the body; None for nobody's."""
        mac, _, body = raw.partition(b" ")
        found: list[Role] = [
            role for role in self.of if hmac.compare_digest(mac, self.mac(role, body))
        ]
        return (found[0], body) if found else None


def _from_environment(role: Role) -> bytes | None:
    key = os.environ.get(ENVIRONMENT[role], "").strip()
    return _long_enough(ENVIRONMENT[role], key) if key else None


def _long_enough(where: str, key: str) -> bytes:
    if len(key) < _LEAST_KEY:
        raise ControlError(
            f"{where} must have at least {_LEAST_KEY} characters, had {len(key)}: "
            "openssl rand -hex 32"
        )
    return key.encode()


def _from_file(directory: Path, role: Role) -> bytes | None:
    path = directory / f"{role}.key"
    try:
        if not path.exists():
            return None
        if path.stat().st_mode & 0o077:
            raise ControlError(f"others may read {path}: chmod 600 it, or make another")
        return _long_enough(str(path), path.read_text().strip())
    except (OSError, ValueError) as error:
        raise ControlError(f"the key {path} cannot be used: {error}") from error


def _made(directory: Path, role: Role) -> bytes | None:
    path = directory / f"{role}.key"
    new = path.with_suffix(f".{secrets.token_hex(4)}")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
        try:
            os.link(new, path)  # never over one that another process has just made
        except FileExistsError:
            pass
        finally:
            new.unlink()
    except OSError as error:
        raise ControlError(f"the key {path} cannot be made: {error}") from error
    return _from_file(directory, role)


_encode = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(Answer).decode


def command_bytes(command: Command) -> bytes:
    """A command as it is journaled."""
    return _encode(command)


def write(
    command: Command, keys: Keys, *, book: str, journal: str, role: Role, issuer: str = ""
) -> bytes:
    """The bytes of a message that says a command now."""
    issuer = issuer or getpass.getuser()
    nonce = secrets.token_hex(NONCE_BYTES)
    message = Message(book, journal, role, issuer, time.time_ns(), nonce, command)
    return keys.sign(role, _encode(message))


def request_id(raw: bytes) -> str:
    """What an answer names the message by."""
    return hashlib.sha256(raw).hexdigest()


def write_answer(answer: Answer, keys: Keys, asked: bytes) -> bytes:
    """The bytes of an answer to a message, signed with the key that signed that."""
    asker = keys.role_of(asked)
    return keys.sign(asker[0] if asker else "operate", _encode(answer))


def read_answer(raw: bytes, keys: Keys) -> Answer | None:
    """The answer in a message; None for what is none, or not signed."""
    found = keys.role_of(raw)
    try:
        return _decode_answer(found[1]) if found else None
    except msgspec.DecodeError:
        return None
