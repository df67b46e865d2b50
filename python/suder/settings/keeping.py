"""Settings of what watches a run, and of what it keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from suder.settings.fields import LARGEST, Fraction, NonNegative, Positive, Section, says


class Guard(Section):
    enabled: Annotated[bool, says("watch inputs set aside and keep the best weights")] = True
    every: Annotated[Positive, says("rounds between two looks")] = 20
    inputs: Annotated[
        int, says("inputs of each direction that a look uses, at most", ge=2, le=LARGEST)
    ] = 128
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
