"""A user's own pictures and prompts to compare two models on; none that a run learnt from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suder.inputs.files import DataError, read_file
from suder.inputs.paired import METADATA, own_texts
from suder.inputs.pictures import (
    MAX_BYTES,
    PICTURE_ENDINGS,
    decode_picture,
    digest_of,
    find_pictures,
)
from suder.inputs.texts import read_prompts

TRAINED = "the run was trained on it"


@dataclass(frozen=True)
class OwnInputs:
    """
    Attributes:
        pictures: paths.
        digests: of each; equal pictures are one cluster.
        captions: the picture's own text, "" where it has none.
        prompts: to draw of; no two are equal.
        left_out: what is not compared, with the reason.
    """

    pictures: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def read_own(
    images: Path | None,
    prompts: Path | None,
    *,
    count: int,
    seed: int = 0,
    trained: Collection[str] = (),
) -> OwnInputs:
    """At most `count` pictures of a folder and `count` prompts of a file, chosen by the seed.

    A picture's text stands beside it (`x.txt`) or in a `metadata.jsonl`, where there is one.

    Args:
        trained: prompts, and digests of pictures, that one of the models has learnt from.

    Raises:
        DataError: no folder, no file, or nothing left in one.
    """
    lost: list[tuple[str, str]] = []
    shown = {} if images is None else _pictures(images, count, seed, trained, lost)
    texts = {}
    if images is not None and _has_texts(images, shown):
        texts = own_texts(shown, images, images, lost)
    asked = () if prompts is None else _prompts(prompts, count, seed, trained, lost)
    return OwnInputs(
        tuple(shown),
        tuple(shown.values()),
        tuple(texts.get(path, "") for path in shown),
        asked,
        tuple(lost),
    )


def _pictures(
    folder: Path, count: int, seed: int, trained: Collection[str], lost: list[tuple[str, str]]
) -> dict[str, str]:
    """Digests by path."""
    if not folder.is_dir():
        raise DataError(f"--images: there is no folder {folder}")
    files, skipped = find_pictures(folder)
    lost += skipped
    found: dict[int, tuple[str, str]] = {}
    for place in _order(len(files), seed):
        if len(found) == count:
            break
        path = files[place]
        try:
            data = read_file(path, MAX_BYTES)
            decode_picture(data, path)
        except DataError as error:
            lost.append((str(path), str(error)))
            continue
        if digest_of(data) in trained:
            lost.append((str(path), TRAINED))
        else:
            found[place] = (str(path.resolve()), digest_of(data))
    if not found:
        raise DataError(
            f"--images: {folder} holds no picture to compare on: "
            + _why(lost, f"none ends in {', '.join(PICTURE_ENDINGS)}")
        )
    return dict(found[place] for place in sorted(found))


def _has_texts(folder: Path, pictures: Collection[str]) -> bool:
    beside = any(Path(path).with_suffix(".txt").is_file() for path in pictures)
    return beside or any(folder.rglob(METADATA))


def _prompts(
    file: Path, count: int, seed: int, trained: Collection[str], lost: list[tuple[str, str]]
) -> tuple[str, ...]:
    found, blank = read_prompts(file)
    lost += [(f"{file}:{number}", why) for number, why in blank]
    different = list(dict.fromkeys(found))
    lost += [(prompt, TRAINED) for prompt in different if prompt in trained]
    left = [prompt for prompt in different if prompt not in trained]
    if not left:
        why = f"the run was trained on all {len(different)}" if different else "it takes one a line"
        raise DataError(f"--prompts: {file} holds no prompt to compare on: {why}")
    return tuple(left[place] for place in sorted(_order(len(left), seed)[:count]))


def _order(count: int, seed: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, 43]).permutation(count).tolist()
    return order


def _why(lost: list[tuple[str, str]], otherwise: str) -> str:
    if not lost:
        return otherwise
    more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
    return f"{lost[0][0]}: {lost[0][1]}{more}"
