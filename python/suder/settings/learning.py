"""Settings of what is learnt from candidates, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from suder.settings.fields import NonNegative, Positive, Section, says
from suder_ext.types import LossType

# Of single directions, where objective.anchor is null: as objective.kl. At 1.0 most of a step is
# the noise of few samples, and the direction that it holds moves as far as without it.
ANCHOR = 0.1


class ObjectiveSection(Section):
    name: Annotated[
        Literal["grpo", "simpo", "dpo", "expert"],
        says("grpo, simpo, dpo, or expert: fine-tune on the best of each group"),
    ] = "grpo"
    kl: Annotated[
        float, says("weight of the KL to the frozen start model, per trained token", ge=0)
    ] = 0.1
    kl_estimator: Annotated[
        Literal["exact", "k3"],
        says(
            "of that KL. exact: over the vocabulary at each position, with a bounded gradient; k3: "
            "of the token drawn alone, exp(q - p) - 1 - (q - p), whose gradient is not bounded"
        ),
    ] = "exact"
    anchor: Annotated[
        float | None,
        says(
            "weight, in units of kl, of the exact KL to the start on fresh samples, one an input, "
            "of the direction that a round does not train, which is else lost bit by bit; null: "
            f"{ANCHOR:g} where one direction is trained alone, 0 where the other's turn comes",
            ge=0,
        ),
    ] = None
    token_weight: Annotated[
        Literal["none", "critical", "siblings"],
        says(
            "grpo: how much a picture's tokens learn. critical: only the first tenth and the tenth "
            "of highest entropy (GCPO); siblings: less where pictures of the opposite advantage "
            "look alike (STAGE); docs/rewards.md"
        ),
    ] = "none"
    entropy_anchor: Annotated[
        float,
        says(
            "weight of a reward, 1 / (1 + (H of the start - H)^2), for an entropy like the start's "
            "(STAGE), beside its group's mean; 0: none",
            ge=0,
        ),
    ] = 0.0
    clip: Annotated[float, says("grpo: half-width of the ratio's clip range", gt=0, lt=1)] = 0.2
    normalize: Annotated[
        Literal["std", "mean", "none"],
        says("grpo: divide centred rewards by the group's std, only centre them, or neither"),
    ] = "std"
    beta: Annotated[
        float | None,
        says("simpo, dpo: inverse temperature; null: 5 for simpo and sigmoid_norm, else 0.1", gt=0),
    ] = None
    margin: Annotated[
        float | None,
        says(
            "simpo, dpo: target margin, of losses that have one; null: 0.5 for simpo, else 0", ge=0
        ),
    ] = None
    loss_type: Annotated[
        LossType | None,
        says("simpo, dpo: another loss of suder_ext.preference_loss; null: simpo and sigmoid"),
    ] = None


class Optimizer(Section):
    lr: Annotated[float, says("AdamW's rate after warm-up", gt=0)] = 2e-4
    betas: Annotated[
        list[Annotated[float, Field(ge=0, lt=1)]],
        says("AdamW's two decay rates", min_length=2, max_length=2),
    ] = [0.9, 0.95]  # noqa: RUF012 (pydantic copies it)
    weight_decay: Annotated[float, says("AdamW's weight decay", ge=0)] = 0.0
    warmup_rounds: Annotated[NonNegative, says("rounds of linear warm-up")] = 10
    grad_clip: Annotated[
        float, says("largest norm of the whole gradient, after balancing", gt=0)
    ] = 1.0
    balance: Annotated[
        bool, says("scale both directions' gradients to one smoothed norm before adding")
    ] = True
    ema: Annotated[
        float,
        says("decay a round of the averaged weights that guard and result use", ge=0, lt=1),
    ] = 0.98
    steps: Annotated[Positive, says("optimiser steps on each round's samples")] = 1
    tokens_per_batch: Annotated[
        Positive, says("most tokens, conditions included, in one forward: bounds the memory")
    ] = 16384
    checkpoint_activations: Annotated[
        bool,
        says("keep only the inputs of layers for the backward, which computes the rest again"),
    ] = False
    offload: Annotated[
        bool,
        says(
            "keep the averaged weights, and gradients that wait for the other direction's, in the "
            "host's memory: the same bits, a third of the optimiser's memory"
        ),
    ] = False
    moments: Annotated[
        Literal["float32", "8bit"],
        says(
            "of Adam; 8bit: through torchao (pip install 'suder[torchao]'), a quarter of the "
            "memory, other steps by their rounding"
        ),
    ] = "float32"
    start_dtype: Annotated[
        Literal["float32", "bfloat16"],
        says(
            "bfloat16: the frozen start model holds the matrices of its layers as products read "
            "them (dtype bfloat16): the same bits, half its memory; LoRA's shares all its weights"
        ),
    ] = "float32"
    shard: Annotated[
        bool,
        says(
            "of several processes each holds a part of the weights, gradients and moments (FSDP2), "
            "and a copy to draw with; accelerate launch --use_fsdp --fsdp_version 2 asks for it too"
        ),
    ] = False


class Lora(Section):
    rank: Annotated[NonNegative, says("of the adapters; 0: none, all weights are trained")] = 0
    alpha: Annotated[Positive, says("the adapters' output is scaled by alpha / rank")] = 32
    frozen_dtype: Annotated[
        Literal["float32", "bfloat16"],
        says(
            "of the weights that are not trained, the VQ model's included; bfloat16, as in most "
            "checkpoints: half their memory and no copy to draw with. Adapters stay float32"
        ),
    ] = "float32"
    targets: Annotated[
        list[str], says("linear layers of the language model that get adapters", min_length=1)
    ] = [  # noqa: RUF012 (pydantic copies it)
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
