"""Settings of candidates: how they are drawn and what they are ranked by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from suder.settings.fields import NonNegative, PathText, Positive, Section, says


def _off(value: object) -> object:
    return "off" if value is False else value  # what YAML makes of off


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
