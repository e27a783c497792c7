"""What one part of the promotion gate found: whether it passes, why not, and its figures.

Input: what a check measured. Output: a `Proof`, which is shown, kept in the promotion record and
counted. Nothing is judged here.
"""

import msgspec

Figure = float | int | str | bool | None


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the gate.

    Parameters
    ----------
    name : of the part: the word of `runners/check.py`.
    failures : why it does not pass, a sentence each, with the way out; empty where it passes.
    notes : what people must know besides, a sentence each.
    figures : name -> what was measured; no NaN: None where there is none.
    took_s : of the check.
    """

    name: str
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    figures: dict[str, Figure] = {}
    took_s: float = 0.0

    @property
    def passes(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def __str__(self) -> str:
        verdict = "passes" if self.passes else "fails"
        lines = [f"{self.name} {verdict} ({self.took_s:.1f} s)"]
        lines += [f"  {one}" for one in self.notes]
        return "\n".join([*lines, *(f"failed: {one}" for one in self.failures)])
