"""What the rest of suder asks of a model. Everything above this file is model-agnostic.

Two directions, named after what the model does:

- "understanding": image -> text. A condition is one picture (`pixels`), a target the ids of a text.
- "generation": text -> image. A condition is one prompt (`str`), a target a picture's VQ tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from suder.settings.learning import Lora

Direction = Literal["understanding", "generation"]
DIRECTIONS: tuple[Direction, ...] = ("understanding", "generation")
Condition = Tensor | Sequence[str]
Targets = Tensor | Sequence[Tensor]


class Hidden(NamedTuple):
    """Inputs of the last linear layer at the positions that predict the targets.

    Attributes:
        hidden: `[T, D]` in the dtype that the model computes in, T being all targets of all
            sequences, in order.
        target: int64 `[T]`.
        cu_seqlens: int64 `[B + 1]`, where each sequence begins.
        weight: `[V, D]` of the last linear layer, in the same dtype.
        bias: `[V]`, or None.
    """

    hidden: Tensor
    target: Tensor
    cu_seqlens: Tensor
    weight: Tensor
    bias: Tensor | None


class Decoding(Protocol):
    """C * n sequences being written one token at a time, their common prefixes already read.

    `features` and `advance` read and write tensors that keep their shapes and places, and wait for
    none of them, so that a step can be recorded and run again.

    Attributes:
        guidance: the scale of classifier-free guidance; 1 for none.
        row: tokens of a picture's row where its end is a token that is read and not drawn, else 0.
        weight: `[V, D]` of the last linear layer, in the dtype of the products.
        bias: `[V]`, or None.
    """

    guidance: float
    row: int
    weight: Tensor
    bias: Tensor | None

    def make_room(self) -> None:
        """Allocates what steps will write to, all at once; until then `tensors` has zeros there."""
        ...

    def features(self) -> Tensor:
        """`[C * n, D]` into the last linear layer for the next tokens; guidance is in them."""
        ...

    def advance(self, tokens: Tensor, columns: int, row_ends: bool = False) -> None:
        """Appends int64 `[C * n]`, one token to each sequence.

        `columns`: a number of drawn tokens, no less than will then be there, that attention runs
        over. `row_ends`: these are the last of a picture's rows, whose end is appended, too.
        """
        ...

    def take(self, conditions: Tensor, rows: Tensor) -> Decoding:
        """Another that goes on with sequences `rows[C' * n']` only, of conditions `[C']`."""
        ...

    def tensors(self) -> list[Tensor]:
        """All that a step reads or writes, but the model's weights."""
        ...


class UnifiedModel(Protocol):
    """A network that reads pictures and draws them; an `nn.Module`, so that DDP or FSDP wrap it."""

    training: bool
    asks: dict[str, Any]  # what its prompts say: settings of a run (`Prompts`), none of them null
    checkpoint_activations: bool
    reads_tokens: bool  # a condition of "understanding" may be VQ tokens [C, I], too
    # of each target or picture its own, see `__call__` and `start`; an adapter need not have it
    takes_questions: bool

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def image_size(self) -> int: ...
    @property
    def background(self) -> tuple[int, int, int]: ...
    @property
    def num_image_tokens(self) -> int: ...
    @property
    def image_vocab_size(self) -> int: ...
    @property
    def pictures_at_once(self) -> int:
        """The most that go through the VQ model at once; `encode` and `decode` take any number."""
        ...

    @property
    def codebook(self) -> Tensor:
        """`[V, d]`, embeddings of the VQ codes; only `objective.token_weight: siblings` looks."""
        ...

    @property
    def eos_token_id(self) -> int: ...
    @property
    def longest_text(self) -> int:
        """The most tokens that a text about a picture may have, EOS included."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Of those, the most that it writes where nobody says otherwise."""
        ...

    def pixels(self, images: Any) -> Tensor: ...
    def encode(self, pixels: Tensor) -> Tensor: ...
    def decode(self, tokens: Tensor) -> Tensor: ...
    def vq_decode(self, tokens: Tensor) -> Tensor:
        """The VQ model alone, on all rows `[B, I]` at once, whatever numbers they hold."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[Tensor]: ...
    def detokenize(self, ids: Sequence[Tensor]) -> list[str]: ...
    def question_ids(self, question: str) -> Tensor:
        """int64 `[L]`: all that stands before the answer to a question about a picture, a place for
        each of the picture's tokens included; what follows are `tokenize([answer])[0]`.
        """
        ...

    def too_long(self, direction: Direction, text: str, question: str | None = None) -> str:
        """Why a text does not fit the model together with a picture, or "" where it does.

        "generation": as the prompt of the picture; "understanding": as the text about it. Other
        methods raise ValueError for what does not fit, so whoever has many texts asks before.
        """
        ...

    def tokens_read(
        self,
        direction: Direction,
        condition: Sequence[str] | int,
        lengths: Sequence[int],
        group: int = 1,
        guidance: float = 1.0,
        questions: Sequence[str] | None = None,
    ) -> int:
        """Tokens that a call would put through the language model, padding included.

        Args:
            condition: the prompts, or how many pictures.
            lengths: of the targets; the rest as in the call.
        """
        ...

    def __call__(
        self,
        direction: Direction,
        condition: Condition,
        targets: Targets,
        group: int = 1,
        guidance: float = 1.0,
        questions: Sequence[str] | None = None,
    ) -> Hidden:
        """What predicts the targets; `group` consecutive ones share a condition.

        Args:
            questions: "understanding": what is asked about the picture before each target, in
                place of the model's own question; only where `takes_questions`.
        """
        ...

    def start(
        self,
        direction: Direction,
        condition: Condition,
        n: int,
        steps: int,
        guidance: float = 1.0,
        questions: Sequence[str] | None = None,
    ) -> Decoding:
        """`questions`: of each picture its own; only where `takes_questions`, else not passed."""
        ...

    def computing(self) -> AbstractContextManager[Any]: ...
    def frozen_copy(self) -> UnifiedModel: ...
    def inference_copy(self, dtype: torch.dtype) -> tuple[UnifiedModel, Callable[[], None]]: ...
    def add_lora(self, settings: Lora, seed: int) -> None: ...
    def has_adapters(self) -> bool: ...
    def without_adapters(self) -> AbstractContextManager[None]: ...
    def modules(self) -> Iterator[torch.nn.Module]: ...
    def parameters(self) -> Iterator[torch.nn.Parameter]: ...
    def trainable_parameters(self) -> list[torch.nn.Parameter]: ...
    def save(self, path: Any) -> None: ...
    def save_description(self, path: Any) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def zero_grad(self, set_to_none: bool = True) -> None: ...


class NotFinite(ValueError):
    """The model's numbers are NaN or infinite where some had to be finite: it is of no use."""


def name_of(model: UnifiedModel) -> str:
    """The model for an error message: where its weights came from, if it says so."""
    config = getattr(getattr(model, "core", None), "config", None)
    return str(getattr(config, "_name_or_path", "") or "a model that was not loaded from a file")


@contextmanager
def inference(model: UnifiedModel) -> Iterator[None]:
    """No gradients and evaluation mode inside; the mode is put back after.

    Sampling in training mode would use dropout, and transformers drops the key/value cache under
    gradient checkpointing.
    """
    training = model.training
    if training:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            model.train()
