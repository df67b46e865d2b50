"""Draws a suite's pictures: what is there is left, and several processes divide the rest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from suder.engine.sampling import sample
from suder.evaluation.suites.layout import Item
from suder.evaluation.suites.manifest import claim_folder
from suder.models.base import UnifiedModel
from suder.run.exported import digest_of_model
from suder.run.origin import fingerprint
from suder.storage.files import json_text, whole, write_text
from suder.storage.fingerprint import versions
from suder.storage.shown import named

HEAD, END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class How(NamedTuple):
    """What pictures are drawn with. `batch_size` counts pictures drawn at once."""

    n: int
    seed: int = 0
    temperature: float = 1.0
    guidance: float = 1.0
    greedy: bool = False
    batch_size: int = 64


def draw(
    model: UnifiedModel,
    suite: str,
    items: Sequence[Item],
    out: Path,
    how: How,
    shard: tuple[int, int] = (0, 1),
    name: str = "",
) -> Iterator[tuple[int, int]]:
    """Draws what is missing, and yields (pictures' files written, files of this shard) as it goes.

    Batches are the same prompts whatever is there already and however many shards there are, and a
    batch of which a picture is missing is drawn whole: matrix products of another shape round
    otherwise. So a machine gives the same bytes after any kill and division.

    Args:
        items: of one of the suites here.
        shard: (i, n): this process draws every n-th batch, from the i-th on, i from 0.
        name: of the model, for the manifest.

    Raises:
        FolderError: see `claim_folder`.
        ValueError: a prompt is too long for the model; a suite without some of its prompts gives a
            score that is none of the suite's.
    """
    long = [(item.prompt, why) for item in items
            if (why := model.too_long("generation", item.prompt))]  # fmt: skip
    if long:
        raise ValueError(
            f"{len(long)} of {len(items)} prompts do not fit the model, such as "
            f"{named(long[0][0])}: {long[0][1]}"
        )
    claim_folder(out, _manifest(model, suite, items, how, name), items)
    at_once = max(1, how.batch_size // how.n)
    mine = range(at_once * shard[0], len(items), at_once * shard[1])
    total = sum(len(item.pictures) for first in mine for item in items[first : first + at_once])
    done = 0
    for first in mine:
        batch = items[first : first + at_once]
        missing = [not _is_there(out / name) for item in batch for name in item.pictures]
        if any(missing):
            _draw(model, batch, first, out, how)
        for where, text in (one for item in batch for one in item.texts):
            if not (out / where).is_file():
                write_text(out / where, text)
        done += len(missing)
        yield done, total


def _draw(model: UnifiedModel, batch: Sequence[Item], first: int, out: Path, how: How) -> None:
    drawn = sample(
        model, "generation", [item.prompt for item in batch], how.n,
        seed=how.seed, first=first, temperature=how.temperature, guidance=how.guidance,
        greedy=how.greedy, batch_size=how.batch_size,
    )  # fmt: skip
    assert isinstance(drawn.tokens, torch.Tensor)
    pictures = model.decode(drawn.tokens).cpu().numpy()
    for i, item in enumerate(batch):
        own = pictures[i * how.n : (i + 1) * how.n]
        for name, picture in zip(
            item.pictures, own if len(item.pictures) == how.n else [grid(own)], strict=True
        ):
            if not _is_there(out / name):
                _save(picture, out / name)


def grid(pictures: np.ndarray) -> np.ndarray:
    """uint8 `[n, S, S, 3]`, n from 2 to 4, in two columns, row by row; black where is none."""
    n, side = pictures.shape[:2]
    rows = -(-n // 2)
    canvas = np.zeros((rows * side, 2 * side, 3), np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // 2 * side, i % 2 * side
        canvas[y : y + side, x : x + side] = picture
    return canvas


def _save(picture: np.ndarray, file: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file, data.tell(), durable=False) as partial:
        partial.write_bytes(data.getbuffer())


def _is_there(file: Path) -> bool:
    """Whether a picture is there from its first byte to its last; a power cut may have cut it."""
    if not file.is_file():
        return False
    data = file.read_bytes()
    return data.startswith(HEAD) and data.endswith(END)


def _manifest(
    model: UnifiedModel, suite: str, items: Sequence[Item], how: How, name: str
) -> dict[str, Any]:
    drawn = json_text([[item.prompt, *item.pictures] for item in items])
    return {
        "suite": suite,
        "prompts": len(items),
        "prompts_hash": hashlib.sha256(drawn.encode()).hexdigest(),
        **how._asdict(),
        "noise": "picture j of prompt c, both from 0, draws from the stream (seed, c, j)",
        "model": name,
        "model_hash": digest_of_model(fingerprint(model)),
        "image_size": model.image_size,
        "null_prompt": model.asks.get("null_prompt"),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "versions": versions(),
    }
