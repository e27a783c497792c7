"""Parts of a report as HTML: findings, headline figures, the statistics, tables, the page itself.

Input: findings, estimates and rows of a result. Output: markup that needs no network and no
script, with everything that a result says escaped. Nothing is computed or drawn here.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sysquant.lint import Finding
    from sysquant.summary import Estimate

_STYLE = """
:root { --ink: #1f2933; --soft: #66727f; --line: #dde2e7; --warn: #b45309 }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); max-width: 76rem;
  margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.35rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 0.6rem }
.range { color: var(--soft); margin: 0.2rem 0 1.2rem }
.tiles { display: grid; gap: 0.7rem;
  grid-template-columns: repeat(auto-fit, minmax(max(9rem, 22%), 1fr)) }
.tile { border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem 0.9rem }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: 0.8rem }
.findings { list-style: none; padding: 0; margin: 1.2rem 0 }
.findings li { border-left: 4px solid var(--warn); background: #fff8ed; margin: 0.4rem 0;
  padding: 0.45rem 0.9rem }
.findings b { color: var(--warn) }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums }
td, th { padding: 0.2rem 0.7rem; white-space: nowrap }
th { text-align: left; font-weight: 600 }
td { text-align: right; border-top: 1px solid var(--line) }
tbody th { border-top: 1px solid var(--line); font-weight: 500 }
thead th { text-align: right } thead th:first-child { text-align: left }
td.word, thead th.word { text-align: left; color: var(--soft); white-space: normal }
.wide { overflow-x: auto }
pre { white-space: pre-wrap; background: #f5f6f8; padding: 1rem; font-size: 0.8rem }
"""
_HEADLINE = (
    "total_return", "cagr", "sharpe", "max_drawdown", "volatility", "beta", "turnover",
    "cost_per_trade",
)  # fmt: skip


# What a notebook shows at first: four to a row.
_FIRST = (
    "total_return", "benchmark_return", "cagr", "volatility",
    "sharpe", "probabilistic_sharpe", "sortino", "calmar",
    "max_drawdown", "drawdown_length", "value_at_risk", "expected_shortfall",
    "alpha", "beta", "information_ratio", "turnover",
    "trips", "hit_rate", "payoff", "holding_time",
    "gross_exposure", "net_exposure", "cost_per_trade", "capacity",
)  # fmt: skip
_BESIDE = 4


def card(title: str, tables: Iterable[str], lines: Iterable[str] = ()) -> str:
    """What a notebook shows of a result, in the notebook's own style.

    Parameters
    ----------
    title, lines : plain text, above and below.
    tables : markup, in between.
    """
    below = "".join(f"<div>{html.escape(line.strip())}</div>" for line in lines)
    return f"<div><div><b>{html.escape(title)}</b></div>{''.join(tables)}{below}</div>"


def pairs(estimates: Sequence["Estimate"]) -> str:
    """The statistics that are looked at first, a name and a value beside each other."""
    known = {each.name: each for each in estimates}
    cells = [
        f'<th style="text-align: left">{_label(known[name])}</th><td>{_sure(known[name])}</td>'
        for name in _FIRST
        if name in known
    ]
    rows = ["".join(cells[at : at + _BESIDE]) for at in range(0, len(cells), _BESIDE)]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def document(title: str, span: str, parts: Iterable[str]) -> str:
    """A whole page.

    Parameters
    ----------
    title, span : plain text: what it is of, and the time it is over.
    parts : markup, in order.
    """
    said = html.escape(title)
    head = f'<meta charset="utf-8"><title>{said}</title><style>{_STYLE}</style>'
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en"><head>{head}</head><body>',
            f'<h1>{said}</h1><p class="range">{html.escape(span)}</p>',
            *parts,
            "</body></html>\n",
        ]
    )


def findings(found: Sequence["Finding"]) -> str:
    """What to look at first, each as a marked line; a line that says so when there is nothing."""
    if not found:
        return "<p>Nothing was found at first sight.</p>"
    lines = [
        f"<li><b>{html.escape(each.name.replace('_', ' '))}</b>: {html.escape(each.text)}."
        f" {html.escape(each.advice[:1].upper() + each.advice[1:])}.</li>"
        for each in found
    ]
    return f'<ul class="findings">{"".join(lines)}</ul>'


def headline(estimates: Sequence["Estimate"]) -> str:
    """The figures that are looked at first, each with its limits."""
    known = {each.name: each for each in estimates}
    tiles = [
        f'<div class="tile"><span>{_label(known[name])}</span>'
        f"<b>{number(known[name].value, known[name].unit)}</b>"
        f"<span>{between(known[name]) or '&nbsp;'}</span></div>"
        for name in _HEADLINE
        if name in known
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def statistics(estimates: Sequence["Estimate"]) -> str:
    """Every statistic: value, limits, standard error, unit, source."""
    rows = [
        f"<tr><th>{_words(each.name)}</th><td>{number(each.value, each.unit)}</td>"
        f"<td>{between(each)}</td><td>{number(each.error, each.unit)}</td>"
        f'<td class="word">{_unit(each.unit)}</td>'
        f'<td class="word">{html.escape(each.source)}</td></tr>'
        for each in estimates
    ]
    head = (
        "<tr><th>statistic</th><th>value</th><th>95 % limits</th><th>standard error</th>"
        '<th class="word">unit</th><th class="word">definition, source</th></tr>'
    )
    return (
        f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def table(rows: Sequence[Mapping[Any, object]]) -> str:
    """Rows under the names of the first: numbers to ten digits, NaN a dash."""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in rows)
    return (
        f'<div class="wide"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"<td>{value:,.10g}</td>" if math.isfinite(value) else "<td>-</td>"
    if isinstance(value, int):
        return f"<td>{value:,}</td>"
    return f"<td>{html.escape(str(value))}</td>"


def printed(lines: Iterable[str]) -> str:
    """Plain text as it was printed."""
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def number(value: float, unit: str) -> str:
    """A value as people read it, by its unit: fractions in per cent; a dash for NaN."""
    if not math.isfinite(value):
        return "-"
    if unit.startswith(("fraction", "probability")):
        return f"{value:.2%}" if abs(value) < 10 else f"{value:,.0%}"
    if unit in ("count", "quote currency"):
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def _sure(each: "Estimate") -> str:
    # With its standard error, where that is known without limits that take a bootstrap.
    said = number(each.value, each.unit)
    is_sharpe = each.name == "sharpe" and math.isfinite(each.error)
    return f"{said} &plusmn; {number(each.error, each.unit)}" if is_sharpe else said


def between(each: "Estimate") -> str:
    """`low to high`, or nothing when they are not known."""
    if math.isnan(each.low) or math.isnan(each.high):
        return ""
    return f"{number(each.low, each.unit)} to {number(each.high, each.unit)}"


def _words(name: str) -> str:
    said = name.replace("_", " ")
    return said.upper() if name == "cagr" else said[:1].upper() + said[1:]


def _label(each: "Estimate") -> str:
    return ", ".join(filter(None, [_words(each.name), _unit(each.unit)]))


def _unit(unit: str) -> str:
    # A fraction is shown in per cent.
    said = unit.replace("fraction", "").strip()
    return html.escape("" if said in ("count", "probability") else said)
