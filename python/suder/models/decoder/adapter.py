"""What every adapter does alike: teacher forcing, decoding, copies, adapters of its weights."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from suder.models.base import Condition, Direction, Hidden, Targets
from suder.models.decoder.decoding import DecoderDecoding
from suder.models.decoder.hidden import row_ends
from suder.models.decoder.parts import Parts, target_rows
from suder.models.decoder.passes import Passes
from suder.models.decoder.prefix import Prefix, Prompts, beyond
from suder.models.inference_copy import InferenceCopy
from suder.models.lora import add_lora, has_adapters, without_adapters
from suder.models.merged import replaced_layers
from suder.models.precision import computing
from suder.models.recompute import recomputed
from suder.models.save import save_model
from suder.settings.learning import Lora

CAPTION_TOKENS = 512  # what DeepSeek's own demo of Janus-Pro lets an answer have


class DecoderModel(nn.Module, ABC):
    """A transformers model whose language model is a decoder of Llama's kind.

    A family adds what its model, its prompts and its pictures are.

    Args:
        model: the transformers model, or a PEFT model around it, with sdpa or eager attention.
        processor: tokenizer and picture processor, or a tokenizer.
        compute: dtype of the products, such as bfloat16 over float32 weights; None: the weights'
            own. Pictures are encoded and decoded in the weights' dtype all the same.
        saved: dtype of the weights that `save` writes; None: as they are.

    Attributes:
        prompts: what stands before targets.
        asks: what they say; see `UnifiedModel`.
        checkpoint_activations: a forward with gradients keeps the inputs of layers alone, and its
            backward computes the rest again: less memory, a forward more of time.
        copies_away: an inference copy keeps its layers in the host's memory (`models.away`).
    """

    prompts: Prompts
    asks: dict[str, Any]
    reads_tokens = False
    takes_questions = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        compute: torch.dtype | None = None,
        saved: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.compute = compute
        self.saved = saved
        self.checkpoint_activations = False
        self.copies_away = False
        if hasattr(model, "peft_config") and not replaced_layers(self.core):
            raise ValueError(
                f"model: {type(model).__name__} keeps its adapters outside of the model's layers, "
                "where log-likelihoods would not see them; take one that adapts layers, as LoRA"
            )

    def settle(self) -> None:
        """Called by a family when all is in its place."""
        if self.parts.vqmodel is not None:
            self.parts.vqmodel.requires_grad_(False)
        self.train(self.model.training)

    @classmethod
    def of_folder(cls, folder: Path, model: Any, processor: Any, **options: Any) -> Self:
        """Of what a checkpoint holds; `folder` for what a family keeps there besides."""
        return cls(model, processor, **options)

    # ---- of the family; see `UnifiedModel`

    @property
    @abstractmethod
    def parts(self) -> Parts: ...
    @property
    @abstractmethod
    def image_size(self) -> int: ...
    @property
    @abstractmethod
    def background(self) -> tuple[int, int, int]: ...
    @property
    @abstractmethod
    def num_image_tokens(self) -> int: ...
    @property
    @abstractmethod
    def positions(self) -> int:
        """Tokens that fit before and in an answer together."""

    @property
    @abstractmethod
    def pictures_at_once(self) -> int: ...
    @abstractmethod
    def pixels(self, images: Any) -> Tensor: ...
    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor: ...
    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor: ...
    @abstractmethod
    def vq_decode(self, tokens: Tensor) -> Tensor: ...

    # ---- what the model is

    @property
    def core(self) -> Any:
        """The transformers model, without a PEFT wrapper."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def device(self) -> torch.device:
        place: torch.device = self.core.lm_head.weight.device
        return place

    @property
    def dtype(self) -> torch.dtype:
        """Of what is no matrix of a product, which an inference copy holds in fewer bits."""
        dtype: torch.dtype = self.core.get_input_embeddings().weight.dtype
        return dtype

    @property
    def longest_text(self) -> int:
        """Tokens of an answer about a picture that fit, EOS included."""
        return self.positions - len(self.prompts.question_ids) + 1

    @property
    def max_new_tokens(self) -> int:
        """The most tokens of a caption where nobody says otherwise.

        `max_new_tokens` of generation_config.json, as in the embedded models (32); the published
        checkpoints name none, and get the number of DeepSeek's own scripts.
        """
        asked = self.core.generation_config.max_new_tokens or CAPTION_TOKENS
        return max(1, min(asked, self.longest_text))

    @property
    def image_vocab_size(self) -> int:
        return self.parts.image_vocab_size

    @property
    def codebook(self) -> Tensor:
        """`[V, d]`, embeddings of the VQ codes."""
        weight: Tensor = self.parts.vqmodel.quantize.embedding.weight
        return weight

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def eos_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def computing(self) -> AbstractContextManager[Any]:
        """Entered by `forward` and by each step of `start`; around many steps, it casts the weights
        once for all of them. No weight may change inside.
        """
        return computing(self.device, self.compute)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Every parameter that takes a gradient: all but the VQ model; tied ones once."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def train(self, mode: bool = True) -> Self:
        """As in any module, but the VQ model stays in evaluation mode."""
        super().train(mode)
        if self.parts.vqmodel is not None:
            self.parts.vqmodel.eval()
        return self

    def save(self, path: str | Path) -> None:
        """Writes model and processor in the Hugging Face format (safetensors).

        PEFT adapters are merged into the weights written; those of a PEFT model are also written by
        themselves, into the folder `adapter` below.

        Raises:
            ValueError: adapters that no plain weights can stand for, or that are turned off.
        """
        save_model(self.model, self.core, path, self.saved)
        self.processor.save_pretrained(path)

    def save_description(self, path: str | Path) -> None:
        """All but the weights: configuration, tokenizer, chat template, picture processor."""
        self.core.config.save_pretrained(path)
        self.processor.save_pretrained(path)

    # ---- texts

    def question_ids(self, question: str) -> Tensor:
        """int64 `[L]`: what stands before the answer to a question about a picture.

        A place for each of the picture's tokens is in it. The answer's own ids, `tokenize`, follow.
        """
        return self.prompts.asked_ids(question.strip()).clone()

    def too_long(self, direction: Direction, text: str, question: str | None = None) -> str:
        """Why `text` and a picture do not fit the model's positions, or "" where they do.

        "generation": the text is the prompt that the picture answers. "understanding": the text
        answers the picture, or a `question` about it.
        """
        if direction == "generation":
            prefix = len(self.prompts.prompt_ids(text.strip()))
            answer = self.num_image_tokens + row_ends(self.parts, direction, self.num_image_tokens)
        else:
            ids = self.prompts
            before = ids.question_ids if question is None else ids.asked_ids(question.strip())
            prefix, answer = len(before), len(ids.text_ids(text.strip()))
        return beyond(prefix, answer, self.positions)

    def tokenize(self, texts: Sequence[str]) -> list[Tensor]:
        """int64 ids of each text as an answer, ending in EOS."""
        return [self.prompts.text_ids(text.strip()).clone() for text in texts]

    def detokenize(self, ids: Sequence[Tensor]) -> list[str]:
        """Texts of ids, special tokens left out, blanks stripped."""
        rows = [row.tolist() for row in ids]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [text.strip() for text in texts]

    # ---- teacher forcing and decoding

    @property
    def _passes(self) -> Passes:
        return Passes(self.parts, self.prompts, self.positions)

    def prefix(self, direction: Direction, condition: Condition) -> Prefix:
        """What stands before the targets of each condition."""
        return self.prompts.prefix(self.parts, direction, condition)

    def forward(
        self,
        direction: Direction,
        condition: Condition,
        targets: Targets,
        group: int = 1,
        guidance: float = 1.0,
        questions: Sequence[str] | None = None,
    ) -> Hidden:
        """Hidden states that predict the targets; the head itself is not run.

        Args:
            direction: "understanding" or "generation".
            condition: pixels `[C, 3, S, S]`, or C prompts.
            targets: C * group id tensors (text), or int64 `[C * group, I]` (VQ tokens).
            group: consecutive targets that share one condition, which is then computed once.
            guidance: s of the policy that guidance defines (generation only). The last layer is
                linear, so mixing its inputs, uncond + s * (cond - uncond), mixes the logits.
            questions: what is asked before each target, in place of the model's own question
                (understanding only).

        Returns:
            Hidden: `hidden[T, D]`, `target[T]`, `cu_seqlens[B + 1]`, and the last layer's `weight`
            and `bias`, cast to the dtype of the products. The last layer is lm_head, or
            `vision_head` of the generation head.
        """
        rows = target_rows(direction, targets, self.num_image_tokens, self.device)
        again = self.checkpoint_activations and torch.is_grad_enabled()
        with self.computing(), recomputed(self.core) if again else nullcontext():
            return self._forward(direction, condition, rows, group, guidance, questions)

    def _forward(
        self,
        direction: Direction,
        condition: Condition,
        rows: list[Tensor],
        group: int,
        guidance: float,
        questions: Sequence[str] | None,
    ) -> Hidden:
        prefix = self.prefix(direction, condition)
        return self._passes.hidden(direction, condition, prefix, rows, group, guidance, questions)

    def tokens_read(
        self,
        direction: Direction,
        condition: Sequence[str] | int,
        lengths: Sequence[int],
        group: int = 1,
        guidance: float = 1.0,
        questions: Sequence[str] | None = None,
    ) -> int:
        """Tokens that `forward` would put through the language model, padding included.

        Args:
            condition: the prompts, or how many pictures.
            lengths: of the targets; the rest as in `forward`.
        """
        return self._passes.tokens(direction, condition, lengths, group, guidance, questions)

    def start(
        self,
        direction: Direction,
        condition: Condition,
        n: int,
        steps: int,
        guidance: float = 1.0,
        questions: Sequence[str] | None = None,
    ) -> DecoderDecoding:
        """Reads every condition once and stands ready to write `n` sequences for each.

        `questions`: of each picture its own, in place of the model's.
        """
        with self.computing():
            prefix = self.prefix(direction, condition)
            region = partial(computing, self.device, self.compute)
            return self._passes.decoding(
                direction, condition, prefix, n, steps, guidance, questions, region
            )

    # ---- copies and adapters

    def frozen_copy(self) -> Self:
        """A copy that training does not reach; what is never trained is shared with this one."""
        shared: dict[int, Any] = {id(part): part for part in (self.parts.vqmodel, self.processor)}
        shared |= {id(one): one for one in self.parameters() if not one.requires_grad}
        twin = copy.copy(self)
        twin.__dict__ = dict(self.__dict__)
        twin._modules = {**self._modules, "model": copy.deepcopy(self.model, shared)}
        return twin.requires_grad_(False).eval()

    def inference_copy(self, dtype: torch.dtype) -> tuple[Self, Callable[[], None]]:
        """A model to sample with, and what brings it up to date with this one, in place.

        It shares this one's tensors, but its linear layers are of `dtype`, adapters merged.
        Pictures are encoded and decoded as by this one.
        """
        exact = [] if self.parts.vqmodel is None else [self.parts.vqmodel]
        made = InferenceCopy(self.core, dtype, exact, self.copies_away)
        twin = copy.copy(self)
        twin.__dict__ = dict(self.__dict__)
        twin._modules = {**self._modules, "model": made.core}
        return twin.eval(), made.refresh

    def add_lora(self, settings: Lora, seed: int) -> None:
        """Puts adapters into the language model; from now on only they are trained."""
        self.model = add_lora(self.core, self.parts.language_model, settings, seed)

    def has_adapters(self) -> bool:
        """True if PEFT adapters (LoRA) are in the model."""
        return has_adapters(self.model, self.core)

    def without_adapters(self) -> AbstractContextManager[None]:
        """The base model inside, whether PEFT wraps the model or transformers injected it."""
        return without_adapters(self.model, self.core)
