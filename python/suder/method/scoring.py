"""What each candidate of a round is worth: to the model, to its judge, to the user's function."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from PIL import Image

from suder import ranks
from suder.inputs.pictures import load_picture
from suder.method.external import ExternalReward, external_reward
from suder.method.judge import SelfJudge
from suder.method.rewards import DualReward, check_rewards
from suder.method.rollouts import Rollouts
from suder.models.base import Condition, UnifiedModel


def reward_of(
    rollouts: Rollouts, scorer: DualReward, model: UnifiedModel, condition: Condition
) -> torch.Tensor:
    """The dual self-reward of every candidate, float32 `[B]` on the CPU; NaN where there is none.

    Understanding: mean log p(picture's VQ tokens | caption). Generation: mean log p(prompt's
    tokens | picture). Both by the model running in the other direction. Each of the run's processes
    scores its share of the inputs.
    """
    here = ranks.share(len(rollouts.inputs))
    own, given = rollouts.take(here), condition[here.start : here.stop]
    with ranks.each():
        if not len(here):
            reward = torch.zeros(0)
        elif isinstance(given, torch.Tensor):
            tokens = given if model.reads_tokens else model.encode(given)
            reward = scorer.understanding(tokens, own.sequences(), own.group)
        else:
            reward = scorer.generation(given, own.pictures(), own.group)
        reward = reward.float().cpu()
    return torch.cat(ranks.gather(reward))


def judged_of(rollouts: Rollouts, judge: SelfJudge, condition: Condition) -> torch.Tensor:
    """What the judge's model says of every candidate and its input, float32 `[B]` on the CPU.

    Understanding: whether the picture shows what the caption says; generation: whether what was
    drawn shows what the prompt asks for. Each of the run's processes asks for its share.
    """
    here = ranks.share(len(rollouts.inputs))
    own, given = rollouts.take(here), condition[here.start : here.stop]
    with ranks.each():
        judged = torch.zeros(0)
        if len(here) and isinstance(given, torch.Tensor):
            judged = judge(given, judge.model.detokenize(own.sequences()), own.group)
        elif len(here):
            judged = judge(own.pictures(), list(given), own.group)
        judged = judged.float().cpu()
    return torch.cat(ranks.gather(judged))


def external_of(
    rollouts: Rollouts,
    function: ExternalReward,
    name: str,
    model: UnifiedModel,
    digests: Mapping[str, str] | None = None,
) -> torch.Tensor:
    """What a function of the user's says of every candidate, float32 `[B]` on the CPU.

    Pictures are those of the files, whole, or those drawn. Each of the run's processes asks for its
    share.
    """
    here = ranks.share(len(rollouts.inputs))
    own = rollouts.take(here)
    with ranks.each():
        reward = torch.zeros(0)
        if len(here):
            each = range(own.group)
            if own.direction == "understanding":
                known = digests or {}
                read = [load_picture(one, model.background, known.get(one)) for one in own.inputs]
                pictures = [Image.fromarray(one) for one in read for _ in each]
                texts = model.detokenize(own.sequences())
            else:
                pictures = [
                    Image.fromarray(one) for one in model.decode(own.pictures()).cpu().numpy()
                ]
                texts = [one for one in own.inputs for _ in each]
            reward = external_reward(
                function, name, own.direction, own.inputs, pictures, texts, own.group
            )
    return torch.cat(ranks.gather(reward))


def check_reward_of(rollouts: Rollouts, model: UnifiedModel, reward: torch.Tensor) -> None:
    """Raises NotFinite where candidates had a reward to get by `model`, and none has a finite one.

    One that is not finite is a candidate left out.
    """
    if not reward.isfinite().any():
        captions = rollouts.direction == "understanding"
        texts = model.detokenize(rollouts.sequences()) if captions else rollouts.inputs
        check_rewards(model, rollouts.direction, texts, reward)
