"""Before and after: pictures and captions of both models for the same inputs, judged."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from suder.evaluation.result import Evaluation

PICTURES = 24  # prompts shown
CAPTIONS = 12  # captioned pictures shown
_LARGEST = 512  # pixels a side of a picture in the page


def picture_gallery(base: Evaluation, tuned: Evaluation) -> list[dict[str, Any]]:
    """The first prompts of the evaluation with both models' pictures; nothing is picked."""
    before, after = base.generation, tuned.generation
    return [
        {
            "prompt": before.inputs[item],
            "before": picture_url(before.pictures[item]),
            "before_right": bool(before.correct[item]),
            "after": picture_url(after.pictures[item]),
            "after_right": bool(after.correct[item]),
        }
        for item in range(min(PICTURES, len(before.pictures), len(after.pictures)))
    ]


def caption_table(base: Evaluation, tuned: Evaluation) -> list[dict[str, Any]]:
    """The first pictures of the evaluation with both models' captions and a true one."""
    before, after = base.understanding, tuned.understanding
    return [
        {
            "picture": picture_url(before.pictures[item]),
            "before": before.answers[item],
            "before_right": bool(before.correct[item]),
            "after": after.answers[item],
            "after_right": bool(after.correct[item]),
            "truth": before.inputs[item],
        }
        for item in range(min(CAPTIONS, len(before.pictures), len(after.answers)))
    ]


def picture_url(array: np.ndarray) -> str:
    """uint8 `[H, W, 3]` as the text of a data URL."""
    picture = Image.fromarray(array)
    picture.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/png;base64,{data}"
