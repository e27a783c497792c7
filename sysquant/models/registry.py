"""The models of a directory: published whole, checked before anything of them is opened.

Input: a fitted model with what is known of it; later who wants it served. Output: a directory
`<lineage>/<number>-<id>` of `model.skops`, `probe.bin`, `manifest.json` and its signature; a model
that may be served, or the reason why it may not. Nothing here loads a pickle.
"""

import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sysquant.errors import JournalError, ModelError
from sysquant.home import sync
from sysquant.locking import lock
from sysquant.models import manifest as manifests
from sysquant.models.drift import Reference, references_of
from sysquant.models.manifest import Manifest, digest
from sysquant.models.serving import BLOCK, Classifier, ServedModel, predicted
from sysquant.models.trees import check_kind
from sysquant.types import Floats

MANIFEST, SIGNATURE, MODEL, PROBE = "manifest.json", "manifest.sig", "model.skops", "probe.bin"
PREDICTED = 1_000  # rows whose predictions name a model
_REFERRED = 5_000  # rows, evenly taken, that drift is measured against
ALONE = 250  # rows of which each is asked for alone, too; a thousand take a forest 13 s
_PATIENCE_S = 30.0  # with another that publishes
CANDIDATE = "candidate.json"  # of a model that was not published yet
_MOST_BYTES = {MANIFEST: 1 << 20, SIGNATURE: 64, MODEL: 256 << 20, PROBE: 16 << 20}
_MOST_BYTES |= {CANDIDATE: 1 << 20}
_PACKAGES = ("scikit-learn", "numpy", "scipy", "skops")
# Types that skops does not know, by family; each was looked at: none runs code of a file.
_ALLOWED = {
    "logistic_regression": (),
    "random_forest": ("sklearn.tree._tree.Tree",),
    "gradient_boosting": ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",),
    "svm": (
        "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration",
    ),
    "mlp": ("sklearn.neural_network._stochastic_optimizers.AdamOptimizer",),
}  # fmt: skip
UNREADABLE = (  # what a file that is no model comes to, whatever is wrong with it
    BadZipFile, zlib.error, EOFError, struct.error, OSError, ImportError, AttributeError, TypeError,
    ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError,
)  # fmt: skip
_NAME = re.compile(r"(\d{6}|[1-9]\d{6,17})-([0-9a-f]{12})")
_PLACE = ("lineage", "number", "id")  # of a manifest, which its directory repeats
_SEVERAL = ("features", "classes", "files", "references")
_LINEAGE = re.compile(r"[a-z][a-z0-9_]{0,63}")


def versions() -> dict[str, str]:
    """Of what a model is fitted and served with."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def content_id(
    classifier: Any, features: Sequence[str], thresholds: Sequence[float], last_rows: Floats
) -> str:
    """SHA-256 of what a model is: parameters, features, thresholds, and what it predicts.

    Parameters
    ----------
    classifier : fitted pipeline.
    features : names of its columns.
    thresholds : of its classes.
    last_rows : (n, features), the newest of its training rows; the last thousand count.
    """
    rows = last_rows[-PREDICTED:]
    told = [
        repr(sorted((name, repr(value)) for name, value in classifier.get_params().items())),
        repr((list(features), [str(name) for name in classifier.classes_], list(thresholds))),
    ]
    known = hashlib.sha256("\n".join(told).encode())
    known.update(np.ascontiguousarray(rows).tobytes())
    known.update(predicted(classifier, rows).tobytes())
    return known.hexdigest()


class Wanted(NamedTuple):
    """What a model must be to serve a strategy.

    Parameters
    ----------
    lineage, strategy : name, and class with parameters.
    features, classes : of the strategy, in their order.
    """

    lineage: str
    strategy: str
    features: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that was checked.

    Parameters
    ----------
    manifest : what it says of itself.
    served : what a strategy asks.
    rows : (n, features), the last that it was trained on.
    """

    manifest: Manifest
    served: ServedModel
    rows: Floats

    @property
    def name(self) -> str:
        """Number and content, `000007-2f0e...`: its directory, and what records call it."""
        return name_of(self.manifest)


class Registry:
    """Published models below a directory.

    Parameters
    ----------
    directory : made when a model is published.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def numbers(self, lineage: str) -> dict[int, Path]:
        """Number -> directory of each model of a lineage, oldest first; nothing is opened.

        What has no manifest is no model, whatever it is called.
        """
        named = self._named(lineage)
        return {number: path for number, path in named if os.path.lexists(path / MANIFEST)}

    def _named(self, lineage: str) -> list[tuple[int, Path]]:
        # Also those whose manifest is gone: who asks for one by its number is told so.
        root = self._root(lineage)
        found = [(_NAME.fullmatch(path.name), path) for path in root.glob("[0-9]*-*")]
        return sorted((int(name[1]), path) for name, path in found if name)

    def publish(
        self, about: Manifest, classifier: Classifier, rows: Floats, key: Ed25519PrivateKey,
        *, newest: int | None = None,
    ) -> Manifest:  # fmt: skip
        """Write a model and sign it; it is there whole, or not at all.

        Parameters
        ----------
        about : its manifest; number and files are filled in.
        classifier : fitted.
        rows : (n, features) that it was trained on. The last ones show later that it still predicts
            the same, and of the last 250 each must have the same bytes alone as among all. (The
            tests ask every family for 1,000, which take a forest of 200 trees 13 seconds.) All of
            them say, how far those have moved that it is asked.
        key : of the publisher.
        newest : number of the newest model when it was judged, 0 for none; None: whichever.

        Raises
        ------
        ModelError
            If it holds a type that is not allowed, does not predict what it did once it was written
            and read again, or says something else of a row that is asked for alone; if a newer one
            was published meanwhile, or another process publishes and does not come to an end.
        """
        root = self._root(about.lineage)
        held = _locked(root, about.lineage)
        fresh = root / f".{secrets.token_hex(6)}"
        try:
            self._refuse_stale(about.lineage, newest)
            last, path = max(self._named(about.lineage), default=(0, root))
            number = last + 1
            if not _NAME.fullmatch(name_of(msgspec.structs.replace(about, number=number))):
                raise ModelError(f"no number comes after that of {path}: take it away")
            files = packed(classifier, rows)
            hashes = {name: digest(content) for name, content in files.items()}
            about = msgspec.structs.replace(
                about, number=number, files=hashes, references=_references(classifier, rows)
            )
            files[MANIFEST] = manifests.written(about)
            files[SIGNATURE] = key.sign(files[MANIFEST])
            _check_alone(_checked(about, files).classifier, rows[-ALONE:])
            fresh.mkdir()
            for name, content in files.items():
                _write(fresh / name, content)
            fresh.rename(root / name_of(about))
            sync(root)
            return about
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            held.close()

    def _refuse_stale(self, lineage: str, newest: int | None) -> None:
        last, path = max(self.numbers(lineage).items(), default=(0, None))
        if path is not None and newest is not None and last != newest:
            raise ModelError(
                f"{path.name} was published while this one was trained, which was not compared "
                "with it: train it anew"
            )

    def load(
        self, number: int, wanted: Wanted, key: Ed25519PublicKey, *, now: int, least: int = 0
    ) -> Loaded:
        """A model that may be served.

        Parameters
        ----------
        number : which.
        wanted : by whom.
        key : of the publisher.
        now : ns UTC.
        least : no older one, unless a roll-back names it.

        Raises
        ------
        ModelError
            With the reason why it may not.
        """
        path = self._path(number, wanted)
        files = dict[str, bytes]()
        try:
            about = _meant(wanted, path, key, number=number, now=now, least=least)
            for name, known in about.files.items():
                files[name] = read_file(path / name)
                if digest(files[name]) != known:
                    raise ModelError(f"its {name} is not what was signed")
            rows = _probed(files[PROBE], len(about.features))
            return Loaded(about, _checked(about, files), rows)
        except ModelError as error:
            raise _refused(number, wanted, error) from error

    def about(
        self, number: int, wanted: Wanted, key: Ed25519PublicKey, *, now: int, least: int = 0
    ) -> Manifest:  # fmt: skip
        """What a model says of itself that may be served, as far as that shows; none is opened.

        Parameters and errors are those of `load`.
        """
        path = self._path(number, wanted)
        try:
            return _meant(wanted, path, key, number=number, now=now, least=least)
        except ModelError as error:
            raise _refused(number, wanted, error) from error

    def _path(self, number: int, wanted: Wanted) -> Path:
        path = (dict(self._named(wanted.lineage)) | self.numbers(wanted.lineage)).get(number)
        if path is None:
            raise ModelError(f"there is no model {wanted.lineage} {number} in {self.directory}")
        return path

    def _root(self, lineage: str) -> Path:
        if not _LINEAGE.fullmatch(lineage):
            raise ModelError(f"a lineage is named by small letters, digits and _, was {lineage!r}")
        return self.directory / lineage


def _locked(root: Path, lineage: str) -> IO[str]:
    try:
        return lock(root, "one publishes at a time", wait_s=_PATIENCE_S)
    except JournalError as error:
        raise ModelError(
            f"another process publishes a model of {lineage}, and has not ended after "
            f"{_PATIENCE_S:g} s: train it anew later"
        ) from error


def name_of(about: Manifest) -> str:
    """What a published model is called."""
    return f"{about.number:06d}-{about.id[:12]}"


def _refused(number: int, wanted: Wanted, error: ModelError) -> ModelError:
    return ModelError(f"model {wanted.lineage} {number} is refused: {error}")


def _meant(
    wanted: Wanted, path: Path, key: Ed25519PublicKey, *, number: int, now: int, least: int
) -> Manifest:  # fmt: skip
    # The manifest, signed, and of what is wanted.
    said, signature = (read_file(path / name) for name in (MANIFEST, SIGNATURE))
    about = manifests.read(said, signature, key)
    _check_meant(about, wanted, path, number=number, now=now, least=least)
    return about


def _check_meant(
    about: Manifest, wanted: Wanted, path: Path, *, number: int, now: int, least: int
) -> None:
    ours = versions()
    told = {
        "lineage": (about.lineage, wanted.lineage),
        "number": (about.number, number),
        "id": (about.id[:12], path.name.partition("-")[2]),
        "strategy": (about.strategy, wanted.strategy),
        "features": (about.features, wanted.features),
        "classes": (about.classes, wanted.classes),
        "files": (sorted(about.files), sorted([MODEL, PROBE])),
        "references": (len(about.references), len(wanted.features) + len(wanted.classes)),
        **{name: (about.versions.get(name), one) for name, one in ours.items()},
    }
    for name, (found, meant) in told.items():
        if found != meant:
            verb = "are" if name in _SEVERAL else "is"
            way = "put it back where it was published" if name in _PLACE else "train it anew"
            raise ModelError(f"its {name} {verb} {found}, wanted is {meant}: {way}")
    if now >= about.expires:
        raise ModelError("it has expired: train it anew")
    if number < least:
        raise ModelError(
            f"model {least} has served, and an older one is not taken unless a roll-back names it"
        )


def packed(classifier: Classifier, rows: Floats) -> dict[str, bytes]:
    """A model as `model.skops` and `probe.bin`.

    Parameters
    ----------
    classifier : fitted.
    rows : (n, features) of which the last ones show later that it still predicts the same.
    """
    from skops import io

    model = io.dumps(classifier, compression=ZIP_DEFLATED)
    return {MODEL: model, PROBE: _probe(classifier, rows)}


def _checked(about: Manifest, files: Mapping[str, bytes]) -> ServedModel:
    # The classifier of a model whose bytes are those that were signed.
    return unpacked(about.family, about.features, about.classes, files)


def unpacked(
    family: str, features: Sequence[str], classes: Sequence[str], files: Mapping[str, bytes]
) -> ServedModel:
    """A model that was `packed`; nothing of it is opened before its types were looked at.

    Raises
    ------
    ModelError
        As of `opened`, or if it predicts something else now.
    """
    served = opened(family, files[MODEL], features, classes)
    try:
        again = _probe(served.classifier, _probed(files[PROBE], len(features)))
    except UNREADABLE as error:
        raise ModelError(f"it cannot be read: {error}") from error
    if again != files[PROBE]:
        raise ModelError("it does not predict what it did when it was made")
    return served


def _references(classifier: Classifier, rows: Floats) -> tuple[Reference, ...]:
    some = np.ascontiguousarray(rows[:: max(1, len(rows) // _REFERRED)])
    return references_of(some, predicted(classifier, some))


def opened(
    family: str, content: bytes, features: Sequence[str], classes: Sequence[str]
) -> ServedModel:
    """A model from the bytes of its file, of types that were looked at; no code of it is run.

    Raises
    ------
    ModelError
        If it holds any other type, cannot be read, unpacks to more than its file may have, is not
        what its family makes, or tells other classes apart.
    """
    from skops import io

    allowed = _ALLOWED.get(family)
    if allowed is None:
        raise ModelError(f"its family {family!r} is not known")
    try:
        _check_size(content)
        strange = set(io.get_untrusted_types(data=content)) - set(allowed)
        if strange:
            raise ModelError(f"it holds {', '.join(sorted(strange))}, which is not allowed")
        classifier = io.loads(content, trusted=list(allowed))
        check_kind(family, classifier, len(features))
        return ServedModel(classifier, features, classes)
    except UNREADABLE as error:
        raise ModelError(f"it cannot be read: {error}") from error


def _check_size(content: bytes) -> None:
    # Before anything is unpacked: no member is read beyond the size that the directory tells.
    with ZipFile(BytesIO(content)) as parts:
        size = sum(part.file_size for part in parts.infolist())
    if size > _MOST_BYTES[MODEL]:
        raise ModelError(f"it unpacks to {size} bytes, more than {_MOST_BYTES[MODEL]}")


def _check_alone(classifier: Classifier, rows: Floats) -> None:
    together = predicted(classifier, rows)
    for place, row in enumerate(rows):
        if predicted(classifier, row[None]).tobytes() != together[place].tobytes():
            raise ModelError(
                f"of row {place} of the last {len(rows)} it says something else alone than among "
                "them: no stream can be served by it"
            )


def _probe(classifier: Classifier, rows: Floats) -> bytes:
    # Rows, and behind them what is predicted of them.
    rows = np.ascontiguousarray(rows[-BLOCK:], float)
    return rows.tobytes() + predicted(classifier, rows).tobytes()


def _probed(content: bytes, features: int) -> Floats:
    width = (features + 3) * 8
    count = len(content) // width
    if not count:
        raise ModelError(f"its {PROBE} has no row")
    return np.frombuffer(content[: count * features * 8]).reshape(count, features)


def read_file(path: Path) -> bytes:
    """The bytes of one file of a model: no link is followed, no pipe waited for, nothing endless.

    Raises
    ------
    ModelError
        If it cannot be read, is no file, or is larger than a file of its name may be.
    """
    most = _MOST_BYTES.get(path.name, 0)
    try:
        # Opened at once also where it is a pipe to which nobody writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelError(f"its {path.name} is no file")
            content = file.read(most + 1)
    except OSError as error:
        raise ModelError(f"its {path.name} cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise ModelError(f"its {path.name} has more than {most} bytes")
    return content


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
