"""The page: one file of HTML that needs nothing else, and how times are written for people."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.suite.ask import Row


def page(record: dict[str, Any], charts: dict[str, bytes]) -> str:
    """HTML of a record as __main__.py writes it, with a diagram for each of its scripts."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"time": time_of, "ratio": ratio_of}
    sections = [
        {
            "script": script,
            "title": title,
            "chart": "data:image/png;base64," + base64.b64encode(charts[script]).decode("ascii"),
            "rows": (rows := [row for row in record["rows"] if row["script"] == script]),
            "memory": any(row.get("mib") is not None for row in rows),
            "summary": summary(rows),
        }
        for script, title in record["scripts"].items()
    ]
    return environment.get_template("page.html").render(record=record, sections=sections)


def summary(rows: list[Row]) -> str:
    """How the fastest peer of each case compares, slowest and fastest case."""
    best: dict[str, float] = {}
    for row in rows:
        if row["role"] == "peer" and "ratio" in row:
            best[row["case"]] = min(best.get(row["case"], row["ratio"]), row["ratio"])
    if not best:
        return "nothing of others' beside it"
    low, high = ratio_of(min(best.values())), ratio_of(max(best.values()))
    slower = sum(ratio < 1 for ratio in best.values())
    words = f"the fastest peer takes {low if low == high else f'{low} to {high}'} our time"
    return f"{words}; ours is slower in {slower} of {len(best)} cases" if slower else words


def ratio_of(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2f}x"


def time_of(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.2f} ms" if milliseconds >= 1 else f"{milliseconds * 1000:.1f} µs"
