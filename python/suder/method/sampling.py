"""A direction's candidates of a round, drawn by all processes together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from suder import ranks
from suder.engine.sampling import AT_ONCE, sample
from suder.inputs.files import DataError
from suder.method.conditions import read_conditions
from suder.method.rollouts import Rollouts
from suder.models.base import Condition, Direction, UnifiedModel
from suder.settings.candidates import Sampling


def sample_rollouts(
    model: UnifiedModel,
    direction: Direction,
    inputs: Sequence[str],
    group: int,
    settings: Sampling,
    seed: int,
    condition: Condition | None = None,
    lost: Sequence[tuple[str, str]] = (),
    at_once: int = AT_ONCE,
) -> Rollouts:
    """Samples `group` candidates for each input that can be used by now.

    Each of the run's processes does so for its share of the inputs, by the random numbers of their
    place among all: how many processes there are makes no difference to what is drawn.

    Args:
        condition: what `read_conditions` made of the inputs, if that was done before.
        lost: the inputs that it could not use.
        at_once: candidates that are drawn together.

    Raises:
        DataError: there is no input left.
    """
    if condition is None:
        inputs, condition, lost = read_conditions(model, direction, inputs)
    if lost and not inputs:
        seen = direction == "understanding"
        what = "pictures can be read any more" if seen else "prompts fits the model"
        raise DataError(f"none of the round's {what}: {lost[0][1]}")
    here = ranks.share(len(inputs))
    with ranks.each():
        samples = sample(
            model,
            direction,
            condition[here.start : here.stop],
            group,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            guidance=settings.guidance if direction == "generation" else 1.0,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            batch_size=at_once,
            first=here.start,
        )
        nothing = torch.zeros(0, dtype=torch.int64, device=model.device)
        drawn = (
            torch.tensor([len(row) for row in samples.tokens], dtype=torch.int64),
            torch.cat([nothing, *samples.tokens]).cpu(),
            torch.cat([nothing.float(), *samples.logprob]).float().cpu(),
            torch.as_tensor(samples.finished).cpu(),
        )
    lengths, tokens, logprob, finished = map(torch.cat, zip(*ranks.gather(drawn), strict=True))
    return Rollouts(
        direction=direction,
        inputs=tuple(inputs),
        group=group,
        tokens=tokens,
        cu_seqlens=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        logprob=logprob,
        finished=finished,
        lost=tuple(lost),
    )
