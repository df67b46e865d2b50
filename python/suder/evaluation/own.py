"""Two models side by side on a user's own inputs, where nobody knows what is right.

What each draws and writes is scored by the dual rewards of the base model, frozen; and where
pictures have texts of their own, both models say how likely those are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from suder.engine.sampling import sample
from suder.evaluation.own_inputs import OwnInputs
from suder.evaluation.statistics import LEVEL, Interval, jackknife, quantile
from suder.inputs.pictures import load_picture
from suder.method.rewards import DualReward

AT_ONCE = 32  # inputs that are held at once
SHOWN = 24  # pictures that are kept for a page, of each direction
# What is measured: name, and what it is in words.
MEASURES = {
    "generation": "R_G of the pictures drawn: log p(prompt | picture), by the base model",
    "understanding": "R_U of the captions written: log p(picture | caption), by the base model",
    "own_caption": "log p(own text | picture), each model's own",
    "own_picture": "log p(picture | own text), each model's own",
}


@dataclass
class Side:
    """One model's answers. `measured[name]`: float64, one an input, NaN where there is none.

    `drawn`: uint8 `[H, W, 3]` of the first SHOWN prompts. `captions`: of every picture.
    """

    drawn: list[np.ndarray] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    measured: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Beside:
    """Both models' answers to the same inputs, and how they were asked."""

    inputs: OwnInputs
    base: Side
    tuned: Side
    settings: dict[str, Any]

    def differences(self) -> dict[str, dict[str, Any]]:
        """By measure: both means, the mean paired difference with its 95% interval, n, better."""
        found = {}
        for name, before in self.base.measured.items():
            after = self.tuned.measured[name]
            of = self.inputs.prompts if name == "generation" else self.inputs.digests
            both = np.isfinite(before) & np.isfinite(after)
            if both.any():
                change = (after - before)[both]
                interval = mean_difference(change, np.array(of)[both])
                found[name] = {
                    "base": float(before[both].mean()),
                    "tuned": float(after[both].mean()),
                    "difference": interval.estimate,
                    "interval": [interval.low, interval.high],
                    "n": interval.n,
                    "higher": int((change > 0).sum()),
                    "lower": int((change < 0).sum()),
                }
        return found


def mean_difference(
    change: np.ndarray, clusters: Sequence[Any] | np.ndarray, level: float = LEVEL
) -> Interval:
    """Student's t interval of a mean of paired differences, over whole clusters; no bounds.

    Of one cluster alone nothing is known: the interval is infinite. Where no pair differs at all it
    is 0.
    """
    spread = jackknife(change, np.ones(len(change)), clusters)
    if not change.any():
        return Interval(0.0, 0.0, 0.0, len(change), spread.clusters)
    half = quantile(spread.degrees, level) * math.sqrt(spread.variance)
    return Interval(
        spread.mean, spread.mean - half, spread.mean + half, len(change), spread.clusters
    )


def beside(
    base: Any,
    tuned: Any,
    inputs: OwnInputs,
    *,
    seed: int = 0,
    greedy: bool = True,
    temperature: float = 1.0,
    guidance: float = 1.0,
    max_new_tokens: int | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Beside:
    """Both models' pictures and captions of the same inputs, by the same random numbers.

    Args:
        base, tuned: adapters from `suder.load_model`; neither is changed.
        step: told of inputs done, and of all.
    """
    how: dict[str, Any] = {"greedy": True} if greedy else {"temperature": temperature}
    how["seed"] = seed
    total = 2 * (len(inputs.prompts) + len(inputs.pictures))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        step(done, total)

    sides = {}
    scorer = DualReward(base)
    with torch.inference_mode():
        for name, model in (("base", base), ("tuned", tuned)):
            sides[name] = side = Side()
            if inputs.prompts:
                _draw(model, scorer, inputs, side, {**how, "guidance": guidance}, advance)
            if inputs.pictures:
                writing = {**how, "max_new_tokens": max_new_tokens}
                _caption(model, scorer, inputs, side, writing, advance)
    settings = {**how, "guidance": guidance, "max_new_tokens": max_new_tokens}
    return Beside(inputs, sides["base"], sides["tuned"], settings)


def _draw(
    model: Any,
    scorer: DualReward,
    inputs: OwnInputs,
    side: Side,
    how: dict[str, Any],
    advance: Callable[[int], None],
) -> None:
    rewards = []
    for first in range(0, len(inputs.prompts), AT_ONCE):
        asked = inputs.prompts[first : first + AT_ONCE]
        tokens = torch.as_tensor(
            sample(model, "generation", list(asked), first=first, **how).tokens
        )
        pictures = np.asarray(model.decode(tokens).cpu())
        seen = tokens if _same_codes(scorer.model, model, tokens, pictures) else list(pictures)
        rewards.append(scorer.generation(list(asked), seen))
        side.drawn.extend(pictures[: max(0, SHOWN - len(side.drawn))])
        advance(len(asked))
    side.measured["generation"] = _numbers(rewards)


def _caption(
    model: Any,
    scorer: DualReward,
    inputs: OwnInputs,
    side: Side,
    how: dict[str, Any],
    advance: Callable[[int], None],
) -> None:
    own = DualReward(model)
    found: dict[str, list[torch.Tensor]] = {"understanding": []}
    if any(inputs.captions):
        found |= {"own_caption": [], "own_picture": []}
    for first in range(0, len(inputs.pictures), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        named = zip(inputs.pictures[part], inputs.digests[part], strict=True)
        shown = [load_picture(path, model.background, digest) for path, digest in named]
        pixels = model.pixels(shown)
        written = sample(model, "understanding", pixels, first=first, **how)
        captions = model.detokenize(written.tokens)
        side.captions.extend(captions)
        found["understanding"].append(scorer.understanding(shown, captions))
        if any(inputs.captions):
            texts = inputs.captions[part]
            found["own_caption"].append(own.generation(texts, shown))
            found["own_picture"].append(own.understanding(shown, texts))
        advance(len(shown))
    side.measured |= {name: _numbers(values) for name, values in found.items()}


def _same_codes(base: Any, model: Any, tokens: torch.Tensor, pictures: np.ndarray) -> bool:
    """Whether the base model reads the other's picture tokens as what they are."""
    if model is base:
        return True
    names = ("num_image_tokens", "image_vocab_size")
    if any(getattr(base, name) != getattr(model, name) for name in names):
        return False
    return np.array_equal(np.asarray(base.decode(tokens).cpu()), pictures)


def _numbers(parts: list[torch.Tensor]) -> np.ndarray:
    values: np.ndarray = torch.cat(parts).double().cpu().numpy()
    return np.where(np.isfinite(values), values, np.nan)
