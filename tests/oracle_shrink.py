"""A case in which engine and oracle differ, made small, and as it is typed."""

from dataclasses import fields, replace

from tests.oracle_compare import compare
from tests.streams import CHOICES, FLAGS, Switches


def shrink(switches: Switches, tries: int = 400) -> Switches:
    """Fewer events, fewer parts, fewer checks, as long as the two sides differ."""
    fails = lambda one: compare(one).difference is not None  # noqa: E731
    improved = True
    while improved and tries > 0:
        improved = False
        for smaller in _smaller(switches):
            tries -= 1
            if fails(smaller):
                switches, improved = smaller, True
                break
            if tries <= 0:
                break
    return switches


def _smaller(s: Switches) -> list[Switches]:
    found = [replace(s, **{flag: False}) for flag in FLAGS if getattr(s, flag)]
    for name, choices in CHOICES.items():
        if getattr(s, name) != choices[0]:
            found.append(replace(s, **{name: choices[0]}))
    found += [replace(s, checks=s.checks[:i] + s.checks[i + 1 :]) for i in range(len(s.checks))]
    for name in ("strategies", "symbols"):
        found += [replace(s, **{name: n}) for n in range(1, getattr(s, name))]
    found += [replace(s, events=n) for n in (s.events // 2, s.events - 8, s.events - 1) if n > 4]
    return found


def described(s: Switches) -> str:
    """Switches that differ from the plainest case, as they are typed."""
    plain = Switches()
    parts = [
        f"{f.name}={getattr(s, f.name)!r}"
        for f in fields(s)
        if getattr(s, f.name) != getattr(plain, f.name)
    ]
    return f"Switches({', '.join(parts)})"
