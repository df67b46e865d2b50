"""The settings of a training run: one checked tree, every field with its meaning.

Reading a file, overriding on the command line and the wording of errors are in `config_file.py`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from suder.settings.objective import check_objective
from suder.settings.reward import check_reward, what_is_computed
from suder_ext.types import LossType

LARGEST = 2**63 - 1
ANCHOR = 0.3  # of single directions, where objective.anchor is null
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


def _off(value: object) -> object:
    return "off" if value is False else value  # what YAML makes of off


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
    rollouts: Annotated[
        PathText | None,
        says(
            "Parquet file of rollouts, or folder of such: a run learns from them, and samples "
            "nothing but the guard's looks. images and prompts may be left out: theirs are taken"
        ),
    ] = None
    pairing: Annotated[
        bool,
        says(
            "prompts are the pictures' own texts, x.txt beside x.png or {file_name, text} in a "
            "metadata.jsonl, and a round has captions of a picture and drawings of its text; "
            "prompts may be left out, or name such a file of JSON lines"
        ),
    ] = False
    replay: Annotated[
        NonNegative,
        says(
            "inputs of each direction, at most, that a round takes up again besides its own, of "
            "those whose candidates were all dropped or all of one reward; 0: none"
        ),
    ] = 0

    @model_validator(mode="before")
    @classmethod
    def _taken(cls, tree: Any) -> Any:
        """Inputs that nobody names: those of the rollouts, or the pictures' own texts."""
        if isinstance(tree, dict) and isinstance(tree.get("rollouts"), str):
            return {"images": tree["rollouts"], "prompts": tree["rollouts"]} | tree
        if isinstance(tree, dict) and tree.get("pairing") is True and "images" in tree:
            return {"prompts": tree["images"]} | tree
        return tree


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
    reduction: Annotated[
        Literal["mean", "sum"],
        says(
            "of a target's log-probabilities to a dual reward; sum: longer prompts count for more, "
            "pictures all have as many tokens"
        ),
    ] = "mean"
    include_eos: Annotated[
        bool,
        says(
            "the prompt's end is scored, too, so that a picture showing more than was asked for "
            "scores less"
        ),
    ] = True
    judge: Annotated[
        Annotated[Literal["off", "alone", "gate", "sum"], BeforeValidator(_off)],
        says(
            "p(yes) / (p(yes) + p(no)) of the model's own answer to prompts.judge, in place of the "
            "dual reward (alone), to drop candidates under 0.5 (gate), or added to it inside each "
            "group, z(R) + judge_weight z(J) (sum); by the model that gives the rewards"
        ),
    ] = "off"
    judge_weight: Annotated[float, says("of judge: sum", gt=0)] = 1.0
    external: Annotated[
        Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None,
        says(
            "module:function, any Python callable of pictures and texts (docs/rewards.md), which "
            "is imported and run: it is the reward, or added to it"
        ),
    ] = None
    external_weight: Annotated[
        float | None,
        says("z(R) + external_weight z(external) inside each group; null: external alone"),
    ] = None
    rescore: Annotated[
        bool, says("of data.rollouts: score them anew, and not take the rewards that they tell")
    ] = False
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
    rollouts: Annotated[
        Literal["parquet"] | None,
        says(
            "parquet: each round's candidates, rewards and log-probabilities as a file in "
            "rollouts/, all kept (pip install 'suder[parquet]'; docs/rollouts.md); null: no"
        ),
    ] = None


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
