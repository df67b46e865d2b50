"""What a run will hold in memory, phase by phase: run dry, before any of it is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from suder.inputs.data import FEW, read_inputs
from suder.inputs.texts import read_prompts
from suder.method.directions import active, held, trained
from suder.method.moments import check_moments, moment_bytes
from suder.models.away import products
from suder.models.base import DIRECTIONS, UnifiedModel
from suder.models.usable import check_device
from suder.models.weightless import weightless
from suder.rollouts.offline import Offline, fitted
from suder.run.dry_readings import read
from suder.run.dry_round import DryRound
from suder.run.live_bytes import peak_of
from suder.settings.config import TrainConfig
from suder.settings.learning import Lora


@dataclass(frozen=True)
class Plan:
    """Bytes of a run, or of each of its processes.

    Attributes:
        held: what is on the device all the time.
        phases: what comes on top while one phase runs; only one does at a time.
        host: what is in the host's memory instead (optimizer.offload, sampling.offload).
    """

    held: dict[str, int]
    phases: dict[str, int]
    host: int

    @property
    def total(self) -> int:
        return sum(self.held.values()) + max(self.phases.values())


def plan(config: TrainConfig, processes: int = 1) -> Plan:
    """Runs the phases of a round without weights, and counts.

    Tensors count as they are asked for; what an allocator keeps beyond that does not, nor what
    NCCL takes for itself.

    Args:
        processes: of the run; the largest share of the inputs is planned for.

    Raises:
        DataError: the prompts cannot be read. OSError, ValueError: the model cannot.
        ModuleNotFoundError: peft or torchao, which the settings ask for, is not installed.
    """
    inputs = -(-(config.inputs_per_round + config.data.replay) // processes)
    config = fitted(config).model_copy(update={"inputs_per_round": inputs})
    divided = processes if config.optimizer.shard else 1
    prompts = list(_prompts(config))
    longest = max(prompts, key=len, default="")
    watched = -(-_watched(config, len({*prompts})) // processes)
    check_device(config.device)
    check_moments(config.optimizer)
    compute = torch.bfloat16 if config.dtype == "bfloat16" else None
    asked = config.prompts.model_dump()
    scoring = _reward_model(config, compute)
    frozen = getattr(torch, config.lora.frozen_dtype)
    with weightless(config.model, compute, config.lora, frozen, **asked) as model:
        model.checkpoint_activations = config.optimizer.checkpoint_activations
        weights = sum(one.nbytes for one in model.state_dict().values())
        learnt = sum(one.nbytes for one in model.trainable_parameters())
        waiting = learnt * (len(active(config, 1)) - 1)  # the gradient of the other direction
        away = config.optimizer.offload
        dry = DryRound(config, model, longest, watched)
        copies, sent = _copies(config, dry, learnt, divided > 1)
        seen = DIRECTIONS if config.guard.enabled else trained(config)  # of candidates
        resting = {one for one in (held(config, 1), held(config, 2)) if one}
        learns = [dry.optimise(one) for one in trained(config)]
        optimise = max(learns + [dry.optimise(one, held=True) for one in resting])
        drawn = [dry.sample(one) for one in seen]
        drawn += [dry.sample(one, held=True) for one in resting]
        moments = moment_bytes(model.trainable_parameters(), config.optimizer) // divided
        if divided > 1:
            optimise += _gathered(model) - learnt + learnt // divided
            weights, learnt = weights - learnt + learnt // divided, learnt // divided
            waiting //= divided
        return Plan(
            held={
                "weights": weights,
                "reward model": scoring,
                "averaged weights": 0 if away else learnt,
                "Adam's moments": moments,
                **copies,
            },
            phases={
                "sample": max(drawn),
                "pictures": max(map(dry.pictures, {*seen, *(resting & {"understanding"})})),
                "score": max(read(dry, one) for one in seen),
                "optimise": optimise + (0 if away else waiting),
            },
            host=sent + (learnt + waiting if away else 0),
        )


def _prompts(config: TrainConfig) -> Iterable[str]:
    """Of all inputs, watched ones included."""
    if config.data.rollouts == config.data.prompts:
        return Offline.read(config).inputs("generation")
    if config.data.pairing:
        inputs = read_inputs(config.data, config.seed, config.guard.inputs)
        return inputs.prompts + inputs.watched_prompts
    return read_prompts(config.data.prompts).prompts


def _watched(config: TrainConfig, prompts: int) -> int:
    """Inputs of a look, as if there were as many pictures as prompts, which alone are read."""
    aside = round(config.data.heldout * prompts)
    found = aside if aside >= FEW else prompts
    return min(config.guard.inputs, max(1, found)) if config.guard.enabled else 0


def _copies(
    config: TrainConfig, dry: DryRound, learnt: int, divided: bool
) -> tuple[dict[str, int], int]:
    """The start model and what draws: bytes on the device by name, and those on the host instead.

    Args:
        learnt: bytes of the trained weights.
        divided: those are divided among processes, and copies of them are whole.
    """
    adapted, short = config.lora.rank > 0, dry.copy
    # Each name's bytes, and how many models of it keep their layers on the host where asked to.
    held: dict[str, tuple[int, int]]
    if divided and not adapted:
        narrow = learnt - short  # layers of 16 bits, where products are
        held = {
            "start model": (narrow, 1),
            "16-bit copies": (0, 0),
            "whole copy to draw with": (narrow, 1),
        }
    else:
        narrow_start = config.optimizer.start_dtype == "bfloat16" and not adapted
        start = 0 if adapted else learnt - short * narrow_start
        # The start model samples and scores for the guard, or scores for the round.
        asked = config.guard.enabled or config.reward.scorer == "frozen"
        count = 1 + (asked and not narrow_start)
        held = {
            "start model": (start, int(not adapted and (narrow_start or not short))),
            "16-bit copies": (short * count, count if short else 0),
            "whole copy to draw with": (learnt if divided else 0, 0),
        }
    layers = [_bytes(one) for _, one in products(dry.reader)] if config.sampling.offload else []
    left = {name: size - leaving * sum(layers) for name, (size, leaving) in held.items()}
    sent = sum(leaving for _, leaving in held.values()) * sum(layers)
    return left | {"a layer at work": max(layers) if sent else 0}, sent


def _bytes(layer: Any) -> int:
    return sum(one.nbytes for one in layer.parameters())


def _gathered(model: UnifiedModel) -> int:
    """What of divided weights is whole at once: all outside of layers, and two layers; and their
    gradients, before they are divided.
    """
    layers = [
        sum(one.nbytes for one in layer.parameters() if one.requires_grad)
        for layer in model.modules()
        if isinstance(layer, GradientCheckpointingLayer)
    ]
    outside = sum(one.nbytes for one in model.trainable_parameters()) - sum(layers)
    return 2 * outside + 3 * max(layers)


def _reward_model(config: TrainConfig, compute: torch.dtype | None) -> int:
    """Of another checkpoint that scores, and of the 16-bit copy that it reads by."""
    if not config.reward.model:
        return 0
    with weightless(config.reward.model, compute, Lora()) as model:
        size: int = sum(one.nbytes for one in model.state_dict().values())
        return size + (peak_of(lambda: model.inference_copy(compute)) if compute else 0)
