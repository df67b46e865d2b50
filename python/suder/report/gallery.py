"""Before and after: pictures and captions of both models for the same inputs, judged."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
from PIL import Image

from suder.evaluation.result import Evaluation

PICTURES = 24  # prompts shown
CAPTIONS = 12  # captioned pictures shown


def picture_gallery(base: Evaluation, tuned: Evaluation) -> str:
    """The first prompts of the evaluation with both models' pictures; nothing is picked."""
    before, after = base.generation, tuned.generation
    cards = []
    for item in range(min(PICTURES, len(before.pictures), len(after.pictures))):
        pair = "".join(
            f"<div>{_picture(items.pictures[item])}{_mark(bool(items.correct[item]), label)}</div>"
            for label, items in (("base", before), ("tuned", after))
        )
        prompt = html.escape(before.inputs[item])
        cards.append(f'<figure><div class="pair">{pair}</div>'
                     f"<figcaption>{prompt}</figcaption></figure>")  # fmt: skip
    return f'<div class="gallery">{"".join(cards)}</div>'


def caption_table(base: Evaluation, tuned: Evaluation) -> str:
    """The first pictures of the evaluation with both models' captions and a true one."""
    before, after = base.understanding, tuned.understanding
    rows = []
    for item in range(min(CAPTIONS, len(before.pictures))):
        cells = ""
        for items in (before, after):
            said = html.escape(items.answers[item]) or "—"
            cells += f"<td>{_mark(bool(items.correct[item]), '')} {said}</td>"
        truth = html.escape(before.inputs[item])
        picture = _picture(before.pictures[item])
        rows.append(f'<tr><td>{picture}</td>{cells}<td class="quiet">{truth}</td></tr>')
    head = "<tr><th>picture</th><th>base says</th><th>tuned says</th><th>a true caption</th></tr>"
    return f'<table class="captions">{head}{"".join(rows)}</table>'


def _picture(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img class="drawn" alt="" src="data:image/png;base64,{data}">'


def _mark(right: bool, label: str) -> str:
    sign, name = ("✓", "right") if right else ("✗", "wrong")
    return f'<span class="{name}" title="{name}">{sign} {label}</span>'
