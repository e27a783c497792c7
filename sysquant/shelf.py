"""Trainings that were done before, on disk, so that the same one is not done twice.

Input: a key that names all that a training depends on, the facts of it, and its model. Output: the
same again. Facts are JSON, models skops files of allowed types; what is not whole, or not what was
written, counts as not there. All of it can be made again, and deleted.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sysquant.errors import ModelError
from sysquant.home import cache, write_whole
from sysquant.models.judging import Estimate
from sysquant.models.manifest import TrainedOn, digest
from sysquant.models.registry import MODEL, PROBE, packed, unpacked
from sysquant.models.serving import Classifier, ServedModel
from sysquant.types import Floats

_OPEN = 2  # models in memory: what serves, and what shall
_NAMED = 32  # hex digits of a key in a name that holds two


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of a training, without the model.

    Parameters
    ----------
    id : of the model's content.
    family, features, classes : of it.
    trained : on which rows.
    scores : of `judging.scores`; empty when it was not judged.
    earned : after costs over its tests, a fraction; NaN when it was not judged.
    tests : begin and end of these, ns UTC; zeros when it was not judged.
    files : name -> SHA-256; filled in by the shelf.
    """

    id: str
    family: str
    features: tuple[str, ...]
    classes: tuple[str, ...]
    trained: TrainedOn
    scores: dict[str, Estimate]
    earned: float
    tests: tuple[int, int]
    files: dict[str, str] = {}


class Shelf:
    """Facts and models by key.

    Parameters
    ----------
    directory : default: `trainings` of `home.cache()`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = cache() / "trainings" if directory is None else directory
        self._opened = dict[str, ServedModel]()

    def find(self, key: str) -> Facts | None:
        """The facts of a training that lies here whole; None for none."""
        known = self._json(key)
        try:
            facts = msgspec.convert(known, Facts)
        except msgspec.ValidationError:
            return None
        return facts if self._files(key, facts) is not None else None

    def put(self, key: str, facts: Facts, classifier: Classifier, rows: Floats) -> Facts:
        """Keep a training; its facts come last, and name the files.

        Parameters
        ----------
        key : of it.
        facts : of it.
        classifier : fitted.
        rows : (n, features) that it was fitted on.
        """
        files = packed(classifier, rows)
        for name, content in files.items():
            self._write(self._path(key, name), content)
        hashes = {name: digest(content) for name, content in files.items()}
        facts = msgspec.structs.replace(facts, files=hashes)
        self._write(self._path(key), _told(msgspec.to_builtins(facts)))
        return facts

    def model(self, key: str) -> "ShelfModel":
        """The model of a training, which is unpacked when it is asked for the first time."""
        return ShelfModel(self, key)

    def served(self, key: str) -> ServedModel:
        """The model of a training.

        Raises
        ------
        ModelError
            If it is not here any more, or cannot be served.
        """
        if key not in self._opened:
            facts = self.find(key)
            files = None if facts is None else self._files(key, facts)
            if facts is None or files is None:
                raise ModelError(
                    f"{self._path(key)} is gone, or was changed, since the walk began: walk again"
                )
            model = unpacked(facts.family, facts.features, facts.classes, files)
            self._opened = dict([*self._opened.items(), (key, model)][-_OPEN:])
        return self._opened[key]

    def compared(self, key: str, before: str, find: Callable[[], float]) -> float:
        """What the model of one training earns over the tests of another; found once.

        Parameters
        ----------
        key : of the training whose tests they are.
        before : key of the training whose model it is.
        find : what it earns.
        """
        name = f"{key[:_NAMED]}-{before[:_NAMED]}"
        known = self._json(name)
        if isinstance(known, dict) and [known.get("key"), known.get("before")] == [key, before]:
            return float(known["earned"])
        earned = find()
        self._write(self._path(name), _told({"key": key, "before": before, "earned": earned}))
        return earned

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._path(name).read_bytes())
        except (OSError, ValueError):
            return None

    def _files(self, key: str, facts: Facts) -> Mapping[str, bytes] | None:
        # Its files, if they are what was written.
        try:
            files = {name: self._path(key, name).read_bytes() for name in (MODEL, PROBE)}
        except OSError:
            return None
        is_whole = facts.files == {name: digest(content) for name, content in files.items()}
        return files if is_whole else None

    def _path(self, name: str, what: str = "facts.json") -> Path:
        return self.directory / f"{name}.{what}"

    def _write(self, path: Path, content: bytes) -> None:
        # Whole or not at all; two walks that write the same do not meet.
        self.directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)


class ShelfModel:
    """A model on a shelf; of many only the last two that were asked stay in memory.

    Parameters
    ----------
    shelf : where it lies.
    key : of its training.
    """

    def __init__(self, shelf: Shelf, key: str) -> None:
        self._shelf, self.key = shelf, key

    def proba(self, f: Mapping[str, Floats]) -> dict[str, Floats]:
        """As `ServedModel.proba`."""
        return self._shelf.served(self.key).proba(f)


def _told(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()  # which knows NaN, unlike msgspec
