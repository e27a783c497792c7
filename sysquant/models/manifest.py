"""What a published model says of itself, and the signature that vouches for it.

Input: facts of a training, an Ed25519 key. Output: bytes of a manifest and their signature; or the
manifest again, once the signature over exactly those bytes was found right. Who serves holds the
public key alone.
"""

import hashlib
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sysquant.errors import ModelError
from sysquant.home import write_whole
from sysquant.models.drift import Reference

FORMAT = 1
PRIVATE, PUBLIC = "models.key", "models.pub"
_RAW, _PLAIN = serialization.Encoding.Raw, serialization.NoEncryption()


class TrainedOn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows of a training.

    Parameters
    ----------
    first, last : `ts` of the earliest and the newest row, ns UTC.
    known : when the newest outcome was known, ns UTC; before the first use of the model.
    rows : how many.
    hash : `TrainingSet.hash`.
    """

    first: int
    last: int
    known: int
    rows: int
    hash: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published model.

    Parameters
    ----------
    lineage, number : of which models it is one, and which; newer ones have greater numbers.
    id : of its content: parameters, features, classes, thresholds, predictions.
    strategy : class and parameters whose features it takes.
    family, settings : of `pipeline_of`.
    features, classes : in their order.
    labels, thresholds : how outcomes became classes.
    trained : on which rows.
    versions : package -> version that it was fitted with, and is served with.
    build : hash of the code that trained it.
    scores : name -> value, out of sample.
    references : how features and then chances were distributed in training; see `models.drift`.
    parent : id of the model that served when it was made; empty for none.
    made, expires : ns UTC; from the second on it gives no opinion.
    files : name -> SHA-256.
    """

    format: int = FORMAT
    lineage: str
    number: int
    id: str
    strategy: str
    family: str
    settings: dict[str, bool | int | float | str]
    features: tuple[str, ...]
    classes: tuple[str, ...]
    labels: str
    thresholds: tuple[float, float]
    trained: TrainedOn
    versions: dict[str, str]
    build: str
    scores: dict[str, float]
    references: tuple[Reference, ...] = ()
    parent: str
    made: int
    expires: int
    files: dict[str, str]


def written(manifest: Manifest) -> bytes:
    """The bytes that are signed."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1)


def read(said: bytes, signature: bytes, key: Ed25519PublicKey) -> Manifest:
    """A manifest, from bytes that the key's holder has signed.

    Raises
    ------
    ModelError
        If the signature is another's, or the bytes are no manifest of this format.
    """
    try:
        key.verify(signature, said)
    except InvalidSignature:
        raise ModelError(
            "its signature is not that of models.pub: it was not published here, or was changed"
        ) from None
    try:
        manifest = msgspec.json.decode(said, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ModelError(f"its manifest cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise ModelError(f"its manifest has format {manifest.format}, known is {FORMAT}")
    return manifest


def recipe(manifest: Manifest) -> dict[str, str]:
    """What a retraining keeps, name -> text: a model that is made otherwise is another strategy."""
    settings = dict(sorted(manifest.settings.items()))
    return {
        "family": manifest.family, "settings": str(settings), "labels": manifest.labels,
        "features": ", ".join(manifest.features), "classes": ", ".join(manifest.classes),
    }  # fmt: skip


def digest(content: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


def signing_key(directory: Path) -> Ed25519PrivateKey:
    """The private key, made with its public one at the first call; files 0600 and 0644.

    Raises
    ------
    ModelError
        If others may read the file, or it holds no key.
    """
    path = directory / PRIVATE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = Ed25519PrivateKey.generate()
        secret = made.private_bytes(_RAW, serialization.PrivateFormat.Raw, _PLAIN)
        write_whole(path, _line(secret), 0o600)
    if path.stat().st_mode & 0o077:
        raise ModelError(f"others may read {path}: chmod 600 it, or delete it to make another")
    key = Ed25519PrivateKey.from_private_bytes(_key_bytes(path))
    public = key.public_key().public_bytes(_RAW, serialization.PublicFormat.Raw)
    if not (directory / PUBLIC).exists():
        write_whole(directory / PUBLIC, _line(public))
    return key


def public_key(directory: Path) -> Ed25519PublicKey:
    """The public key.

    Raises
    ------
    ModelError
        If there is none.
    """
    path = directory / PUBLIC
    if not path.exists():
        raise ModelError(f"there is no {path}: runners/retrain.py makes it, or copy it here")
    return Ed25519PublicKey.from_public_bytes(_key_bytes(path))


def _line(key: bytes) -> bytes:
    return f"{key.hex()}\n".encode()


def _key_bytes(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text().strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ModelError(f"{path} holds no key of 32 bytes in hex")
    return key
