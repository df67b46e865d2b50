"""Two models beside one another on a user's own inputs: a page, and the same numbers as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from suder.evaluation.own import MEASURES, SHOWN, Beside
from suder.inputs.pictures import load_picture
from suder.report.gallery import picture_url
from suder.report.page import render
from suder.storage.files import finite, write_json, write_text
from suder.storage.shown import shown

HEADS = ("", "n", "base", "tuned", "difference", "95% interval", "higher", "lower")


def write_own(found: Beside, base: str, tuned: str, page: Path) -> Path:
    """The page and, beside it with the ending .json, every input's answers and numbers."""
    write_json(page.with_suffix(".json"), finite(_as_object(found, base, tuned)))
    inputs = found.inputs
    write_text(
        page,
        render(
            "own.html",
            base=base,
            tuned=tuned,
            heads=HEADS,
            rows=lines(found),
            words=in_words(found),
            pictures=[
                {
                    "prompt": inputs.prompts[place],
                    "sides": [
                        (name, picture_url(side.drawn[place]), _said(side, "generation", place))
                        for name, side in _sides(found)
                    ],
                }
                for place in range(len(found.base.drawn))
            ],
            captions=[
                {
                    "picture": picture_url(load_picture(path)),
                    "own": inputs.captions[place],
                    "sides": [
                        (side.captions[place], _said(side, "understanding", place))
                        for _, side in _sides(found)
                    ],
                }
                for place, path in enumerate(inputs.pictures[:SHOWN])
            ],
            own=any(inputs.captions),
            left_out=inputs.left_out,
        ),
    )
    return page


def lines(found: Beside) -> list[tuple[str, ...]]:
    """A row a measure, for the page and for a terminal."""
    return [
        (
            MEASURES[name],
            str(row["n"]),
            f"{row['base']:.3f}",
            f"{row['tuned']:.3f}",
            f"{row['difference']:+.3f}",
            _interval(row["interval"]),
            str(row["higher"]),
            str(row["lower"]),
        )
        for name, row in found.differences().items()
    ]


def in_words(found: Beside) -> list[str]:
    """What the intervals allow to be said, a sentence a measure."""
    said = []
    for name, row in found.differences().items():
        low, high = row["interval"]
        word = "higher" if low > 0 else "lower" if high < 0 else "no different beyond chance"
        said.append(f"{MEASURES[name].partition(':')[0]}: {word} for the tuned model.")
    return said


def _as_object(found: Beside, base: str, tuned: str) -> dict[str, Any]:
    inputs = found.inputs

    def of(place: int, *names: str) -> dict[str, Any]:
        return {
            name: {"base": found.base.measured[name][place], "tuned": side[place]}
            for name, side in found.tuned.measured.items()
            if name in names
        }

    return {
        "base": base,
        "tuned": tuned,
        "settings": found.settings,
        "measures": MEASURES,
        "differences": found.differences(),
        "prompts": [
            {"prompt": prompt, **of(place, "generation")}
            for place, prompt in enumerate(inputs.prompts)
        ],
        "pictures": [
            {
                "picture": path,
                "own_text": inputs.captions[place] or None,
                "captions": {name: side.captions[place] for name, side in _sides(found)},
                **of(place, "understanding", "own_caption", "own_picture"),
            }
            for place, path in enumerate(inputs.pictures)
        ],
        "left_out": [{"input": shown(name), "why": shown(why)} for name, why in inputs.left_out],
    }


def _sides(found: Beside) -> tuple[tuple[str, Any], ...]:
    return ("base", found.base), ("tuned", found.tuned)


def _said(side: Any, name: str, place: int) -> str:
    value = side.measured[name][place]
    return f"{value:.3f}" if math.isfinite(value) else "none"


def _interval(ends: list[float]) -> str:
    low, high = ends
    return f"{low:+.3f} to {high:+.3f}" if math.isfinite(low) else "one input tells nothing"
