"""The models that a past is judged with: each from when what it was trained on was known.

Input: the models of one strategy, as a loader knows them. Output: what serves from which moment on,
until it expires, and what people must know of it. At each moment it is the newest of those that
were known by then, as a live session takes it; so nothing is decided on bars that a model has seen,
and before the first one nothing is. Nothing is run here.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sysquant.errors import ModelError
from sysquant.inspection import iso
from sysquant.models.loader import ModelLoader
from sysquant.models.manifest import Manifest
from sysquant.models.registry import name_of
from sysquant.operation import Serve

Wish = tuple[int, Serve]
_TOLD = 3  # models that are refused, the newest ones


class Lineage(NamedTuple):
    """The models of a strategy in a past.

    Parameters
    ----------
    newest : name of the newest one; empty for none.
    wishes : ns UTC, and what serves from then on.
    notes : for people.
    """

    newest: str
    wishes: tuple[Wish, ...]
    notes: tuple[str, ...]

    def since(self, start: int, end: int) -> int | None:
        """From when on, between two moments (ns UTC), a model serves first; None for never."""
        serves = False
        for at, wish in self.wishes:
            if at >= end:
                break
            if serves and at > start:
                return start
            serves = bool(wish.model)
            if serves and at >= start:
                return at
        return start if serves else None


def wishes_of(strategy: str, models: Iterable[Manifest]) -> Iterator[Wish]:
    """What serves from which moment on: of the models known by then, and not expired, the newest.

    Parameters
    ----------
    strategy : its name in its book.
    models : of its lineage, in any order.
    """
    known = sorted(models, key=lambda one: one.number)
    serving = ""
    for at in sorted({moment for one in known for moment in (one.trained.known, one.expires)}):
        there = [name_of(one) for one in known if one.trained.known <= at < one.expires]
        if (there[-1] if there else "") != serving:
            serving = there[-1] if there else ""
            yield at, Serve(strategy, serving)


def lineage_of(loader: ModelLoader, strategy: str, end: int) -> Lineage:
    """The models of a strategy in a past; those that cannot be opened are left out, and told.

    Parameters
    ----------
    loader : of its book.
    strategy : its name in its book; one that asks none has none.
    end : of the past, ns UTC; models that were known later only serve what is still to come.
    """
    if strategy not in loader.strategies:
        return Lineage("", (), ())
    models, refused = loader.past(strategy)
    opened = set[str]()
    while True:
        wishes = tuple(wishes_of(strategy, models))
        names = {wish.model for at, wish in wishes if wish.model and at < end}
        names |= {name_of(one) for one in models[-1:]}
        bad = set[str]()
        for name in names - opened:
            try:
                loader(strategy, name)
                opened.add(name)
            except ModelError as error:
                refused.append(str(error))
                bad.add(name)
        if not bad:
            break
        models = [one for one in models if name_of(one) not in bad]
    newest = name_of(models[-1]) if models else ""
    return Lineage(newest, wishes, tuple(_told(strategy, wishes, end, refused)))


def _told(strategy: str, wishes: Sequence[Wish], end: int, refused: Sequence[str]) -> Iterator[str]:
    for said in refused[: -_TOLD - 1 : -1]:
        yield f"a model is left out: {said}"
    if len(refused) > _TOLD:
        yield f"{len(refused) - _TOLD} more models are left out"
    served = [(at, wish.model) for at, wish in wishes if wish.model]
    past = [(at, name) for at, name in served if at < end]
    if not served:
        way = "python runners/retrain.py makes one"
        yield f"{strategy} asks no model: there is {'none' if refused else 'no model yet'}: {way}"
    elif not past:
        at, name = served[0]
        yield (
            f"{strategy} asks no model: what {name} was trained on was known by {iso(at)}, and no "
            "bar is newer"
        )
    else:
        (first, name), count = past[0], len({name for _, name in past})
        whose = f"model {name}" if count == 1 else f"{count} models, of which {name} is the first,"
        yield (
            f"{strategy} asks {whose} from {iso(first)} on, when what it was trained on was known, "
            "and before that none"
        )
