"""`reward.external: "module:function"`: a reward of the user's own, any Python callable."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from suder.models.base import Direction


class ExternalReward(Protocol):
    """What is called, with keywords only, once for each direction of a round and process.

    Of candidate i, `images[i]` is the picture and `texts[i]` the text: in the understanding
    direction the given picture and the caption written for it, in the generation direction the
    picture drawn and the prompt it was drawn for. Candidates `i // group` share their input.

    Args:
        direction: "understanding" or "generation".
        inputs: of each group, the path of its picture, or its prompt.
        images: a PIL picture (RGB) for each candidate.
        texts: a text for each candidate; a caption may be empty.
        group: candidates of one input.

    Returns:
        A number for each candidate, larger for better: a sequence of floats, an array or a tensor.
        NaN: no candidate, it is left out.
    """

    def __call__(
        self,
        *,
        direction: Direction,
        inputs: Sequence[str],
        images: Sequence[Image.Image],
        texts: Sequence[str],
        group: int,
    ) -> Sequence[float]: ...


class ExternalError(ValueError):
    """The function cannot be found, failed, or gave something that is no reward."""


def load_external(name: str) -> ExternalReward:
    """The callable; its module is imported, the working directory's after all others'.

    Raises:
        ExternalError: there is no such module or function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ExternalError(f"reward.external: takes module:function, got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a module of the user's raises
        raise ExternalError(f"reward.external {name}: {_told(error)}") from error
    if not callable(found):
        raise ExternalError(f"reward.external {name}: is {type(found).__name__}, no function")
    reward: ExternalReward = found
    return reward


def external_reward(
    function: Callable[..., Any],
    name: str,
    direction: Direction,
    inputs: Sequence[str],
    images: Sequence[Image.Image],
    texts: Sequence[str],
    group: int,
) -> Tensor:
    """What the function says of these candidates, checked; float32 `[B]` on the CPU.

    Raises:
        ExternalError: it raised, or gave another number of rewards, or something that is no number
            or infinite.
    """
    where = f"reward.external {name} ({direction})"
    try:
        given = function(
            direction=direction, inputs=list(inputs), images=list(images), texts=list(texts),
            group=group,
        )  # fmt: skip
    except (MemoryError, torch.OutOfMemoryError):
        raise  # a smaller batch of ours may help
    except Exception as error:
        raise ExternalError(f"{where}: {_told(error)}") from error
    try:
        values = given.tolist() if hasattr(given, "tolist") else list(given)
    except TypeError:
        raise ExternalError(f"{where}: takes a sequence of numbers, got {given!r:.60}") from None
    if len(values) != len(texts):
        raise ExternalError(f"{where}: gave {len(values)} rewards for {len(texts)} candidates")
    try:
        rewards = [float(value) for value in values]
    except (TypeError, ValueError):
        bad = next(one for one in values if not isinstance(one, int | float))
        raise ExternalError(f"{where}: gave {bad!r:.60}, which is no number") from None
    if any(map(math.isinf, rewards)):
        at = next(i for i, one in enumerate(rewards) if math.isinf(one))
        raise ExternalError(
            f"{where}: gave {rewards[at]} for candidate {at}; give NaN for one to be left out"
        )
    return torch.tensor(rewards, dtype=torch.float32)


def _told(error: Exception) -> str:
    words = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {words[:300]}"
