"""Before any work: whether what a run asks for fits the positions of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from suder.inputs.data import Dropped, Inputs
from suder.inputs.files import DataError
from suder.method.conditions import too_long
from suder.models.base import UnifiedModel
from suder.settings.candidates import Sampling
from suder.storage.shown import named


def fitting(
    inputs: Inputs, sampling: Sampling, model: UnifiedModel, paired: bool = False
) -> Inputs:
    """The inputs without the prompts that are too long, which are dropped and named.

    Args:
        paired: prompts are the pictures' own, which go with them.

    Raises:
        DataError: no prompt is left, or the texts asked for are longer than the model's.
    """
    if (asked := sampling.max_new_tokens or 1) > model.longest_text:
        raise DataError(
            f"sampling.max_new_tokens: {asked} tokens about a picture are more "
            f"than fit this model's positions; it takes at most {model.longest_text}"
        )
    every = dict.fromkeys(inputs.prompts + inputs.watched_prompts)
    why = {prompt: reason for prompt in every if (reason := too_long(model, prompt))}
    if not why:
        return inputs
    prompts = tuple(prompt for prompt in inputs.prompts if prompt not in why)
    watched = tuple(prompt for prompt in inputs.watched_prompts if prompt not in why)
    if not prompts:
        first = next(iter(why))
        raise DataError(f"data.prompts: none is short enough; {named(first)}: {why[first]}")
    if inputs.watched_prompts and not watched:
        watched = tuple(dict.fromkeys(prompts))  # as where there are too few to set aside
    if paired:
        images = _their_pictures(inputs.images, inputs.prompts, why)
        watched_images = _their_pictures(inputs.watched_images, inputs.watched_prompts, why)
        if inputs.watched_images and not watched_images:
            watched_images, watched = images, prompts
        inputs = replace(inputs, images=images, watched_images=watched_images)
    dropped = [Dropped(named(prompt), f"too long: {reason}") for prompt, reason in why.items()]
    return replace(
        inputs,
        prompts=prompts,
        watched_prompts=watched,
        dropped=(*inputs.dropped, *dropped),
    )


def _their_pictures(
    images: Sequence[str], prompts: Sequence[str], why: Mapping[str, str]
) -> tuple[str, ...]:
    return tuple(image for image, prompt in zip(images, prompts, strict=True) if prompt not in why)
