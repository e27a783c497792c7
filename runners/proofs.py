"""The parts of the promotion gate, as words of `runners/check.py`: the exit code is the verdict.

Input: a composed configuration, and what makes a `Proof` of it and its past. Output: lines on
stdout, exit code 1 where it fails.
"""

from collections.abc import Callable

from omegaconf import DictConfig

from runners import compose
from runners.past import Past, closed, compile_first, past_of
from sysquant.proof import Proof


def tell(cfg: DictConfig, part: Callable[[DictConfig, Past], Proof]) -> None:
    """Run one part over the past and print what it found; end the process with 1 where it fails."""
    compose.start_log(quiet=True)
    compile_first(cfg)
    past = past_of(cfg, whole=True)
    with closed(past):
        proof = part(cfg, past)
    print(proof)
    if not proof.passes:
        raise SystemExit(1)
