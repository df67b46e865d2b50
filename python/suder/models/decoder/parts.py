"""What a family says of its model, so that one teacher forcing and one decoding serve them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from suder.models.base import Direction
from suder.models.decoder.llama_step import KNOWN


class Parts(Protocol):
    """The parts of a transformers model that each direction uses.

    Attributes:
        core: the transformers model.
        language_model: its decoder; see `check_language_model`.
        vqmodel: from pictures to VQ tokens and back; never trained. None: there is none.
        image_vocab_size: the number of VQ tokens.
        row: VQ tokens after which the model reads that a row of the picture ends, a token which is
            known beforehand: it is never drawn and no part of a likelihood. 0: rows are not marked.
    """

    core: Any
    language_model: Any
    vqmodel: Any
    image_vocab_size: int
    row: int

    def text_embedding(self, ids: Tensor) -> Tensor: ...

    def target_embedding(self, direction: Direction) -> Callable[[Tensor], Tensor]:
        """Embeds targets; in the generation direction `image_vocab_size` is the end of a row."""
        ...

    def before_head(self, direction: Direction) -> Callable[[Tensor], Tensor]:
        """From the language model's output to the input of the last linear layer."""
        ...

    def last_layer(self, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """Weight `[V, D]` and bias `[V]` of the last linear layer: a row for each target."""
        ...


def plain_layer(layer: Any, direction: Direction) -> Any:
    """The layer, whose weight log-likelihoods read as it is.

    Raises:
        ValueError: an adapter sits on it.
    """
    if hasattr(layer, "base_layer"):
        raise ValueError(
            f"{direction}: an adapter sits on the last linear layer, whose weight the "
            "log-likelihood reads as it is; leave lm_head and vision_head out of target_modules"
        )
    return layer


def check_language_model(language_model: Any) -> None:
    """Raises ValueError for one that decoding cannot step through."""
    if not isinstance(language_model, KNOWN):
        raise ValueError(
            f"model: the language model is a {type(language_model).__name__}; decoding steps "
            f"through the layers of {', '.join(one.__name__ for one in KNOWN)}"
        )
    attention = language_model.config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise ValueError(
            f"model: attention {attention!r} takes no mask of our own; load the model with "
            "attn_implementation='sdpa'"
        )


def check_tokenizer(tokenizer: Any, rows: int) -> None:
    """Raises ValueError for one that cannot serve a model that embeds so many tokens."""
    if len(tokenizer) > rows:
        raise ValueError(
            f"model: the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}"
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"processor: {type(tokenizer).__name__} does not tell which characters a token "
            "stands for; save the tokenizer as tokenizer.json"
        )


def target_rows(
    direction: Direction, targets: Any, num_image_tokens: int, device: torch.device
) -> list[Tensor]:
    """One int64 tensor a sequence, or a ValueError that says what the direction takes."""
    if direction == "understanding":
        return [row.to(device) for row in targets]
    if direction != "generation":
        raise ValueError(f"direction: takes 'understanding' or 'generation', got {direction!r}")
    if not isinstance(targets, Tensor) or targets.shape[1:] != (num_image_tokens,):
        raise ValueError(f"targets: generation takes int64 VQ tokens [B, {num_image_tokens}]")
    return list(targets.to(device).unbind(0))
