"""Dual self-rewards: how likely the same model, run the other way, finds the input again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from suder.engine.weights import to_sample_with
from suder.method import pairs
from suder.method.pairs import (
    PAIRS_AT_ONCE,
    Batch,
    Shown,
    are_tokens,
    check_group,
    distinct,
    places,
)
from suder.models.base import (
    Condition,
    Direction,
    NotFinite,
    Targets,
    UnifiedModel,
    inference,
    name_of,
)
from suder_ext import linear_sequence_logprob


class DualReward:
    """Scores candidates by the model itself (SUDER, arXiv 2506.07963).

    R_U(caption | image) = mean over the image's VQ tokens of log p(token | caption, earlier ones)
    R_G(image | prompt) = mean over the prompt's tokens of log p(token | image, earlier ones)

    NaN stands where there is none: of an empty text, of one that does not fit the model's positions
    together with a picture, and where the model gives numbers that are not finite. What that means
    for a whole batch is for the caller to say; see `check_rewards`.

    Several prompts for one picture read it once. A round's candidates have nothing to share but the
    template's first words: each is a condition of its own, the input is scored after it, and in a
    causal model nothing that follows a candidate is the same for two. Equal captions of different
    pictures could share a dozen tokens before hundreds, which saves less than the longer rows cost,
    and pictures drawn alike for different prompts are too few to make rows of their own for.

    Products in 16 bits read the copy of the weights that the sampler reads: the bits of autocast,
    which would convert every matrix again for each batch. Adapters are merged in it, which rounds
    their sum where autocast rounds the parts.

    Args:
        model: an adapter from `load_model`.
        scorer: "live": the model as it is when a reward is asked for. "frozen": as it was when this
            object was made; where PEFT adapters are present, the base model under them (no copy).
        batch_size: most pairs scored in one pass.
        tokens_per_batch: most tokens in one pass, conditions included, but at least one pair's;
            None: as many as `batch_size` pairs have.
        include_eos: R_G also scores the end of the prompt, so that a picture showing more than was
            asked for scores less than one showing just that.
        reduction: "mean" over the target's tokens, as in the paper, or their "sum", whose scale is
            the target's length: inside a group, where the target is one, both rank alike.
    """

    def __init__(
        self,
        model: UnifiedModel,
        scorer: Literal["live", "frozen"] = "live",
        batch_size: int = PAIRS_AT_ONCE,
        include_eos: bool = True,
        tokens_per_batch: int | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        if scorer not in ("live", "frozen"):
            raise ValueError(f"scorer: takes 'live' or 'frozen', got {scorer!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size: takes an integer from 1, got {batch_size}")
        self.scorer = scorer
        self.batch_size = batch_size
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: takes 'mean' or 'sum', got {reduction!r}")
        self.include_eos = include_eos
        self.reduction = reduction
        self.tokens_per_batch = tokens_per_batch
        self._adapters_off = scorer == "frozen" and model.has_adapters()
        copied = scorer == "frozen" and not self._adapters_off
        self.model = model.frozen_copy() if copied else model

    def understanding(
        self, images: Any, captions: Sequence[str] | Sequence[Tensor], group: int = 1
    ) -> Tensor:
        """R_U of captions of images, float32 `[len(captions)]`; NaN where there is none.

        Args:
            images: PIL pictures or uint8 arrays, which are encoded, or int64 VQ tokens `[B, I]`,
                which are scored as they are.
            captions: texts, or their token ids.
            group: consecutive captions that share one image; `images` may then hold one for each
                group, or one for each caption.
        """
        model = self.model
        texts = _texts(model, captions)
        check_group("captions", len(texts), group)
        with self._scoring() as reader:
            tokens = self._image_tokens(images, len(texts), group)
            which = places("images", len(tokens), "captions", len(texts), group)
            codes = [row.numpy().tobytes() for row in tokens.cpu()]
            spoken = [i for i, text in enumerate(texts) if _has_reward(model, "generation", text)]
            keys = [(texts[i], codes[which[i]]) for i in spoken]
            unique, place = distinct(keys)
            wanted = [spoken[i] for i in unique]

            def inputs(batch: Batch) -> tuple[Condition, Targets]:
                chosen = [wanted[i] for i in batch.pairs]
                return [texts[i] for i in chosen], tokens[[which[i] for i in chosen]]

            lengths = [model.num_image_tokens] * len(wanted)
            batches = self.batches("generation", lengths, prompts=[texts[i] for i in wanted])
            scored = self._score(reader, "generation", batches, inputs)
        reward = torch.full((len(texts),), torch.nan, device=model.device)
        reward[spoken] = scored[place]
        return reward

    def generation(self, prompts: Sequence[str], images: Any, group: int = 1) -> Tensor:
        """R_G of images drawn for prompts, float32 `[len(images)]`; NaN where there is none.

        Args:
            prompts: texts.
            images: PIL pictures or uint8 arrays, or int64 VQ tokens `[B, I]`, which are decoded,
                unless the model reads them as they are.
            group: consecutive images that share one prompt; `prompts` may then hold one for each
                group, or one for each image.
        """
        model = self.model
        count = len(images)
        check_group("images", count, group)
        which = places("prompts", len(prompts), "images", count, group)
        with self._scoring() as reader:
            shown = Shown(model, images)
            texts = [prompt.strip() for prompt in prompts]
            fit = [_has_reward(model, "understanding", text) for text in texts]
            asked = [i for i in range(count) if fit[which[i]]]
            keys = [(texts[which[i]], shown.codes[i]) for i in asked]
            unique, place = distinct(keys)
            wanted = [keys[i] for i in unique]
            targets = model.tokenize([text for text, _ in wanted])
            if not self.include_eos:
                targets = [ids[:-1] for ids in targets]

            def inputs(batch: Batch) -> tuple[Condition, Targets]:
                codes = [wanted[i][1] for i in batch.pairs[:: batch.group]]
                return shown.read(codes), [targets[i] for i in batch.pairs]

            lengths = [len(ids) for ids in targets]
            seen = () if shown.drawn else [code for _, code in wanted]
            batches = self.batches("understanding", lengths, seen=seen)
            scored = self._score(reader, "understanding", batches, inputs)
        reward = torch.full((count,), torch.nan, device=model.device)
        reward[asked] = scored[place]
        return reward

    def _score(
        self, reader: UnifiedModel, direction: Direction, batches: Iterable[Batch], inputs: Any
    ) -> Tensor:
        """log p of each pair's target, mean or sum, in batches that are all pairs together."""
        order: list[int] = []
        parts: list[Tensor] = [torch.zeros(0, device=self.model.device)]
        for batch in batches:
            condition, targets = inputs(batch)
            found = reader(direction, condition, targets, batch.group)
            hidden, target, cu_seqlens, weight, bias = found
            order += batch.pairs
            logprob = linear_sequence_logprob(
                hidden, weight, target, cu_seqlens, bias, reduction=self.reduction
            )
            parts.append(logprob.float())
        in_order = torch.cat(parts)
        scored = torch.empty_like(in_order)
        scored[order] = in_order
        return scored.masked_fill_(~scored.isfinite(), torch.nan)

    def batches(
        self,
        direction: Direction,
        lengths: Sequence[int],
        prompts: Sequence[str] = (),
        seen: Sequence[Hashable] = (),
    ) -> Iterator[Batch]:
        """Pairs that may be read at once, the shortest first.

        Args:
            direction: that the model runs in.
            lengths: of each pair's target.
            prompts: of each pair, where those are the conditions.
            seen: of each pair, its picture, where equal ones are to be read once.
        """

        def tokens(groups: Sequence[Sequence[int]]) -> int:
            flat = [i for group in groups for i in group]
            condition = [prompts[group[0]] for group in groups] if prompts else len(groups)
            targets = [lengths[i] for i in flat]
            return self.model.tokens_read(direction, condition, targets, len(groups[0]))

        def size(group: list[int]) -> int:
            # Of pictures all prefixes are as long.
            return tokens([group]) if prompts else sum(lengths[i] for i in group)

        return pairs.batches(
            len(lengths), tokens, size, self.batch_size, self.tokens_per_batch, seen
        )

    def _image_tokens(self, images: Any, count: int, group: int) -> Tensor:
        if are_tokens(images):
            tokens: Tensor = images.to(self.model.device)
            return tokens
        if group > 1 and len(images) == count:
            images = images[::group]
        parts = range(0, len(images), self.batch_size)
        encoded = [
            self.model.encode(self.model.pixels(images[i : i + self.batch_size])) for i in parts
        ]
        return torch.cat(encoded) if encoded else torch.zeros(0, self.model.num_image_tokens).long()

    @contextmanager
    def _scoring(self) -> Iterator[UnifiedModel]:
        """The model to score with; pictures and texts are as the model itself takes them."""
        off = self.model.without_adapters() if self._adapters_off else nullcontext()
        with inference(self.model), off:
            yield to_sample_with(self.model)


def check_rewards(
    model: UnifiedModel, direction: Direction, texts: Sequence[str], reward: Tensor
) -> None:
    """A reward that is not finite is a candidate left out. Where all are, it is the model.

    Args:
        model: that gave the rewards.
        direction: of the candidates, which the model ran the other way.
        texts: that were scored, or of which pictures were.
        reward: `[B]`.

    Raises:
        NotFinite: texts had a reward to get, and there is none.
    """
    if reward.isfinite().any():
        return
    other: Direction = "generation" if direction == "understanding" else "understanding"
    asked = [text for text in texts if _has_reward(model, other, text)]
    if asked:
        raise NotFinite(
            f"rewards ({direction}): none of {len(reward)} is finite, by {name_of(model)} running "
            f"{other}, the first of {asked[0][:60]!r}; its weights hold NaN or infinity, or "
            "overflow in this dtype"
        )


def _has_reward(model: UnifiedModel, direction: Direction, text: str) -> bool:
    return bool(text.strip()) and not model.too_long(direction, text)


def _texts(model: UnifiedModel, captions: Sequence[str] | Sequence[Tensor]) -> list[str]:
    ids = [caption for caption in captions if isinstance(caption, Tensor)]
    if not ids:
        return [str(caption).strip() for caption in captions]
    if len(ids) != len(captions):
        raise TypeError("captions: takes strings or id tensors, got both")
    return model.detokenize(ids)
