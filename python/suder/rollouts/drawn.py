"""Drawings of a table as PNG files, for people, and for trainers of models that judge pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from suder.inputs.files import DataError
from suder.models.base import UnifiedModel, inference
from suder.rollouts.schema import arrow
from suder.storage.files import write_bytes

AT_ONCE = 64


def with_pictures(table: Any, model: UnifiedModel, folder: Path) -> Any:
    """Writes the drawings into `folder` and gives the table a column `image` of their paths.

    Args:
        model: that drew them, or one with the same VQ model.

    Raises:
        DataError: the tokens are not this model's.
    """
    rows = [row for row, name in enumerate(table["direction"].to_pylist()) if name == "generation"]
    paths: list[str | None] = [None] * len(table)
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(rows), AT_ONCE):
        part = rows[first : first + AT_ONCE]
        tokens = table["tokens"].take(arrow().array(part)).to_pylist()
        with inference(model):
            pictures = model.decode(drawn_tokens(model, tokens)).cpu().numpy()
        for row, picture in zip(part, pictures, strict=True):
            path = folder / f"{row:06d}.png"
            data = io.BytesIO()
            Image.fromarray(picture).save(data, format="PNG")
            write_bytes(path, data.getvalue())
            paths[row] = str(path.absolute())
    if "image" in table.column_names:
        table = table.drop(["image"])
    return table.append_column("image", arrow().array(paths, arrow().string()))


def drawn_tokens(model: UnifiedModel, rows: list[list[int]]) -> torch.Tensor:
    """int64 `[B, I]` of drawings that this model can read.

    Raises:
        DataError: they are too many or too few, or out of its codebook.
    """
    if why := why_not_drawn(model, rows):
        raise DataError(why)
    return torch.tensor(rows, dtype=torch.int64, device=model.device)


def why_not_drawn(model: UnifiedModel, rows: list[list[int]]) -> str:
    """Why a model cannot have drawn these tokens, or ""."""
    for number, row in enumerate(rows):
        if len(row) != model.num_image_tokens:
            return (
                f"drawing {number} has {len(row)} tokens, and this model draws with "
                f"{model.num_image_tokens}"
            )
        if bad := [token for token in row if not 0 <= token < model.image_vocab_size]:
            return (
                f"drawing {number} has the token {bad[0]}, and this model's codebook has "
                f"{model.image_vocab_size}: another model drew it"
            )
    return ""
