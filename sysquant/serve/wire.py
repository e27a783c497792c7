"""The forms a result takes on its way out, and inserted rows on their way in.

Arrow blocks joined to one document, HTTP content encodings, and ClickHouse's own compressed
frames. All are generators over chunks of bytes: memory stays bounded by one block.
"""

import importlib
import io
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol

import pyarrow as pa

INCORRECT_DATA = 117
MAX_FRAME_BYTES = 1 << 30
FRAME_BYTES = 1 << 20
LZ4, ZSTD, PLAIN = 0x82, 0x90, 0x02
CODECS = {LZ4: pa.Codec("lz4_raw"), ZSTD: pa.Codec("zstd", compression_level=1), PLAIN: None}
GZIP_LEVEL = 3
READ_BYTES = 1 << 18


class WireError(Exception):
    """Bytes that are not what their name says; with ClickHouse's number for it."""

    def __init__(self, message: str, code: int = INCORRECT_DATA) -> None:
        super().__init__(message)
        self.code = code


class Encoder(Protocol):
    """Turns chunks into encoded chunks, and says what is left at the end."""

    def compress(self, data: bytes, /) -> bytes:
        """Encode one chunk; may hold bytes back."""
        ...

    def flush(self) -> bytes:
        """What was held back and the end mark."""
        ...


# Where pyarrow's streams write to: what was written is taken away at once, so positions (an Arrow
# file's footer holds some) are counted here.
class _Outlet(io.RawIOBase):
    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class _ArrowEncoder:
    def __init__(self, codec: str) -> None:
        self._outlet = _Outlet()
        self._stream = pa.CompressedOutputStream(self._outlet, codec)

    def compress(self, data: bytes, /) -> bytes:
        self._stream.write(data)
        return self._outlet.take()

    def flush(self) -> bytes:
        self._stream.close()
        return self._outlet.take()


# In the order we like them: the fastest first.
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "lz4": lambda: _ArrowEncoder("lz4"),
    "zstd": lambda: _ArrowEncoder("zstd"),
    "gzip": lambda: zlib.compressobj(GZIP_LEVEL, wbits=31),
    "deflate": lambda: zlib.compressobj(GZIP_LEVEL),
    "br": lambda: _ArrowEncoder("brotli"),
}
DECODERS = {"lz4": "lz4", "zstd": "zstd", "gzip": "gzip", "br": "brotli"}


def choose_encoding(accepted: str) -> str:
    """Encoding for an `Accept-Encoding` header; empty when the client takes none of ours."""
    weights: dict[str, str] = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = weight.strip().removeprefix("q=") or "1"
    return next((name for name in ENCODERS if weights.get(name, "0").strip("0.")), "")


def decode(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Chunks of a request body as they were before `Content-Encoding`.

    Raises
    ------
    WireError
        If the encoding is unknown or the bytes are not of it.
    """
    if encoding in ("", "identity"):
        yield from chunks
        return
    try:
        if encoding == "deflate":
            decoder = zlib.decompressobj()
            for chunk in chunks:
                yield decoder.decompress(chunk)
        elif encoding in DECODERS:
            with pa.CompressedInputStream(_Inlet(chunks), DECODERS[encoding]) as stream:
                while plain := stream.read(READ_BYTES):
                    yield plain
        else:
            raise WireError(f"Content-Encoding {encoding!r} is not known")
    except (zlib.error, pa.ArrowException, OSError) as error:
        raise WireError(f"the body is not {encoding}: {error}") from error


# What pyarrow's streams read from.
class _Inlet(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = chunk
        size = len(self._left) if size < 0 else size
        taken, self._left = self._left[:size], self._left[size:]
        return taken


def join_arrow(chunks: Iterable[bytes], form: str) -> Generator[bytes, None, int]:
    """Blocks that are each a whole Arrow document, as one document.

    Parameters
    ----------
    chunks : each a complete Arrow file, or stream.
    form : `Arrow` or `ArrowStream`.

    Returns
    -------
    How many blocks there were: nothing is written when there were none.
    """
    is_file = form.lower() == "arrow"
    outlet, writer, count = _Outlet(), None, 0
    for chunk in chunks:
        reader = pa.ipc.open_file(chunk) if is_file else pa.ipc.open_stream(chunk)
        if writer is None:
            make = pa.ipc.new_file if is_file else pa.ipc.new_stream
            writer = make(outlet, reader.schema)
        batches = reader if not is_file else map(reader.get_batch, range(reader.num_record_batches))
        for batch in batches:
            writer.write_batch(batch)
        count += 1
        yield outlet.take()
    if writer is not None:
        writer.close()
        yield outlet.take()
    return count


def frame_header(checksum: tuple[int, int], body: bytes) -> bytes:
    """A compressed frame: checksum of what follows, then method, sizes and data."""
    return checksum[0].to_bytes(8, "little") + checksum[1].to_bytes(8, "little") + body


class Frames:
    """ClickHouse's compressed frames (`compress=1`): an `Encoder`.

    Parameters
    ----------
    method : `LZ4`, `ZSTD` or `NONE` (`network_compression_method`).
    """

    def __init__(self, method: str) -> None:
        self._method = {"ZSTD": ZSTD, "NONE": PLAIN}.get(method.upper(), LZ4)

    def compress(self, data: bytes, /) -> bytes:
        """Frames of at most a mebibyte each."""
        parts = (data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES))
        return b"".join(self._frame(part) for part in parts)

    def flush(self) -> bytes:
        """Nothing: every chunk ended its frame."""
        return b""

    def _frame(self, data: bytes) -> bytes:
        codec = CODECS[self._method]
        packed = codec.compress(data, asbytes=True) if codec else data
        sizes = (len(packed) + 9).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        body = bytes([self._method]) + sizes + packed
        return frame_header(_city(body), body)


# Compiled at first use: few clients ask for these frames.
def _city(data: bytes) -> tuple[int, int]:
    return importlib.import_module("sysquant.serve.city").city128(data)


def unframe(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Rows out of ClickHouse's compressed frames (`decompress=1`).

    Raises
    ------
    WireError
        If a checksum is wrong or the body ends inside a frame.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 25:
            size = int.from_bytes(buffer[17:21], "little")
            plain_size = int.from_bytes(buffer[21:25], "little")
            if not 9 <= size <= MAX_FRAME_BYTES or plain_size > MAX_FRAME_BYTES:
                raise WireError("the body is not made of compressed frames")
            if len(buffer) < 16 + size:
                break
            body = bytes(buffer[16 : 16 + size])
            if frame_header(_city(body), b"") != buffer[:16]:
                raise WireError("a compressed frame has a wrong checksum")
            del buffer[: 16 + size]
            yield _unpack(body[0], body[9:], plain_size)
    if buffer:
        raise WireError("the body ends inside a compressed frame")


def _unpack(method: int, packed: bytes, plain_size: int) -> bytes:
    if method not in CODECS:
        raise WireError(f"compression method 0x{method:02x} is not known, there are LZ4 and ZSTD")
    codec = CODECS[method]
    try:
        return codec.decompress(packed, plain_size, asbytes=True) if codec else packed
    except (pa.ArrowException, OSError) as error:
        raise WireError(f"a compressed frame cannot be read: {error}") from error
