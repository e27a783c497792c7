"""What the proofs of `runners/check.py` share: one says its proof, and the exit code is its verdict.

Input: a `Proof`. Output: lines on stdout, exit code 1 where it fails.
"""

from sysquant.proof import Proof


def told(proof: Proof) -> None:
    """Print a proof; end the process with 1 where it fails."""
    print(proof)
    if not proof.passes:
        raise SystemExit(1)
