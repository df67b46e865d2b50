"""The comparison of base and tuned as HTML: two headline cards, a verdict, tables."""

from __future__ import annotations

import html
from collections.abc import Sequence

from suder.evaluation.compare import Row, headline

TITLES = {
    "generation": "Pictures of unseen prompts",
    "understanding": "Captions of unseen pictures",
}
_WORDS = {
    "up": "{} improved beyond the noise of this evaluation",
    "down": "{} got worse, beyond the noise of this evaluation",
    "": "{} did not change by more than the noise of this evaluation",
}


def cards(rows: Sequence[Row], decoding: str) -> str:
    """Base and tuned accuracy of both directions, large."""
    shown = "".join(_card(headline(rows, direction), decoding) for direction in TITLES)
    return f'<div class="cards">{shown}</div>'


def verdict(rows: Sequence[Row]) -> str:
    """One sentence that claims no more than the intervals do."""
    said = [
        _WORDS[_sense(headline(rows, direction))].format(name)
        for direction, name in (("generation", "Drawing"), ("understanding", "captioning"))
    ]
    return "; ".join(said) + "."


def table(rows: Sequence[Row]) -> str:
    """Every category of both directions with its intervals."""
    lines = []
    for row in rows:
        if row["category"] == "all":
            lines.append(f'<tr><th class="group" colspan="6">{TITLES[row["direction"]]}</th></tr>')
        kind = "all" if row["category"] == "all" else "part" if ":" in row["category"] else ""
        name = row["category"].replace("_", " ").split(": ")[-1]
        low, high = row["interval"]
        lines.append(
            f'<tr class="{kind}"><td>{html.escape(name)}</td><td class="n">{row["n"]}</td>'
            f'<td class="n">{_percent(row["base"], row["base_interval"])}</td>'
            f'<td class="n">{_percent(row["tuned"], row["tuned_interval"])}</td>'
            f'<td class="n {_sense(row)}">{100 * row["difference"]:+.1f}</td>'
            f'<td class="n">{100 * low:+.1f} to {100 * high:+.1f}</td></tr>'
        )
    head = (
        '<tr><th></th><th class="n">n</th><th class="n">base</th><th class="n">tuned</th>'
        '<th class="n">points</th><th class="n">95% interval</th></tr>'
    )
    return f"<table>{head}{''.join(lines)}</table>"


def _card(row: Row, decoding: str) -> str:
    low, high = row["interval"]
    return (
        f'<div class="card"><div class="name">{TITLES[row["direction"]]}: right</div>'
        f'<div class="big">{100 * row["base"]:.1f}%<span class="arrow">→</span>'
        f"{100 * row['tuned']:.1f}%</div>"
        f'<div class="gain {_sense(row)}">{100 * row["difference"]:+.1f} points '
        f"<small>(95% interval {100 * low:+.1f} to {100 * high:+.1f})</small></div>"
        f'<div class="name">n = {row["n"]}, {decoding} decoding of both models</div></div>'
    )


def _sense(row: Row) -> str:
    low, high = row["interval"]
    return "up" if low > 0 else "down" if high < 0 else ""


def _percent(value: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * value:.1f}% <small>[{100 * low:.0f}, {100 * high:.0f}]</small>"
