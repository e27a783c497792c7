"""Old inputs of a journal as Parquet files, each chained to the one before by its hash.

Input: the inputs that two snapshots have outlived. Output: files `inputs-<first>-<last>.parquet` of
a run, after which the journal may forget them; and the inputs again, for proofs. Runs in a thread
of its own: what trades never waits for it.
"""

import hashlib
import logging
import os
import queue
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sysquant.errors import JournalError
from sysquant.failpoints import Point, reached
from sysquant.home import sync
from sysquant.journal import Input
from sysquant.journal_reader import JournalReader

log = logging.getLogger(__name__)

_NAME = re.compile(r"inputs-(\d+)-(\d+)\.parquet")
_MOST_BYTES = 16 << 20  # of payloads in a file
_FIRST = bytes(32)  # what the first file is chained to
_SCHEMA = pa.schema(
    [
        ("seq", pa.uint64()), ("kind", pa.string()), ("payload", pa.binary()),
        ("effects_hash", pa.binary()),
    ]
)  # fmt: skip


class Sealer:
    """Seals the inputs of one journal.

    Parameters
    ----------
    journal : its file.
    directory : of the run's files; made when there is something to seal.
    newest : the journal's last input. Files that hold more are not of this journal, which was
        restored from a copy then: nothing is sealed, nor after one that cannot be read.
    least : inputs that are worth a file; or as many as fill one.
    """

    def __init__(
        self, journal: Path, directory: Path, *, newest: int, least: int = 5_000
    ) -> None:  # fmt: skip
        self._journal, self._directory, self._least = journal, directory, least
        self._asked: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._sealed, self._chain, self._is_off = 0, _FIRST, False
        try:
            last, chain = _end_of(directory)
            if last > newest:
                raise JournalError(f"they go to {last}, the journal to {newest}")
            self._sealed, self._chain = last, chain
        except (OSError, ValueError, JournalError, pa.ArrowException) as error:
            self._is_off = True
            log.error("inputs stay in the journal, files in %s do not fit: %s", directory, error)
        self._thread = threading.Thread(target=self._run, name="sealer", daemon=True)
        self._thread.start()

    def ask(self, last: int) -> None:
        """Seal inputs up to a sequence number, if they are many enough."""
        if not self._is_off:
            self._asked.put(last)

    @property
    def sealed(self) -> int:
        """The last input that lies in a file, on disk; 0 for none."""
        return self._sealed

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop; what is not sealed stays in the journal."""
        self._asked.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        reader = JournalReader(self._journal)
        while (last := self._asked.get()) is not None:
            try:
                while self._is_worth_it(reader, last) and self._asked.empty():
                    self._seal(reader.inputs(self._sealed, last, most_bytes=_MOST_BYTES))
            except (OSError, JournalError, pa.ArrowException) as error:
                log.warning("inputs not sealed reason=%s; they stay in the journal", error)
        reader.close()

    def _is_worth_it(self, reader: JournalReader, last: int) -> bool:
        if last - self._sealed >= self._least:
            return True
        return reader.inputs_size(self._sealed, last) >= _MOST_BYTES

    def _seal(self, inputs: Sequence[Input]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        chain = _chained(self._chain, inputs)
        first, last = inputs[0].seq, inputs[-1].seq
        columns = [[getattr(one, field.name) for one in inputs] for field in _SCHEMA]
        meta = {"previous": self._chain.hex(), "chain": chain.hex()}
        table = pa.table(columns, schema=_SCHEMA.with_metadata(meta))
        path = self._directory / f"inputs-{first:012d}-{last:012d}.parquet"
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            pq.write_table(table, file, compression="zstd", use_dictionary=False)
            file.flush()
            os.fsync(file.fileno())
        reached(Point.FILE_WRITTEN)
        new.rename(path)
        try:
            sync(self._directory)  # the name, too, before the journal forgets
        except OSError:
            path.unlink()  # it is not said to be sealed, and would be in the way of the next
            raise
        reached(Point.FILE_NAMED)
        self._chain, self._sealed = chain, last


def sealed_inputs(directory: Path, after: int = 0) -> Iterator[Input]:
    """The sealed inputs of a run that come after one, in order; files of others are not read.

    Raises
    ------
    JournalError
        If a file is missing, or is not what was sealed.
    """
    chain, last = _FIRST, 0
    for path in _files(directory):
        if (end := _last_of(path)) <= after:
            chain, last = _chain_of(path), end
            continue
        inputs, previous, stated = _read(path)
        if previous != chain or inputs[0].seq != last + 1 or _chained(chain, inputs) != stated:
            raise JournalError(f"{path} is not what was sealed after input {last} of this run")
        yield from (one for one in inputs if one.seq > after)
        chain, last = stated, inputs[-1].seq


def _read(path: Path) -> tuple[list[Input], bytes, bytes]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise JournalError(f"{path} cannot be read: {error}") from error
    return [Input(**row) for row in table.to_pylist()], *_stated(table.schema)


def _chain_of(path: Path) -> bytes:
    # What the next file is chained to.
    try:
        return _stated(pq.read_schema(path))[1]
    except (OSError, pa.ArrowException) as error:
        raise JournalError(f"{path} cannot be read: {error}") from error


def _stated(schema: pa.Schema) -> tuple[bytes, bytes]:
    # What a file says it is chained to, and its own hash.
    meta = schema.metadata or {}
    previous, chain = (meta.get(key, b"").decode() for key in (b"previous", b"chain"))
    return bytes.fromhex(previous), bytes.fromhex(chain)


def _last_of(path: Path) -> int:
    found = _NAME.match(path.name)
    return int(found[2]) if found else 0


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("inputs-*.parquet") if _NAME.match(path.name))


def _end_of(directory: Path) -> tuple[int, bytes]:
    # The last sealed input and the hash that the next file is chained to.
    files = _files(directory)
    if not files:
        return 0, _FIRST
    return _last_of(files[-1]), _stated(pq.read_schema(files[-1]))[1]


def _chained(chain: bytes, inputs: Sequence[Input]) -> bytes:
    digest = hashlib.sha256(chain)
    for one in inputs:
        kind = one.kind.encode()
        digest.update(struct.pack("<QII", one.seq, len(kind), len(one.payload)))
        digest.update(kind + one.payload + one.effects_hash)
    return digest.digest()
