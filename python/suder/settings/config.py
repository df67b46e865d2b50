"""The settings of a training run: one checked tree, every field with its meaning.

Reading a file, overriding on the command line and the wording of errors are in `config_file.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from suder.settings.candidates import Reward, Sampling
from suder.settings.fields import LARGEST, NonNegative, PathText, Positive, Section, says
from suder.settings.given import Data, Prompts
from suder.settings.keeping import Checkpoint, Guard
from suder.settings.learning import ANCHOR, Lora, ObjectiveSection, Optimizer
from suder.settings.objective import check_objective
from suder.settings.reward import check_reward, what_is_computed


class TrainConfig(Section):
    """Everything that decides a run's result, together with the inputs and the start model."""

    model: Annotated[PathText, says("folder or hub name in HF format; shapes: the embedded")] = (
        "shapes"
    )
    output: Annotated[PathText, says("folder of the run, which is made")]
    data: Data
    prompts: Prompts = Prompts()
    rounds: Annotated[Positive, says("of sample, score, select, optimise")] = 240
    inputs_per_round: Annotated[Positive, says("inputs of each direction a round")] = 12
    candidates: Annotated[int, says("samples an input", ge=2, le=LARGEST)] = 8
    directions: Annotated[
        Literal["joint", "alternating", "generation", "understanding"],
        says("both in each round, one a round in turn, or only one"),
    ] = "joint"
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: Optimizer = Optimizer()
    lora: Lora = Lora()
    sampling: Sampling = Sampling()
    reward: Reward = Reward()
    guard: Guard = Guard()
    checkpoint: Checkpoint = Checkpoint()
    log_with: Annotated[
        list[str],
        says("trackers beside TensorBoard, by accelerate's names: wandb, mlflow, trackio, ..."),
    ] = []  # noqa: RUF012 (pydantic copies it)
    seed: Annotated[NonNegative, says("everything random follows from it")] = 0
    device: Annotated[str, says("cpu, cuda, cuda:1, ...")] = "cpu"
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        says("bfloat16: autocast; the trained weights stay float32"),
    ] = "float32"

    @model_validator(mode="after")
    def _sections_agree(self) -> TrainConfig:
        if self.guard.enabled and self.data.heldout == 0.0:
            raise ValueError("the guard needs inputs to watch: set data.heldout above 0")
        if self.optimizer.start_dtype == "bfloat16" and self.dtype != "bfloat16":
            raise ValueError(
                "optimizer.start_dtype bfloat16 with dtype float32 would find the start model "
                "changed before any training: set dtype to bfloat16, or leave start_dtype out"
            )
        if self.lora.frozen_dtype == "bfloat16" and not (
            self.lora.rank and self.dtype == "bfloat16"
        ):
            raise ValueError(
                "lora.frozen_dtype bfloat16 is for adapters (lora.rank above 0) and products in 16 "
                "bits (dtype bfloat16); without them leave it out"
            )
        check_reward(self.reward)
        if self.objective.anchor and self.directions == "joint":
            raise ValueError(
                "objective.anchor holds the direction that a round does not train, and joint "
                "rounds train both: objective.kl is their weight; leave objective.anchor out"
            )
        if self.objective.token_weight != "none" and self.directions == "understanding":
            raise ValueError(
                f"objective.token_weight {self.objective.token_weight} is of the tokens of "
                "pictures, and directions understanding draws none: leave it out"
            )
        if self.data.rollouts and (self.data.pairing or self.data.replay):
            name = "pairing" if self.data.pairing else "replay"
            raise ValueError(
                f"data.{name} chooses what a round samples, and with data.rollouts it samples "
                "nothing: leave one out"
            )
        if self.data.pairing and self.directions not in ("joint", "alternating"):
            raise ValueError(
                f"data.pairing is of both directions, and {self.directions} is trained alone: set "
                "directions to joint or alternating"
            )
        if self.reward.rescore and not self.data.rollouts:
            raise ValueError("reward.rescore is of data.rollouts: what a run samples it scores")
        if self.data.rollouts and not self.reward.rescore:
            told = what_is_computed(self.reward, self.objective.entropy_anchor)
            if told:
                raise ValueError(
                    f"{told} has nothing to score, for the rewards are those of data.rollouts: "
                    "leave it out, or set reward.rescore"
                )
        check_objective(self.objective)
        return self

    @property
    def anchor(self) -> float:
        """The weight of the KL on the direction that a round does not train."""
        if self.objective.anchor is not None:
            return self.objective.anchor
        return ANCHOR if self.directions in ("understanding", "generation") else 0.0
