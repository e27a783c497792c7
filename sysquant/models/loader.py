"""The models of one book: looked for and checked beside the thread that trades, given out whole.

Input: a registry, the publisher's public key, and strategies. Output: what each look came to: a
model that may be served, or why there is none. Nothing here changes what serves.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import MappingProxyType
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sysquant.decider import features_of
from sysquant.errors import ModelError
from sysquant.models.drift import Drift, Moved
from sysquant.models.manifest import Manifest, recipe
from sysquant.models.registry import Loaded, Registry, Wanted, name_of
from sysquant.models.serving import ServedModel
from sysquant.strategy import Strategy

_EVER = 0  # a time at which no model has expired
Recipes = Mapping[str, Mapping[str, str]]
_ANY: Recipes = MappingProxyType({})


class Look(NamedTuple):
    """What a look for a model came to.

    Parameters
    ----------
    strategy : whose.
    name : of the model, `number-id`; empty when none may be served.
    said : what it is, or why there is none.
    refused : whether there was one, and it may not be served.
    number : that was asked for; None for the newest.
    """

    strategy: str
    name: str
    said: str
    refused: bool = False
    number: int | None = None


class ModelLoader:
    """Looks for models in a thread of its own; an engine's `models`.

    Parameters
    ----------
    registry : of published models.
    key : gives the publisher's public key; called at each look, for it may come later.
    strategies : name -> strategy; a lineage has the name of its strategy.
    recipes : name -> how models of a promoted strategy are made, of `manifest.recipe`; no other
        one is taken.

    Attributes
    ----------
    strategies : those that use a model.
    """

    def __init__(
        self, registry: Registry, key: Callable[[], Ed25519PublicKey],
        strategies: Mapping[str, Strategy], recipes: Recipes = _ANY,
    ) -> None:  # fmt: skip
        self._registry, self._key, self._recipes = registry, key, recipes
        self._wanted = {name: wanted(name, one) for name, one in strategies.items() if one.classes}
        self.strategies = tuple(self._wanted)
        self._worker = ThreadPoolExecutor(1, "models")
        self._looks = list[Future[list[Look]]]()
        self._known = dict[tuple[str, str], Loaded]()

    def __call__(self, strategy: str, name: str) -> ServedModel:
        """The model of a name, at once; also one that has expired, for what it did is replayed.

        Raises
        ------
        ModelError
            If it may not be served.
        """
        return self._loaded(strategy, name).served

    def about(self, strategy: str, name: str) -> tuple[int, int]:
        """When the newest outcome that a model was trained on was known, and when it expires."""
        manifest = self._loaded(strategy, name).manifest
        return manifest.trained.known, manifest.expires

    def _loaded(self, strategy: str, name: str) -> Loaded:
        known = self._known.get((strategy, name))
        return known or self._read(strategy, number_of(name), name, now=_EVER, least=0)

    def _read(self, strategy: str, number: int, name: str, *, now: int, least: int) -> Loaded:
        wanted, key = self._wanted[strategy], self._key()
        loaded = self._registry.load(number, wanted, key, now=now, least=least)
        if loaded.name != name:
            raise ModelError(f"model {strategy} {number} is {loaded.name}, wanted is {name}")
        about, classes = loaded.manifest, loaded.served.classifier.classes_
        loaded.served.drift = Drift(about.features, [str(c) for c in classes], about.references)
        self._known[strategy, name] = loaded
        return loaded

    def moved(self, strategy: str, name: str) -> tuple[int, list[Moved]]:
        """How many rows a model was asked here, and how far the newest have moved."""
        drift = self._loaded(strategy, name).served.drift
        return (drift.asked, drift.measure()) if drift is not None else (0, [])

    def ask(
        self, strategy: str, serving: str, *, now: int, least: int, number: int | None = None,
        content: str = "",
    ) -> None:  # fmt: skip
        """Look for a model, beside.

        Parameters
        ----------
        strategy : one of `strategies`.
        serving : the model that serves now; empty for none.
        now : ns UTC.
        least : greatest number that has served; none up to it is taken unless it is named.
        number : which; None for the newest, or where none serves for the newest that may, after
            looks that tell of those that may not.
        content : its id, or how that begins; another model of the number is refused.
        """
        told = strategy, serving, now, least, number, content
        self._looks.append(self._worker.submit(self._look, *told))

    def _look(
        self, strategy: str, serving: str, now: int, least: int, number: int | None, content: str
    ) -> list[Look]:
        try:
            if number is not None and content:
                self._refuse_namesake(strategy, number, content)
            look = self._searched(strategy, serving, now, least, number)
        except ModelError as error:
            look = Look(strategy, "", str(error), refused=True)
        if look.refused and number is None and not serving:
            return self._next_best(look, now, least)
        return [look._replace(number=number)]

    def _next_best(self, first: Look, now: int, least: int) -> list[Look]:
        # One directory that is damaged must not leave a book without opinion.
        looks = [first]
        for number in sorted(self._registry.numbers(first.strategy), reverse=True)[1:]:
            if number <= least:
                break
            look = self._searched(first.strategy, "", now, least, number)
            if not look.refused:
                return [*looks, look._replace(said=f"{look.said}; {first.said}")]
            looks.append(look)
        return [first]

    def _refuse_namesake(self, strategy: str, number: int, content: str) -> None:
        path = self._registry.numbers(strategy).get(number)
        known = path.name.partition("-")[2] if path else content
        if not (known.startswith(content) or content.startswith(known)):
            raise ModelError(
                f"model {strategy} {number} is {path.name if path else ''}, asked for was "
                f"{number:06d}-{content}: name it by its number alone, or as model_runs does"
            )

    def _searched(
        self, strategy: str, serving: str, now: int, least: int, number: int | None
    ) -> Look:
        names = self._registry.numbers(strategy)
        if not names:
            return Look(strategy, "", "there is no model yet: python runners/retrain.py makes one")
        at = max(names) if number is None else number
        name = names[at].name if at in names else ""
        if name and name == serving:
            return Look(strategy, name, f"{name} serves already")
        if number is None and at <= least:
            raise ModelError(f"{name} is the newest, and was rolled back from")
        loaded = self._read(strategy, at, name, now=now, least=0)
        self._refuse_other(strategy, loaded.manifest)
        return Look(strategy, name, self._compared(strategy, loaded, serving))

    def _refuse_other(self, strategy: str, about: Manifest) -> None:
        made = recipe(about)
        for key, was in self._recipes.get(strategy, {}).items():
            if made[key] != was:
                raise ModelError(
                    f"{name_of(about)} was not made as was promoted: its {key} was {was}, is "
                    f"{made[key]}; promote the strategy with it: python runners/promote.py"
                )

    def newest(self, strategy: str) -> Manifest | None:
        """What the newest model of a strategy says of itself; None where there is none.

        Raises
        ------
        ModelError
            If it may not be served to the strategy.
        """
        names = self._registry.numbers(strategy)
        if not names:
            return None
        number = max(names)
        return self._read(strategy, number, names[number].name, now=_EVER, least=0).manifest

    def past(self, strategy: str) -> tuple[list[Manifest], list[str]]:
        """What the models of a strategy say of themselves, and what is wrong with the others.

        Those that may be served, or could have been until they expired, oldest first: signed, of
        this strategy, and made as the newest of them is. They are opened when they are asked for.
        """
        found, refused = list[Manifest](), list[str]()
        for number in sorted(self._registry.numbers(strategy), reverse=True):
            try:
                about = self._registry.about(
                    number, self._wanted[strategy], self._key(), now=_EVER
                )  # fmt: skip
                self._refuse_other(strategy, about)
            except ModelError as error:
                refused.append(str(error))
                continue
            for key, was in recipe(about).items() if found else ():
                if (new := recipe(found[0])[key]) != was:
                    refused.append(
                        f"{name_of(about)} was made otherwise than {name_of(found[0])}: its {key} "
                        f"was {was}, is {new}"
                    )
                    break
            else:
                found.append(about)
        return found[::-1], refused[::-1]

    def _compared(self, strategy: str, loaded: Loaded, serving: str) -> str:
        # It has answered by now, and is warm.
        before = self._known.get((strategy, serving))
        if before is None:
            return loaded.name
        said, was = (one.served.likeliest(loaded.rows) for one in (loaded, before))
        share = float((said == was).mean())
        return (
            f"{loaded.name} in place of {serving}, which says the same of {share:.0%} of its last "
            f"{len(loaded.rows)} rows"
        )

    def found(self, wait_s: float = 0.0) -> list[Look]:
        """What looks have come to since the last call, in their order."""
        if wait_s and self._looks:
            wait(self._looks, timeout=wait_s)
        done = list[Look]()
        while self._looks and self._looks[0].done():
            done += self._looks.pop(0).result()
        return done

    def keep(self, strategy: str, name: str) -> None:
        """Forget all models of a strategy but one."""
        for other in [key for key in self._known if key[0] == strategy and key[1] != name]:
            del self._known[other]

    def close(self) -> None:
        """Look no more."""
        self._worker.shutdown(wait=False, cancel_futures=True)


def wanted(name: str, strategy: Strategy) -> Wanted:
    """What a model must be to serve a strategy of this name."""
    features = tuple(features_of(strategy))
    return Wanted(name, repr(strategy), features, strategy.classes)


def number_of(name: str) -> int:
    """The number in the name of a model."""
    return int(name.partition("-")[0])
