"""Unlabelled inputs as a user would have them: a folder of PNG files and a file of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from suder.evaluation.task import asked_kinds, distinct_first, in_validation, kinds_of
from suder.storage.files import read_json, whole, write_json, write_text
from suder.storage.folders import make_folder
from suder.world import emoji
from suder.world.digits import NAMES, scans
from suder.world.digits import prompt as digit_prompt
from suder.world.drawing import draw
from suder.world.scenes import prompts, scenes


def write_inputs(
    folder: Path,
    *,
    pictures: int,
    prompt_count: int,
    seed: int = 0,
    hold_back: bool = False,
    world: str = "shapes",
) -> None:
    """Write `folder/images/*.png` and `folder/prompts.txt` of a world's unlabelled split.

    The pictures come without captions and the prompts without pictures; nothing relates the two.
    `hold_back` leaves out the combinations that `split="validation"` is judged on. What is there
    already, from the same arguments, is left as it is.
    """
    asked_for = {
        "world": world,
        "pictures": pictures,
        "prompts": prompt_count,
        "seed": seed,
        "hold_back": hold_back,
    }
    done = folder / "inputs.json"
    if done.is_file():
        if read_json(done) != asked_for:
            raise ValueError(
                f"{folder} holds other inputs ({read_json(done)}) than asked for ({asked_for}); "
                "use another folder, or delete that one"
            )
        return
    make = {"shapes": _shapes, "digits": _digits, "emoji": _emoji}[world]
    drawn, asked = make(pictures, prompt_count, seed, hold_back)
    images = folder / "images"
    make_folder(folder)
    make_folder(images)
    for number, picture in enumerate(drawn):
        with whole(images / f"{number:04d}.png", picture.nbytes) as partial:
            Image.fromarray(picture).save(partial, format="PNG")
    write_text(folder / "prompts.txt", "\n".join(asked) + "\n")
    write_json(done, asked_for)  # last: it says that all is there


def _shapes(
    pictures: int, prompt_count: int, seed: int, hold_back: bool
) -> tuple[Sequence[np.ndarray], list[str]]:
    shown = scenes("unlabelled", 4 * pictures, seed)
    asked = prompts("unlabelled", 4 * prompt_count, seed)
    if hold_back:
        shown = [scene for scene in shown if not in_validation(kinds_of(scene))]
        asked = [prompt for prompt in asked if not in_validation(asked_kinds(prompt))]
    rng = np.random.default_rng([seed, 2])
    drawn = [draw(scene, int(rng.integers(2**31))) for scene in distinct_first(shown, pictures)]
    return drawn, distinct_first(asked, prompt_count)


def _digits(
    pictures: int, prompt_count: int, seed: int, hold_back: bool
) -> tuple[Sequence[np.ndarray], list[str]]:
    if hold_back:
        raise ValueError("the digits world holds nothing back for validation")
    found, _ = scans("unlabelled")
    order = np.random.default_rng([seed, 2]).permutation(len(found))[:pictures]
    return list(found[order]), [digit_prompt(i % len(NAMES)) for i in range(prompt_count)]


def _emoji(
    pictures: int, prompt_count: int, seed: int, hold_back: bool
) -> tuple[Sequence[np.ndarray], list[str]]:
    kinds = [
        kind for kind in emoji.kinds("unlabelled") if not (hold_back and emoji.held_back(kind))
    ]
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(np.arange(pictures) % len(kinds))
    drawn = [emoji.draw(kinds[row], int(rng.integers(2**20))) for row in order]
    return drawn, [emoji.prompt(kinds[i % len(kinds)]) for i in range(prompt_count)]
