"""The parts of the promotion gate, and how one says what it found.

Input: a composed configuration, and its past. Output: a `Proof` of each; lines on stdout, and an
exit code that is the verdict.
"""

from sysquant.proof import Proof


def told(proof: Proof) -> None:
    """Print a proof; end the process with 1 where it fails."""
    print(proof)
    if not proof.passes:
        raise SystemExit(1)
