"""A round without weights: the bytes that each of its phases asks for, at its largest call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from suder.engine.sampling import batches
from suder.method.anchor import everyone
from suder.method.blocks import Block, blocks
from suder.method.directions import trained
from suder.method.objectives import Trained, trained_candidates
from suder.method.passes import kl_between
from suder.method.rewards import DualReward
from suder.method.selection import select
from suder.models.base import DIRECTIONS, Condition, Direction, Hidden, UnifiedModel
from suder.run.live_bytes import peak_of
from suder.settings.config import TrainConfig
from suder.settings.objective import looks_at_start
from suder_ext import linear_logprob, linear_logprob_stats


class DryRound:
    """Of a model from `weightless`.

    Attributes:
        longest: the longest prompt; text: its tokens; caption: tokens of the longest caption.
        watched: inputs of each direction that the guard looks at; 0: it is off.
        reader: what draws and scores: the model's 16-bit copy, where there is one.
        copy: bytes of that copy; 0 where there is none.
    """

    def __init__(
        self, config: TrainConfig, model: UnifiedModel, longest: str, watched: int = 0
    ) -> None:
        self.config, self.model, self.longest, self.watched = config, model, longest, watched
        self.text = len(model.tokenize([longest])[0])
        self.caption = config.sampling.max_new_tokens or model.max_new_tokens
        compute = torch.bfloat16 if config.dtype == "bfloat16" else None
        self.reader, self.copy = model, 0
        if compute not in (None, model.dtype):
            made: list[UnifiedModel] = []
            self.copy = peak_of(lambda: made.append(model.inference_copy(compute)[0]))
            (self.reader,) = made

    def optimise(self, direction: Direction, held: bool = False) -> int:
        """Of a direction: its gradient, and what the largest block's forward keeps for it.

        Args:
            held: of the samples that hold it to the start while the other one is trained.
        """
        config, model = self.config, self.model
        guided = direction == "generation" and config.sampling.policy == "cfg"
        guidance = config.sampling.guidance if guided else 1.0
        if held:
            chosen = everyone(config.inputs_per_round, 1)
        else:
            with unset_fake_temporarily():  # the cut looks at numbers
                reward = torch.arange(float(config.inputs_per_round * config.candidates))
                selected = select(reward, config.candidates)
                chosen = trained_candidates(config.objective.name, selected, config.candidates)
        given, group = self.block(direction, chosen, guidance)
        looks, start = looks_at_start(config.objective), self.start

        def block() -> None:
            hidden = model(*given, group, guidance)
            loss = hidden.hidden.new_zeros((), dtype=torch.float32)
            if not held:
                stats = linear_logprob_stats(*_head(hidden))
                loss = stats.logprob.mean() + 0.0 * stats.entropy.mean()
            if held or any(looks):
                with torch.no_grad():
                    frozen = start(*given, group, guidance)
                    if not held and looks.at_tokens:
                        linear_logprob(*_head(frozen))
                if held or looks.at_all:
                    loss = loss + kl_between(hidden, frozen, 1.0).mean()
            loss.backward()

        model.zero_grad(set_to_none=True)
        return peak_of(block)

    def sizes(self, direction: Direction) -> list[tuple[int, int]]:
        """Inputs, and candidates of each, of a round and of the guard's looks."""
        config, found = self.config, []
        if direction in trained(config):
            found.append((config.inputs_per_round, config.candidates))
        if self.watched:
            found.append((self.watched, max(1, round(config.guard.samples / self.watched))))
        return found

    @property
    def start(self) -> UnifiedModel:
        """The start model as it is when it reads what was drawn."""
        return self.reader if self.config.optimizer.start_dtype == "bfloat16" else self.model

    def block(
        self, direction: Direction, chosen: Trained, guidance: float
    ) -> tuple[tuple[Direction, Condition, Any], int]:
        """What a model is given of the first block of these candidates, and their group."""
        config, model = self.config, self.model
        length = self.caption if direction == "understanding" else model.num_image_tokens

        def tokens_of(block: Block) -> int:
            rows, group = block.index.shape
            given = rows if direction == "understanding" else [self.longest] * rows
            return model.tokens_read(direction, given, [length] * rows * group, group, guidance)

        with unset_fake_temporarily():
            first = next(blocks(chosen, tokens_of, config, config.optimizer.tokens_per_batch))
        rows, group = first.index.shape
        targets = self.targets(direction, rows * group, self.caption)
        return (direction, self.condition(direction, rows), targets), group

    def pairs(self, direction: Direction) -> int:
        """Candidates of a direction that are scored at once, by the model running in the other."""
        (other,) = set(DIRECTIONS) - {direction}
        scorer = DualReward(self.model, tokens_per_batch=self.config.optimizer.tokens_per_batch)
        count = max(inputs * group for inputs, group in self.sizes(direction))
        seen = other == "understanding"
        length = self.text if seen else self.model.num_image_tokens
        asked = [] if seen else [self.longest] * count
        return len(next(scorer.batches(other, [length] * count, asked)).pairs)

    @torch.no_grad()
    def sample(self, direction: Direction, held: bool = False) -> int:
        """Of the candidates that are drawn at once: the prefixes, and room for all that follows."""
        sizes = [(self.config.inputs_per_round, 1)] if held else self.sizes(direction)
        return max(self._drawn_at_once(direction, *size) for size in sizes)

    def _drawn_at_once(self, direction: Direction, inputs: int, candidates: int) -> int:
        config = self.config
        rows, group = next(batches(inputs, candidates, config.sampling.batch_size))
        generation = direction == "generation"
        steps = self.model.num_image_tokens if generation else self.caption
        guidance = config.sampling.guidance if generation else 1.0
        condition = self.condition(direction, len(rows))

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

        Drawn ones need not come out where the model reads their tokens, but for the guard.
        """
        model, size = self.model, self.model.image_size
        most = model.pictures_at_once
        if direction == "generation":
            if model.reads_tokens and not self.config.guard.enabled:
                return 0
            pairs = 0 if model.reads_tokens else self.pairs("generation")
            if self.config.guard.enabled:  # which measures them
                pairs = max(pairs, self.config.guard.samples)
            count = max(2, min(most, pairs))
            tokens = torch.zeros(count, model.num_image_tokens, dtype=torch.int64)
            return peak_of(lambda: model.vq_decode(tokens))
        count = max(2, min(most, self.config.inputs_per_round))
        pixels = torch.zeros(count, 3, size, size)
        return peak_of(lambda: model.encode(pixels))

    def condition(self, direction: Direction, rows: int) -> Condition:
        if direction == "generation":
            return [self.longest] * rows
        size = self.model.image_size
        if self.model.reads_tokens:
            return torch.zeros(rows, self.model.num_image_tokens, dtype=torch.int64)
        return torch.zeros(rows, 3, size, size, dtype=self.model.dtype)

    def targets(self, direction: Direction, rows: int, length: int) -> Tensor | list[Tensor]:
        model = self.model
        if direction == "generation":
            return torch.zeros(rows, model.num_image_tokens, dtype=torch.int64)
        return [torch.zeros(length, dtype=torch.int64)] * rows


def _head(given: Hidden) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    return given.hidden, given.weight, given.target, given.bias
