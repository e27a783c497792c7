"""Which messages to a running book count: of a holder of a key, for it, now, and once.

Input: the bytes of a message, and when it arrived. Output: the command in it, or why it is refused.
Nothing of a message is read before its signature is right.
"""

from collections.abc import Mapping

import msgspec

from sysquant.control import MAY, MOST_BYTES, NONCE_BYTES, Keys, Message
from sysquant.errors import ControlError

_decode = msgspec.json.Decoder(Message).decode


class Gate:
    """Says which messages count: those of a holder of a key, for this book, now, once.

    Parameters
    ----------
    book, journal : who we are.
    age_s : how old a message may be, and how far clocks may differ.
    nonces : used ones -> when, ns UTC, from the journal; see `nonces`.
    """

    def __init__(
        self, keys: Keys, *, book: str, journal: str, age_s: float = 30.0,
        nonces: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._book, self._journal = book, journal
        self._age_ns = round(age_s * 1e9)
        self._nonces = dict(nonces or {})

    def admit(self, raw: bytes, arrived: int, now: int) -> Message:
        """The message, if it counts; its nonce is used then.

        Parameters
        ----------
        arrived : the broker's time of the record, ns UTC; our own where it came locally.
        now : our clock, ns UTC.

        Raises
        ------
        ControlError
            With the reason for which it is refused.
        """
        if len(raw) > MOST_BYTES:
            raise ControlError(f"it has {len(raw):,} bytes, at most {MOST_BYTES:,} are read")
        signed = self._keys.role_of(raw)
        if signed is None:
            raise ControlError("its signature is by none of the book's keys")
        role, body = signed
        try:
            message = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ControlError(f"it cannot be read: {error}") from error
        if (message.book, message.journal) != (self._book, self._journal):
            raise ControlError(
                f"it is for book {message.book!r}, journal {message.journal!r}; this is "
                f"{self._book!r}, {self._journal!r}"
            )
        if message.role != role or not isinstance(message.command, MAY[message.role]):
            raise ControlError(f"{message.command.word()} is not for the key of role {role}")
        self._check_age(message, arrived, now)
        if len(message.nonce) < NONCE_BYTES or message.nonce in self._nonces:
            raise ControlError("it was said before: every message counts once")
        self._nonces[message.nonce] = max(now, message.issued)
        return message

    def _check_age(self, message: Message, arrived: int, now: int) -> None:
        apart, waited = arrived - message.issued, now - arrived
        if abs(apart) > self._age_ns:
            raise ControlError(
                f"it was issued {apart / 1e9:.1f} s before it arrived, "
                f"{self._age_ns / 1e9:g} are allowed; say it again, and compare the clocks"
            )
        if waited > self._age_ns:
            raise ControlError(
                f"it waited for {waited / 1e9:.1f} s until it was read; say it again"
            )

    def nonces(self, now: int) -> dict[str, int]:
        """Used ones -> when, ns UTC; those that a message could still use: of 2 x `age_s`."""
        least = now - 2 * self._age_ns
        self._nonces = {nonce: at for nonce, at in self._nonces.items() if at >= least}
        return dict(self._nonces)
