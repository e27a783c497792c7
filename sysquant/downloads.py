"""Files of a public archive on disk: downloaded once, resumed where they broke off, verified.

Input: the address of an archive, in which `<file>.CHECKSUM` with the SHA-256 lies beside each file.
Output: those files in a directory of the same layout, under their names only once their checksum is
right. What they mean is not known here: whoever asks for one brings the check of its content.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry

from sysquant.compiled import source_hash
from sysquant.errors import DataError, FeedError
from sysquant.feeds.venues.venue import BUSY

T = TypeVar("T")

_PIECE = 1 << 16  # bytes at once; a process that is killed loses no more of a file
_PLAIN = {"Accept-Encoding": "identity"}  # bytes are counted, and asked for by their numbers
_RETRY = Retry(total=5, backoff_factor=0.5, status_forcelist=BUSY)
_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)


class Downloads:
    """A directory with files of one archive; its methods may be called from several threads.

    Parameters
    ----------
    url : of the archive.
    directory : for its files; made when missing.
    parallel : files that are asked for at once, at most.
    """

    def __init__(self, url: str, directory: Path, *, parallel: int = 1) -> None:
        self._url, self._directory = url.rstrip("/"), directory
        self._http = urllib3.PoolManager(maxsize=parallel, retries=_RETRY, timeout=_TIMEOUT)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End what runs in other threads; their files go on where they are at the next start."""
        self._stopped.set()

    def fetch(self, name: str, check: Callable[[Path], T]) -> T | None:
        """Have a file, and what its check makes of it.

        A file whose checksum or check fails is downloaded once more; then it is only asked for
        again when the server has another version of it.

        Parameters
        ----------
        name : path in the archive.
        check : of the content of a verified file; raises `DataError`.

        Returns
        -------
        What `check` returned; None where the archive has no such file (404).

        Raises
        ------
        DataError
            If its checksum or its content is wrong, twice.
        FeedError
            If the server does not answer, or the download was stopped; what has come stays.
        """
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        note = path.with_name(f"{path.name}.bad")
        self._refuse_known(name, note)
        try:
            found = self._checked(name, path, check)
        except DataError:
            path.unlink(missing_ok=True)
            try:
                found = self._checked(name, path, check)
            except DataError as error:
                path.unlink(missing_ok=True)
                note.write_text(json.dumps([self._version(name), str(error)]))
                raise
        note.unlink(missing_ok=True)
        return found

    def path(self, name: str) -> Path:
        """Where a file lies on disk."""
        return self._directory / name

    def checksum(self, name: str) -> str:
        """SHA-256 of a file that was fetched."""
        return _digest_in(self.path(f"{name}.CHECKSUM").read_text())

    def _checked(self, name: str, path: Path, check: Callable[[Path], T]) -> T | None:
        return check(path) if self._is_whole(name, path) or self._download(name, path) else None

    def _is_whole(self, name: str, path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError, DataError):
            return _sha256(path) == self.checksum(name)
        return False

    def _download(self, name: str, path: Path) -> bool:
        # Whether the archive has it.
        part = path.with_name(f"{path.name}.part")
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FeedError("another process is downloading it; wait for that one") from None
            if not self._pull(name, file):
                part.unlink()
                return False
            answer = self._ask("GET", f"{name}.CHECKSUM")
            text = answer.data.decode(errors="replace") if answer.status == 200 else ""
            try:
                want, is_ = _digest_in(text), _sha256(part)
                if want != is_:
                    raise DataError(f"its SHA-256 must be {want[:12]}..., was {is_[:12]}...")
            except DataError:
                part.unlink()
                raise
            path.with_name(f"{path.name}.CHECKSUM").write_text(text)
            part.rename(path)
        return True

    def _pull(self, name: str, file: IO[bytes]) -> bool:
        # All of a file, over breaks; a break behind the farthest byte so far counts as the first.
        retry, farthest = _RETRY, 0
        while True:
            try:
                return self._append(name, file)
            except HTTPError as error:
                farthest, before = max(farthest, file.tell()), farthest
                retry = _RETRY if farthest > before else retry
                try:
                    retry = retry.increment("GET", name, error=error)
                except MaxRetryError as last:
                    raise _away(last) from last
                retry.sleep()

    def _append(self, name: str, file: IO[bytes]) -> bool:
        # What is still missing of a file, where the server can begin there.
        start = file.seek(0, os.SEEK_END)
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._ask("GET", name, headers, stream=True)
        try:
            if answer.status == 404:
                return False
            if answer.status == 416:  # all of it is there: the checksum tells
                return True
            said = answer.headers.get("Content-Range", "")
            if answer.status == 200:
                file.truncate(0)
            elif answer.status != 206 or not said.startswith(f"bytes {start}-"):
                raise FeedError(f"the server answered {answer.status} {said}".rstrip())
            for piece in answer.stream(_PIECE, decode_content=False):
                if self._stopped.is_set():
                    raise FeedError("the download was stopped")
                file.write(piece)
                file.flush()
            return True
        finally:
            answer.close()

    def _ask(
        self, method: str, name: str, headers: dict[str, str] | None = None, *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        if self._stopped.is_set():
            raise FeedError("the download was stopped")
        asked = _PLAIN | (headers or {})
        try:
            return self._http.request(
                method, f"{self._url}/{name}", headers=asked, preload_content=not stream
            )
        except HTTPError as error:
            raise _away(error) from error

    def _version(self, name: str) -> str:
        # Of a file, its checksum and who judged them; empty where the server does not tell.
        try:
            asked = [self._ask("HEAD", one) for one in (name, f"{name}.CHECKSUM")]
        except FeedError:
            return ""
        tags = [one.headers.get("ETag", "") for one in asked]
        return " ".join([source_hash(), *tags]) if all(tags) else ""

    def _refuse_known(self, name: str, note: Path) -> None:
        try:
            version, reason = json.loads(note.read_text())
        except (FileNotFoundError, ValueError):
            return
        if version and version == self._version(name):
            raise DataError(reason)


def _away(error: HTTPError) -> FeedError:
    return FeedError(f"the server does not answer: {getattr(error, 'reason', None) or error}")


def _digest_in(text: str) -> str:
    found = re.match(r"[0-9a-fA-F]{64}\b", text)
    if not found:
        raise DataError(f"its CHECKSUM must begin with a SHA-256, was {text[:20]!r}")
    return found[0].lower()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
