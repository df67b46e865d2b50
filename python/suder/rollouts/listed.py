"""Inputs of a run that learns from rollouts: theirs, and what its guard watches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from suder.inputs.data import Dropped, Inputs, read_picture_folder, read_prompt_file, split
from suder.inputs.files import DataError, read_file
from suder.inputs.pictures import MAX_BYTES, decode_picture, digest_of
from suder.models.base import Direction
from suder.rollouts.offline import Offline
from suder.settings.config import TrainConfig

Items = list[tuple[str, str]]  # an input and by what it is known


def read_listed(source: Offline, config: TrainConfig) -> Inputs:
    """Reads and splits the inputs that the rollouts are of.

    A part is kept from training for the guard to watch, as of any inputs. Where `data.images` or
    `data.prompts` is given besides, the guard watches a part of those, and what it watches is not
    trained on.

    Raises:
        DataError: nothing usable in them, or nothing to watch in a direction they do not hold.
    """
    dropped: list[Dropped] = []
    data = config.data
    own_images = _pictures(source.inputs("understanding"), dropped)
    own_prompts: Items = [(prompt, prompt) for prompt in source.inputs("generation")]
    others_images = others_prompts = None
    if data.images != data.rollouts:
        others_images = read_picture_folder(Path(data.images), data.follow_links, dropped)
    if data.prompts != data.rollouts:
        others_prompts = read_prompt_file(Path(data.prompts), dropped)
    images, watched_images = _divided("understanding", own_images, others_images, config)
    prompts, watched_prompts = _divided("generation", own_prompts, others_prompts, config)
    known = dict(own_images) | dict(others_images or ())
    return Inputs(images, prompts, watched_images, watched_prompts, tuple(dropped), known)


def _divided(
    direction: Direction, own: Items, others: Items | None, config: TrainConfig
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    kind = "pictures" if direction == "understanding" else "prompts"
    if not own and others is None:
        name = "data.images" if direction == "understanding" else "data.prompts"
        raise DataError(
            f"{config.data.rollouts} holds no {kind} of its own, and the guard watches both "
            f"directions: name some by {name}"
        )
    if others is None:
        return split(own, config.data.heldout, config.seed, kind, config.guard.inputs)
    rest, watched = split(others, config.data.heldout, config.seed, kind, config.guard.inputs)
    contents = dict(others)
    aside = {contents[item] for item in watched} - {contents[item] for item in rest}
    kept = tuple(item for item, content in own if content not in aside)
    if own and not kept:
        raise DataError(f"all {kind} of {config.data.rollouts} are among those to be watched")
    return kept or rest, watched


def _pictures(told: Mapping[str, str | None], dropped: list[Dropped]) -> Items:
    found: Items = []
    for path, digest in told.items():
        try:
            data = read_file(path, MAX_BYTES)
            decode_picture(data, path)
        except DataError as error:
            dropped.append(Dropped(path, str(error)))
            continue
        if digest is not None and digest_of(data) != digest:
            dropped.append(Dropped(path, "has changed: not the picture that the rollouts are of"))
            continue
        found.append((path, digest_of(data)))
    if told and not found:
        raise DataError(f"none of the rollouts' {len(told)} pictures is there: {dropped[0].why}")
    return found
