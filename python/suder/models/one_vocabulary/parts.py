"""The parts of a model of one vocabulary that each direction uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from suder.models.base import Direction
from suder.models.decoder.parts import check_language_model, check_tokenizer, plain_layer


class VocabularyParts:
    """A view of a transformers model; cheap to make, holds nothing of its own.

    Args:
        core: with `lm_head`.
        language_model: its decoder.
        vqmodel: see `decoder.parts.Parts`.
        images: ids of the VQ tokens in the vocabulary, in the order of the codebook.
        row, row_end: after so many VQ tokens follows this id; 0: none does.
    """

    def __init__(
        self,
        core: Any,
        language_model: Any,
        vqmodel: Any,
        images: range,
        row: int = 0,
        row_end: int = 0,
    ) -> None:
        self.core = core
        self.language_model = language_model
        self.vqmodel = vqmodel
        self.images = images
        self.image_vocab_size = len(images)
        self.row, self.row_end = row, row_end

    def text_embedding(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.core.get_input_embeddings()(ids)
        return embedded

    def image_embedding(self, tokens: Tensor) -> Tensor:
        return self.text_embedding(self.image_ids(tokens))

    def image_ids(self, tokens: Tensor) -> Tensor:
        """Of VQ tokens; `image_vocab_size` stands for the end of a row."""
        ids = tokens + self.images.start
        return ids.masked_fill(tokens == len(self.images), self.row_end) if self.row else ids

    def picture_ids(self, tokens: Tensor) -> Tensor:
        """`[C, P]` of VQ tokens `[C, I]`, the end of every row put in."""
        if not self.row:
            return self.image_ids(tokens)
        lines = tokens.unflatten(1, (-1, self.row))
        return self.image_ids(F.pad(lines, (0, 1), value=len(self.images)).flatten(1))

    def target_embedding(self, direction: Direction) -> Callable[[Tensor], Tensor]:
        return self.text_embedding if direction == "understanding" else self.image_embedding

    def before_head(self, direction: Direction) -> Callable[[Tensor], Tensor]:
        return nn.Identity()

    def last_layer(self, direction: Direction) -> tuple[Tensor, Tensor | None]:
        last = plain_layer(self.core.lm_head, direction)
        images = self.images
        first, end = (
            (0, images.start) if direction == "understanding" else (images.start, images.stop)
        )
        return last.weight[first:end], None if last.bias is None else last.bias[first:end]

    def check(self, tokenizer: Any, eos: int) -> None:
        """Raises ValueError where model and tokenizer cannot work together."""
        check_language_model(self.language_model)
        rows = len(self.core.get_input_embeddings().weight)
        check_tokenizer(tokenizer, rows)
        first, end = self.images.start, self.images.stop
        if not self.images or end > rows:
            raise ValueError(f"model: its VQ tokens would be {first} to {end}, of {rows} in all")
        if len(tokenizer) > end or eos >= first:
            raise ValueError(
                f"model: VQ tokens are {first} to {end}, and the tokenizer, of {len(tokenizer)} "
                f"tokens, has words behind them (EOS is {eos}); a text's tokens come before"
            )
