"""What a run will hold in memory, phase by phase: run dry, before any of it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers.modeling_layers import GradientCheckpointingLayer

from suder.engine.sampling import batches
from suder.inputs.texts import read_prompts
from suder.method.blocks import Block, blocks
from suder.method.directions import active, trained
from suder.method.moments import check_moments, moment_bytes
from suder.method.objectives import trained_candidates
from suder.method.rewards import DualReward
from suder.method.selection import select
from suder.models.away import products
from suder.models.base import DIRECTIONS, Condition, Direction, UnifiedModel
from suder.models.usable import check_device
from suder.models.weightless import weightless
from suder.run.live_bytes import peak_of
from suder.settings.config import Lora, TrainConfig
from suder.settings.objective import preference_of
from suder_ext import linear_logprob, linear_logprob_stats


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
    inputs = -(-config.inputs_per_round // processes)
    config = config.model_copy(update={"inputs_per_round": inputs})
    divided = processes if config.optimizer.shard else 1
    longest = max(read_prompts(config.data.prompts).prompts, key=len, default="")
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
        dry = _Round(config, model, longest)
        copied = compute if compute != model.dtype else None
        short = peak_of(lambda: model.inference_copy(copied)) if copied else 0
        narrow_start = config.optimizer.start_dtype == "bfloat16" and not config.lora.rank
        # The start model samples and scores for the guard, or scores for the round.
        copies = 2 if config.guard.enabled or config.reward.scorer == "frozen" else 1
        optimise = max(map(dry.optimise, trained(config)))
        seen = DIRECTIONS if config.guard.enabled else trained(config)  # of candidates
        start = 0 if config.lora.rank else learnt - short * narrow_start
        narrow = short * (copies - (copies == 2 and narrow_start))
        whole = 0  # copies, where the weights are divided
        if divided > 1:
            start = 0 if config.lora.rank else learnt
            if compute and not config.lora.rank:
                start, narrow = learnt - short, 0  # both copies have layers of 16 bits
            whole = start or learnt
            optimise += _gathered(model) - learnt + learnt // divided
            weights, learnt = weights - learnt + learnt // divided, learnt // divided
            waiting //= divided
        sent = coming = 0
        if config.sampling.offload:
            layers = [_bytes(one) for _, one in products(dry.reader)]
            of_start = bool(start and (divided > 1 or narrow_start or not compute))
            of_whole = bool(whole and not config.lora.rank)
            of_narrow = narrow // short if short else 0
            start, whole = start - of_start * sum(layers), whole - of_whole * sum(layers)
            narrow -= of_narrow * sum(layers)
            sent = (of_start + of_whole + of_narrow) * sum(layers)
            coming = max(layers) if sent else 0
        return Plan(
            held={
                "weights": weights,
                "reward model": scoring,
                "start model": start,
                "averaged weights": 0 if away else learnt,
                "Adam's moments": moment_bytes(model.trainable_parameters(), config.optimizer)
                // divided,
                "16-bit copies": narrow,
                "whole copy to draw with": whole,
                "a layer at work": coming,
            },
            phases={
                "sample": max(map(dry.sample, seen)),
                "pictures": max(map(dry.pictures, seen)),
                "score": max(map(dry.score, seen)),
                "optimise": optimise + (0 if away else waiting),
            },
            host=sent + (learnt + waiting if away else 0),
        )


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
        size = sum(one.nbytes for one in model.state_dict().values())
        return size + (peak_of(lambda: model.inference_copy(compute)) if compute else 0)


class _Round:
    """The largest call of each phase; `longest` is the longest prompt."""

    def __init__(self, config: TrainConfig, model: UnifiedModel, longest: str) -> None:
        self.config, self.model, self.longest = config, model, longest
        self.text = len(model.tokenize([longest])[0])
        self.caption = config.sampling.max_new_tokens or model.max_new_tokens
        compute = torch.bfloat16 if config.dtype == "bfloat16" else None
        copied = compute if compute != model.dtype else None
        self.reader = model.inference_copy(copied)[0] if copied else model

    def optimise(self, direction: Direction) -> int:
        """Of a direction: its gradient, and what the largest block's forward keeps for it."""
        config, model = self.config, self.model
        target = self.caption
        guided = direction == "generation" and config.sampling.policy == "cfg"
        guidance = config.sampling.guidance if guided else 1.0
        length = target if direction == "understanding" else model.num_image_tokens

        def tokens_of(block: Block) -> int:
            rows, group = block.index.shape
            given = rows if direction == "understanding" else [self.longest] * rows
            return model.tokens_read(direction, given, [length] * rows * group, group, guidance)

        rows, group = self._block(tokens_of)
        given = (
            direction,
            self._condition(direction, rows),
            self._targets(direction, rows * group, target),
        )
        preference = preference_of(config.objective)
        with_start = config.objective.kl > 0 or bool(preference and preference.with_reference)
        start = self.reader if config.optimizer.start_dtype == "bfloat16" else model

        def block() -> None:
            hidden = model(*given, group, guidance)
            stats = linear_logprob_stats(hidden.hidden, hidden.weight, hidden.target, hidden.bias)
            if with_start:
                with torch.no_grad():
                    frozen = start(*given, group, guidance)
                    linear_logprob(frozen.hidden, frozen.weight, frozen.target, frozen.bias)
            (stats.logprob.mean() + 0.0 * stats.entropy.mean()).backward()

        model.zero_grad(set_to_none=True)
        return peak_of(block)

    @torch.no_grad()
    def score(self, direction: Direction) -> int:
        """Of the pairs that are read at once, by the model running the other way."""
        (other,) = set(DIRECTIONS) - {direction}
        pairs = self._pairs(other)
        given = self._condition(other, pairs), self._targets(other, pairs, self.text)
        return peak_of(lambda: self.reader(other, *given))

    def _block(self, tokens_of: Callable[[Block], int]) -> tuple[int, int]:
        """Inputs, and candidates of each, of the first block of a round that drops none."""
        config, candidates = self.config, self.config.candidates
        with unset_fake_temporarily():  # the cut looks at numbers
            reward = torch.arange(float(config.inputs_per_round * candidates))
            chosen = trained_candidates(
                config.objective.name, select(reward, candidates), candidates
            )
            first = next(blocks(chosen, tokens_of, config, config.optimizer.tokens_per_batch))
        rows, group = first.index.shape
        return rows, group

    def _pairs(self, other: Direction) -> int:
        """That are scored at once, by the model running in this direction."""
        scorer = DualReward(self.model, tokens_per_batch=self.config.optimizer.tokens_per_batch)
        count = self.config.inputs_per_round * self.config.candidates
        seen = other == "understanding"
        length = self.text if seen else self.model.num_image_tokens
        asked = [] if seen else [self.longest] * count
        return len(next(scorer.batches(other, [length] * count, asked)).pairs)

    @torch.no_grad()
    def sample(self, direction: Direction) -> int:
        """Of the candidates that are drawn at once: the prefixes, and room for all that follows."""
        config = self.config
        size = config.sampling.batch_size
        inputs, group = next(batches(config.inputs_per_round, config.candidates, size))
        generation = direction == "generation"
        steps = self.model.num_image_tokens if generation else self.caption
        guidance = config.sampling.guidance if generation else 1.0
        condition = self._condition(direction, len(inputs))

        kept: list[int] = []

        def drawn_at_once() -> Any:
            decoding = self.reader.start(direction, condition, group, steps, guidance)
            decoding.make_room()
            kept.append(sum(one.nbytes for one in decoding.tensors() if one.ndim == 4))
            return decoding

        peak = peak_of(drawn_at_once)
        # Keys and values, which a processor keeps in 32 bits where it rounds them to 16.
        on_gpu = torch.device(config.device).type == "cuda" and config.dtype == "bfloat16"
        return peak - kept[0] // 2 if on_gpu else peak

    @torch.no_grad()
    def pictures(self, direction: Direction) -> int:
        """Of those that go through the VQ model at once: captioned ones in, drawn ones out.

        Drawn ones need not come out where the model reads their tokens.
        """
        model, size = self.model, self.model.image_size
        most = model.pictures_at_once
        if direction == "generation":
            if model.reads_tokens:
                return 0
            count = max(2, min(most, self._pairs("understanding")))
            tokens = torch.zeros(count, model.num_image_tokens, dtype=torch.int64)
            return peak_of(lambda: model.vq_decode(tokens))
        count = max(2, min(most, self.config.inputs_per_round))
        pixels = torch.zeros(count, 3, size, size)
        return peak_of(lambda: model.encode(pixels))

    def _condition(self, direction: Direction, rows: int) -> Condition:
        if direction == "generation":
            return [self.longest] * rows
        size = self.model.image_size
        if self.model.reads_tokens:
            return torch.zeros(rows, self.model.num_image_tokens, dtype=torch.int64)
        return torch.zeros(rows, 3, size, size, dtype=self.model.dtype)

    def _targets(self, direction: Direction, rows: int, length: int) -> Tensor | list[Tensor]:
        model = self.model
        if direction == "generation":
            return torch.zeros(rows, model.num_image_tokens, dtype=torch.int64)
        return [torch.zeros(length, dtype=torch.int64)] * rows
