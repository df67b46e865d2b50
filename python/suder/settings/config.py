"""The settings of a training run: one checked tree, every field with its meaning.

Reading a file, overriding on the command line and the wording of errors are in `config_file.py`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from suder.settings.objective import check_objective
from suder_ext.types import LossType

LARGEST = 2**63 - 1
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
NonNegative = Annotated[int, Field(ge=0, le=LARGEST)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def says(meaning: str, **limits: Any) -> Any:
    """A field's meaning, shown by `suder train --help-config`, and the limits of its value."""
    return Field(description=meaning, **limits)


# `~` is the home folder, in a file as in a shell.
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


def _asks_about_a_text(question: str) -> str:
    if question.count("{text}") != 1:
        raise ValueError(f"takes a question with {{text}} in it once, got {question!r}")
    return question


class Section(BaseModel):
    """Strict on purpose: `lr: "1e-4"` or a misspelt key is an error before any work is done."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Section):
    images: Annotated[PathText, says("folder of pictures, searched recursively; no labels needed")]
    prompts: Annotated[PathText, says("text file, one prompt a line")]
    follow_links: Annotated[
        bool, says("read symbolic links that lead out of the folder of pictures, too")
    ] = False
    heldout: Annotated[
        float,
        says(
            "fraction of both kept from training, for the guard to watch; where that is fewer "
            "than 8 different ones, all are trained on and all are watched",
            ge=0,
            lt=1,
        ),
    ] = 0.1


class Prompts(Section):
    """Keyword arguments of a model's adapter. Null is the model's own, as its adapter tells it."""

    question: Annotated[
        str | None,
        says('what is asked about a picture; null: the model\'s own, "Describe the image."'),
    ] = None
    system_prompt: Annotated[
        str | None,
        says(
            "what stands before the question; null: what the checkpoint's processor puts there "
            '(the published Janus-Pro have a default system prompt); "": nothing'
        ),
    ] = None
    null_prompt: Annotated[
        str | None,
        says(
            "guidance's unconditional prompt. Janus: padded, each prompt with padding for its "
            "words, as it was trained, or fixed, the same for all, which does not tell the "
            "prompt's length; Emu3, Liquid: any text, such as what is not wanted; null: the "
            "model's own, padded for Janus"
        ),
    ] = None
    judge: Annotated[
        Annotated[str, AfterValidator(_asks_about_a_text)] | None,
        says(
            "what is asked about a picture and a text, {text}, to be answered by yes or no "
            "(suder.SelfJudge); null: the family's, for Janus \"Does this picture show {text}? "
            'Answer yes or no."'
        ),
    ] = None
    image_size: Annotated[
        Positive | None,
        says(
            "side of a picture in pixels, of a model that draws in any size (Emu3, Liquid), which "
            "then is saved with it; null: the model's own"
        ),
    ] = None


class ObjectiveSection(Section):
    name: Annotated[
        Literal["grpo", "simpo", "dpo", "expert"],
        says("grpo, simpo, dpo, or expert: fine-tune on the best of each group"),
    ] = "grpo"
    kl: Annotated[
        float, says("weight of the KL to the frozen start model, k3 per trained token", ge=0)
    ] = 0.1
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
    ] = [0.9, 0.95]
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
    ] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Sampling(Section):
    temperature: Annotated[float, says("of both directions", gt=0)] = 1.0
    top_k: Annotated[NonNegative, says("only the k most likely tokens; 0: all")] = 0
    top_p: Annotated[float, says("only tokens that hold this probability", gt=0, le=1)] = 1.0
    guidance: Annotated[
        float, says("classifier-free guidance scale while drawing; 1: none", ge=1)
    ] = 1.0
    batch_size: Annotated[
        Positive,
        says("candidates drawn at once: bounds the memory of their keys and values"),
    ] = 256
    offload: Annotated[
        bool,
        says(
            "copies to draw and score with keep their layers in the host's memory: those of "
            "optimizer.shard, 16-bit ones, the start model's of the dtype it reads by. Slower: "
            "each token carries all layers to the GPU (13 GB of a 7B in 16 bits, half a second "
            "at 25 GB/s), so raise batch_size. Not yet run on a GPU"
        ),
    ] = False
    policy: Annotated[
        Literal["cond", "cfg"],
        says("under guidance, train the conditional model, or the guided mixture that drew"),
    ] = "cond"
    max_new_tokens: Annotated[
        Positive | None,
        says(
            "longest caption, its end included; null: by the model's generation_config.json, and "
            "512 where that names none, as in DeepSeek's own code (Janus-Pro's captions are long: "
            "of 32 tokens nearly all would be cut off)"
        ),
    ] = None


class Reward(Section):
    scorer: Annotated[
        Literal["live", "frozen", "random"],
        says("the policy, the frozen start model, or random numbers (a control)"),
    ] = "live"
    model: Annotated[
        PathText | None,
        says(
            "folder or hub name of another checkpoint that scores instead, frozen, and that the "
            "guard's rewards are of; of the same tokens, as Emu3-Chat of Emu3-Gen's; null: none"
        ),
    ] = None
    cut_captions: Annotated[
        Literal["drop", "keep"],
        says(
            "a caption that max_new_tokens cut off is no candidate (neither best nor worst, no "
            "advantage): what it lacks, its end, would never be learnt; or it is one like others"
        ),
    ] = "drop"


class Guard(Section):
    enabled: Annotated[bool, says("watch inputs set aside and keep the best weights")] = True
    every: Annotated[Positive, says("rounds between two looks")] = 20
    inputs: Annotated[
        int, says("inputs of each direction that a look uses, at most", ge=2, le=LARGEST)
    ] = 96
    samples: Annotated[
        Positive, says("candidates a look draws in each direction, spread over its inputs")
    ] = 384
    false_keep: Annotated[
        float,
        says(
            "chance, over all looks of a run, of keeping weights that the start model likes no "
            "better than itself",
            gt=0,
            lt=1,
        ),
    ] = 0.05
    false_stop: Annotated[
        float,
        says(
            "chance, over all looks of a run and all that is watched, of calling weights no worse "
            "than the start's declining",
            gt=0,
            lt=1,
        ),
    ] = 0.05
    loss_limit: Annotated[
        float,
        says(
            "a direction whose reward is lower than the start's by more than this part of its "
            "standard deviation over the start's samples is not kept",
            ge=0,
        ),
    ] = 0.04
    drift_limit: Annotated[
        float,
        says(
            "nor is a statistic of pictures or captions (dark, saturated, edges, colours, length, "
            "words, cut_off, denied) that moved by more than this part of its own; distinct: four "
            "times as far",
            gt=0,
        ),
    ] = 0.5
    kl_limit: Annotated[
        float, says("largest KL to the start, nats per image token, worth keeping", gt=0)
    ] = 0.3
    idle_kl_limit: Annotated[
        float,
        says(
            "the same of a direction that is not trained, nats per token: nothing pays for it", gt=0
        ),
    ] = 0.01
    entropy_floor: Annotated[
        Fraction, says("collapse: entropy under this fraction of the start's")
    ] = 0.2
    patience: Annotated[Positive, says("declining looks in a row before it acts")] = 2
    action: Annotated[
        Literal["stop", "rollback", "watch"],
        says("stop; go back to the best weights at half the rate; or only keep the best"),
    ] = "stop"
    max_rollbacks: Annotated[NonNegative, says("then it stops")] = 2


class Checkpoint(Section):
    every: Annotated[Positive, says("rounds between two checkpoints in the HF format")] = 50
    keep: Annotated[Positive, says("checkpoints kept")] = 2
    state_every: Annotated[
        Positive, says("rounds between two resumable states; raise it for big models")
    ] = 1
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        says("of the models that are saved; null: that of the start model's checkpoint"),
    ] = None
    keep_rounds: Annotated[Positive, says("rounds whose samples and rewards are kept")] = 20


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
    ] = []
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
        if self.reward.model and self.reward.scorer != "live":
            raise ValueError(
                f"reward.model scores itself, frozen: leave reward.scorer {self.reward.scorer} out"
            )
        check_objective(self.objective)
        return self
