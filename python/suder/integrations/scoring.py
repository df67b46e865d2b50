"""What the reward functions have in common: hosts' texts and pictures in, a number each out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suder.inputs.pictures import decode_picture, load_picture
from suder.method import rewards
from suder.models.base import DIRECTIONS, Direction, UnifiedModel
from suder.models.load import load_model

# Of a candidate without a reward, for hosts that count NaN as a number: below what any model that
# learnt something gives on average; a guess among V entries is worth -log V, -12 of 150,000.
MISSING = -20.0


def dual_reward(
    model: UnifiedModel | str | Path, direction: Direction, options: dict[str, Any]
) -> rewards.DualReward:
    """`suder.DualReward`, of a model or of where `suder.load_model` finds one.

    Raises:
        ValueError: the direction is none.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: takes {' or '.join(DIRECTIONS)}, got {direction!r}")
    loaded = load_model(model) if isinstance(model, str | Path) else model
    return rewards.DualReward(loaded, **options)


def missing_number(missing: float | None, options: dict[str, Any]) -> float:
    """What stands for no reward where the host would count NaN.

    Raises:
        ValueError: None with sums, whose scale is the target's length.
    """
    if missing is None and options.get("reduction") == "sum":
        raise ValueError(
            "missing: give a number below any reward, as reduction='sum' has no scale of its own"
        )
    return MISSING if missing is None else missing


def of_captions(reward: rewards.DualReward, images: Sequence[Any], texts: Sequence[str]) -> Tensor:
    """R_U of each caption, NaN where there is none.

    Raises:
        NotFinite: texts had a reward to get, and the model gave none.
    """
    found = reward.understanding(list(images), texts)
    rewards.check_rewards(reward.model, "understanding", texts, found)
    return found


def of_pictures(
    reward: rewards.DualReward, texts: Sequence[str], rows: Sequence[Sequence[int]]
) -> Tensor:
    """R_G of each picture's VQ tokens, NaN where they are too few or none of the model's.

    Raises:
        NotFinite: as `of_captions`.
    """
    model = reward.model
    whole = [
        i
        for i, row in enumerate(rows)
        if len(row) == model.num_image_tokens
        and all(0 <= code < model.image_vocab_size for code in row)
    ]
    found = torch.full((len(rows),), torch.nan, device=model.device)
    if whole:
        tokens = torch.tensor([list(rows[i]) for i in whole], device=model.device)
        drawn_for = [texts[i] for i in whole]
        found[whole] = reward.generation(drawn_for, tokens)
        rewards.check_rewards(model, "generation", drawn_for, found)
    return found


def numbers(found: Tensor, missing: float) -> list[float]:
    """Rewards as a host takes them."""
    scored: list[float] = found.masked_fill(~found.isfinite(), missing).tolist()
    return scored


def words(message: Any, role: str) -> str:
    """A text as it is; of a conversation the last words of a role."""
    if isinstance(message, str):
        return message
    for turn in reversed(message):
        if turn["role"] == role:
            content = turn["content"]
            if isinstance(content, str):
                return content
            return "".join(part["text"] for part in content if part.get("type") == "text")
    return ""


def picture(value: Any, where: str) -> Any:
    """A picture as data sets hold it: PIL, an array, a path, a row of bytes, a list of one.

    Raises:
        ValueError: a list of another length, or a row with neither.
        DataError: a file or bytes that are no picture.
    """
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ValueError(f"{where}: takes one image a caption, got {len(value)}")
        value = value[0]
    if isinstance(value, dict):
        if value.get("bytes"):
            return decode_picture(value["bytes"], value.get("path") or where)
        if not value.get("path"):
            raise ValueError(f"{where}: takes 'bytes' or 'path' of an image, got {sorted(value)}")
        value = value["path"]
    if isinstance(value, str | Path):
        return load_picture(str(value).removeprefix("file://"))
    return value
