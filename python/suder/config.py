"""The settings of a training run: one checked tree, every field with its meaning.

Reading a file, overriding on the command line and the wording of errors are in `config_file.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Direction = Literal["understanding", "generation"]
Objective = Literal["grpo", "simpo", "dpo", "expert"]


class Section(BaseModel):
    """Strict on purpose: `lr: "1e-4"` or a misspelt key is an error before any work is done."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Section):
    images: str = Field(description="folder of pictures (searched recursively); no labels needed")
    prompts: str = Field(description="text file, one prompt a line")
    heldout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="fraction of both kept from training, for the guard only"
    )


class ObjectiveSection(Section):
    name: Objective = Field(
        "grpo", description="grpo, simpo, dpo, or expert (fine-tune on the best of the group)"
    )
    kl: Annotated[float, Field(ge=0.0)] = Field(
        0.1, description="weight of the KL to the frozen start model (k3, per trained token)"
    )
    clip: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2, description="grpo: half-width of the ratio's clip range"
    )
    normalize: Literal["std", "mean", "none"] = Field(
        "std",
        description="grpo: divide centred rewards by the group's std, only centre, or neither",
    )
    beta: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="simpo, dpo: inverse temperature of the margin (null: 5 and 0.1)"
    )
    margin: Annotated[float, Field(ge=0.0)] = Field(0.5, description="simpo: target margin gamma")
    loss_type: str | None = Field(
        None,
        description="simpo, dpo: any loss_type of suder_ext.preference_loss (null: simpo, sigmoid)",
    )


class Optimizer(Section):
    lr: Annotated[float, Field(gt=0.0)] = Field(2e-4, description="AdamW's rate after warm-up")
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.95], description="AdamW's two decay rates"
    )
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(0.0, description="AdamW's weight decay")
    warmup_rounds: NonNegative = Field(10, description="rounds of linear warm-up")
    grad_clip: Annotated[float, Field(gt=0.0)] = Field(
        1.0, description="largest norm of the whole gradient, after balancing"
    )
    balance: bool = Field(
        True, description="scale both directions' gradients to one (smoothed) norm before adding"
    )
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.98,
        description="decay a round of the averaged weights that guard, checkpoints and result use",
    )
    steps: Positive = Field(1, description="optimiser steps on each round's samples")
    tokens_per_batch: Positive = Field(
        16384, description="most tokens (condition and target) in one forward: bounds the memory"
    )


class Sampling(Section):
    temperature: Annotated[float, Field(gt=0.0)] = Field(1.0, description="of both directions")
    top_k: NonNegative = Field(0, description="0: all")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(1.0, description="1: all")
    guidance: Annotated[float, Field(ge=1.0)] = Field(
        1.0, description="classifier-free guidance scale while drawing (1: none)"
    )
    policy: Literal["cond", "cfg"] = Field(
        "cond",
        description="whose log-probabilities are trained under guidance: the conditional model's "
        "(cond) or the guided mixture's that drew the picture (cfg, ratio 1)",
    )
    max_new_tokens: Positive = Field(32, description="longest caption")


class Reward(Section):
    scorer: Literal["live", "frozen", "random"] = Field(
        "live", description="live policy, frozen start model, or random numbers (a control)"
    )


class Guard(Section):
    enabled: bool = Field(True, description="watch held-out inputs and keep the best weights")
    every: Positive = Field(10, description="rounds between two looks")
    inputs: Positive = Field(96, description="held-out inputs of each direction a look uses")
    kl_limit: Annotated[float, Field(gt=0.0)] = Field(
        0.3, description="largest KL to the start, nats per image token, of weights worth keeping"
    )
    entropy_floor: Fraction = Field(
        0.2, description="collapse: a direction's entropy under this fraction of the start's"
    )
    patience: Positive = Field(
        3, description="looks in a row that fail before the run is stopped or rolled back"
    )
    action: Literal["stop", "rollback", "watch"] = Field(
        "stop",
        description="on decline: stop; roll back to the best weights at half the rate (then stop "
        "after max_rollbacks); or only watch and still end with the best weights",
    )
    max_rollbacks: NonNegative = Field(2, description="roll-backs before the run is stopped")


class Checkpoint(Section):
    every: Positive = Field(50, description="rounds between two checkpoints in the HF format")
    keep: Positive = Field(2, description="checkpoints kept, oldest deleted first")
    state_every: Positive = Field(
        1, description="rounds between two resumable states; raise it for big models"
    )
    keep_rounds: Positive = Field(20, description="rounds whose samples and rewards are kept")


class TrainConfig(Section):
    """Everything that decides a run's result, together with the inputs and the start model."""

    model: str = Field("shapes", description="folder or hub id in HF format; shapes: the embedded")
    output: str = Field(description="folder of the run, made new")
    data: Data
    rounds: Positive = Field(240, description="sample, score, select, optimise: that many times")
    inputs_per_round: Positive = Field(12, description="inputs of each direction a round (P)")
    candidates: Annotated[int, Field(ge=2)] = Field(8, description="samples an input (N)")
    directions: Literal["joint", "alternating", "generation", "understanding"] = Field(
        "joint", description="both each round, one each round in turn, or only one"
    )
    objective: ObjectiveSection = Field(default_factory=ObjectiveSection)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    sampling: Sampling = Field(default_factory=Sampling)
    reward: Reward = Field(default_factory=Reward)
    guard: Guard = Field(default_factory=Guard)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    seed: NonNegative = Field(0, description="everything random follows from it")
    device: str = Field("cpu", description="cpu, cuda, cuda:1, ...")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast; the trained weights stay float32"
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> TrainConfig:
        if self.guard.enabled and self.data.heldout == 0.0:
            raise ValueError("the guard needs held-out inputs: set data.heldout above 0")
        if self.objective.loss_type is not None and self.objective.name not in ("simpo", "dpo"):
            raise ValueError(f"objective.loss_type has no meaning for {self.objective.name}")
        return self

    def active(self, round_index: int) -> tuple[Direction, ...]:
        """The directions trained in round `round_index` (counted from 1)."""
        if self.directions == "joint":
            return ("understanding", "generation")
        if self.directions == "alternating":
            return ("understanding",) if round_index % 2 else ("generation",)
        return (self.directions,)
