"""Janus and Janus-Pro through transformers' own classes and checkpoint format."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.models import pictures
from suder.models.base import Condition, Direction, Hidden, Targets
from suder.models.decoding import JanusDecoding
from suder.models.teacher_forcing import layout
from suder.pretrain.layout import (
    QUESTION,
    caption_ids,
    generation_ids,
    null_ids,
    understanding_ids,
)


class Janus(nn.Module):
    """Adapter of `JanusForConditionalGeneration` and its processor.

    Args:
        model: the model (or a PEFT model around it), with sdpa or eager attention.
        processor: its processor; the chat template lays out both directions.
        question: what is asked about a picture in the understanding direction.
        null_prompt: the prompt of guidance's unconditional branch. "fixed": the frame of an empty
            prompt with all but BOS and begin-of-image replaced by padding, the same for every
            prompt. "padded": each prompt's own tokens replaced by padding, as DeepSeek and
            transformers' `generate` do, so the branch knows how long the prompt is.
    """

    def __init__(
        self,
        model: JanusForConditionalGeneration,
        processor: JanusProcessor,
        question: str = QUESTION,
        null_prompt: Literal["fixed", "padded"] = "fixed",
    ) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.null_prompt = null_prompt
        self._check()
        self.question_ids = understanding_ids(processor, question)
        places = (self.question_ids == self.core.config.image_token_id).nonzero().flatten()
        self.image_place = int(places[0]), int(places[-1]) + 1
        self._prompt_ids = lru_cache(maxsize=1 << 16)(lambda text: generation_ids(processor, text))
        self._text_ids = lru_cache(maxsize=1 << 16)(lambda text: caption_ids(processor, text))
        self.vqmodel.requires_grad_(False)
        self.train(model.training)

    # ---- what the model is

    @property
    def core(self) -> JanusForConditionalGeneration:
        """The transformers model, without a PEFT wrapper."""
        wrapped = hasattr(self.model, "get_base_model")
        return self.model.get_base_model() if wrapped else self.model

    @property
    def vqmodel(self) -> Any:
        return self.core.model.vqmodel

    @property
    def device(self) -> torch.device:
        return self.core.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.core.lm_head.weight.dtype

    @property
    def image_size(self) -> int:
        return int(self.core.config.vision_config.image_size)

    @property
    def num_image_tokens(self) -> int:
        return int(self.core.config.vision_config.num_image_tokens)

    @property
    def image_vocab_size(self) -> int:
        return int(self.core.config.vq_config.num_embeddings)

    @property
    def eos_token_id(self) -> int:
        return int(self.processor.tokenizer.eos_token_id)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Every parameter that takes a gradient: all but the VQ model; tied ones once."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def train(self, mode: bool = True) -> Janus:
        """As in any module, but the VQ model stays in evaluation mode."""
        super().train(mode)
        self.vqmodel.eval()
        return self

    def save(self, path: str | Path) -> None:
        """Writes model and processor in the Hugging Face format (safetensors)."""
        self.model.save_pretrained(path)
        self.processor.save_pretrained(path)

    # ---- pictures and texts

    def pixels(self, images: Any) -> Tensor:
        """`[B, 3, S, S]` in the model's dtype and device.

        From PIL pictures, uint8 arrays `[H, W, 3]` or a uint8 array or tensor `[B, H, W, 3]`.
        """
        pixels = pictures.to_pixels(images, self.processor.image_processor, self.image_size)
        return pixels.to(self.device, self.dtype)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """VQ tokens int64 `[B, I]` of pixels `[B, 3, S, S]`; both sides l2-normalised."""
        return pictures.encode(self.vqmodel, pixels)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Pictures uint8 `[B, S, S, 3]` of VQ tokens `[B, I]`; equal rows are decoded once."""
        processor, device = self.processor.image_processor, self.device
        return pictures.decode(self.vqmodel, processor, tokens.to(device), self.image_size)

    def tokenize(self, texts: Sequence[str]) -> list[Tensor]:
        """int64 ids of each text as an answer, ending in EOS."""
        return [self._text_ids(text.strip()).clone() for text in texts]

    def detokenize(self, ids: Sequence[Tensor]) -> list[str]:
        """Texts of ids, special tokens left out, blanks stripped."""
        rows = [row.tolist() for row in ids]
        texts = self.processor.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [text.strip() for text in texts]

    # ---- teacher forcing

    def forward(
        self,
        direction: Direction,
        condition: Condition,
        targets: Targets,
        group: int = 1,
        guidance: float = 1.0,
    ) -> Hidden:
        """Hidden states that predict the targets; the head itself is not run.

        Args:
            direction: "understanding" or "generation".
            condition: pixels `[C, 3, S, S]`, or C prompts.
            targets: C * group id tensors (text), or int64 `[C * group, I]` (VQ tokens).
            group: consecutive targets that share one condition, which is then computed once.
            guidance: s of the policy that guidance defines (generation only). The last layer is
                linear, so mixing its inputs, uncond + s * (cond - uncond), mixes the logits.

        Returns:
            Hidden: `hidden[T, D]`, `target[T]`, `cu_seqlens[B + 1]`, and the last layer's `weight`
            and `bias`. The last layer is lm_head, or `vision_head` of the generation head.
        """
        rows = self._target_rows(direction, targets)
        count = len(condition)
        if len(rows) != count * group:
            raise ValueError(
                f"targets: {count} conditions of group {group} take {count * group} targets, "
                f"got {len(rows)}"
            )
        prefix, lengths = self._prefix(direction, condition)
        hidden = self._hidden(direction, prefix, lengths, rows, group)
        if guidance != 1.0:
            _only_generation(direction)
            null, null_lengths, place = self._null_prefix(lengths)
            which = place.repeat_interleave(group)
            uncond = self._hidden(
                direction, null[which], [null_lengths[i] for i in which.tolist()], rows, 1
            )
            hidden = uncond + guidance * (hidden - uncond)
        weight, bias = self._head(direction)
        sizes = torch.tensor([0, *map(len, rows)], device=self.device)
        return Hidden(hidden, torch.cat(rows), sizes.cumsum(0), weight, bias)

    def start(
        self, direction: Direction, condition: Condition, n: int, steps: int, guidance: float = 1.0
    ) -> JanusDecoding:
        """Reads every condition once and stands ready to write `n` sequences for each."""
        prefix, lengths = self._prefix(direction, condition)
        rows = torch.arange(len(lengths)).repeat_interleave(n)
        if guidance != 1.0:
            _only_generation(direction)
            null, null_lengths, place = self._null_prefix(lengths)
            rows = torch.cat([rows, len(lengths) + place.cpu().repeat_interleave(n)])
            width = max(prefix.shape[1], null.shape[1])
            prefix = torch.cat([_widened(prefix, width), _widened(null, width)])
            lengths = lengths + null_lengths
        return JanusDecoding(
            self.core.model.language_model,
            self._text_embedding if direction == "understanding" else self._image_embedding,
            self._before_head(direction),
            self._head(direction),
            prefix,
            lengths,
            rows.tolist(),
            steps,
            guidance,
        )

    # ---- copies

    def frozen_copy(self) -> Janus:
        """A copy that training does not reach; what is never trained is shared with this one."""
        shared = {id(part): part for part in (self.vqmodel, self.processor)}
        twin = copy.copy(self)
        twin.__dict__ = dict(self.__dict__)
        twin._modules = {"model": copy.deepcopy(self.model, shared)}
        return twin.requires_grad_(False).eval()

    def has_adapters(self) -> bool:
        """True if PEFT adapters (LoRA) are in the model."""
        return hasattr(self.model, "disable_adapter") or bool(
            getattr(self.core, "_hf_peft_config_loaded", False)
        )

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The base model inside, whether PEFT wraps the model or transformers injected it."""
        if hasattr(self.model, "disable_adapter"):
            with self.model.disable_adapter():
                yield
            return
        self.core.disable_adapters()
        try:
            yield
        finally:
            self.core.enable_adapters()

    # ---- parts

    def _prefix(self, direction: Direction, condition: Condition) -> tuple[Tensor, list[int]]:
        """Embeddings `[C, P, D]`, right-padded, and their lengths."""
        if direction == "understanding":
            if not isinstance(condition, Tensor) or condition.ndim != 4:
                raise TypeError("condition: understanding takes pixels [C, 3, S, S]; see pixels()")
            return self._picture_prefix(condition)
        if isinstance(condition, Tensor | str):
            raise TypeError(f"condition: generation takes a list of str, got {type(condition)}")
        ids = [self._prompt_ids(prompt.strip()) for prompt in condition]
        padded = pad_sequence(ids, batch_first=True).to(self.device)
        return self._text_embedding(padded), [len(row) for row in ids]

    def _picture_prefix(self, pixels: Tensor) -> tuple[Tensor, list[int]]:
        pixels = pixels.to(self.device, self.dtype)
        features = self.core.model.get_image_features(pixels, return_dict=True).pooler_output
        words = self._text_embedding(self.question_ids.to(self.device))
        words = words.expand(len(pixels), -1, -1)
        first, last = self.image_place
        prefix = torch.cat([words[:, :first], features.to(words.dtype), words[:, last:]], 1)
        return prefix, [prefix.shape[1]] * len(pixels)

    def _null_prefix(self, lengths: Sequence[int]) -> tuple[Tensor, list[int], Tensor]:
        """Null prompts' embeddings, their lengths, and which one each condition takes."""
        if self.null_prompt == "fixed":
            nulls = [null_ids(self.processor, self._prompt_ids(""))]
            place = torch.zeros(len(lengths), dtype=torch.int64)
        else:
            sizes = sorted(set(lengths))
            frame = self._prompt_ids("")
            nulls = [
                null_ids(
                    self.processor, torch.cat([frame[:1], frame[1:2].expand(n - 2), frame[-1:]])
                )
                for n in sizes
            ]
            place = torch.tensor([sizes.index(n) for n in lengths])
        padded = pad_sequence(nulls, batch_first=True).to(self.device)
        return self._text_embedding(padded), [len(row) for row in nulls], place.to(self.device)

    def _hidden(
        self,
        direction: Direction,
        prefix: Tensor,
        lengths: Sequence[int],
        rows: Sequence[Tensor],
        group: int,
    ) -> Tensor:
        width = prefix.shape[-1]
        plan = layout(lengths, [len(row) for row in rows], group, width)
        inputs = torch.cat([row[:-1] for row in rows])
        embed = self._text_embedding if direction == "understanding" else self._image_embedding
        source = torch.cat([prefix.reshape(-1, width), embed(inputs)])
        # As an embedding lookup: its backward adds up repeated rows in a fixed order.
        rows_of_embeddings = F.embedding(plan.source.to(self.device), source)
        output = self.core.model.language_model(
            inputs_embeds=rows_of_embeddings,
            attention_mask=plan.mask(source.dtype, self.device),
            position_ids=None if plan.position is None else plan.position.to(self.device),
            use_cache=False,
        )
        last = output.last_hidden_state.reshape(-1, width)
        return self._before_head(direction)(last.index_select(0, plan.predictor.to(self.device)))

    def _target_rows(self, direction: Direction, targets: Targets) -> list[Tensor]:
        if direction == "generation":
            if not isinstance(targets, Tensor) or targets.shape[1:] != (self.num_image_tokens,):
                raise ValueError(
                    f"targets: generation takes int64 VQ tokens [B, {self.num_image_tokens}]"
                )
            return list(targets.to(self.device).unbind(0))
        if direction != "understanding":
            raise ValueError(f"direction: takes 'understanding' or 'generation', got {direction!r}")
        return [row.to(self.device) for row in targets]

    def _text_embedding(self, ids: Tensor) -> Tensor:
        return self.core.get_input_embeddings()(ids)

    def _image_embedding(self, tokens: Tensor) -> Tensor:
        return self.core.prepare_embeddings_for_image_generation(tokens)

    def _before_head(self, direction: Direction) -> Any:
        if direction == "understanding":
            return nn.Identity()
        head = self.core.model.generation_head
        return lambda hidden: head.activation_fn(head.proj_out(hidden))

    def _head(self, direction: Direction) -> tuple[Tensor, Tensor | None]:
        core = self.core
        last = (
            core.lm_head if direction == "understanding" else core.model.generation_head.vision_head
        )
        if hasattr(last, "base_layer"):
            raise ValueError(
                f"{direction}: an adapter sits on the last linear layer, whose weight the "
                "log-likelihood reads as it is; leave lm_head and vision_head out of target_modules"
            )
        return last.weight, last.bias

    def _check(self) -> None:
        core, config = self.core, self.core.config
        attention = core.model.language_model.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise ValueError(
                f"model: attention {attention!r} takes no mask of our own; load the model with "
                "attn_implementation='sdpa'"
            )
        vision = config.vision_config.num_image_tokens
        counts = {
            "vision_config.num_image_tokens": vision,
            "vq_config.num_patches squared": config.vq_config.num_patches**2,
            "processor.num_image_tokens": self.processor.num_image_tokens,
        }
        if len(set(counts.values())) > 1:
            raise ValueError(f"model: the numbers of image tokens disagree: {counts}")
        if self.null_prompt not in ("fixed", "padded"):
            raise ValueError(f"null_prompt: takes 'fixed' or 'padded', got {self.null_prompt!r}")


def _only_generation(direction: Direction) -> None:
    if direction != "generation":
        raise ValueError(f"guidance: only the generation direction has it, got {direction!r}")


def _widened(prefix: Tensor, columns: int) -> Tensor:
    return F.pad(prefix, (0, 0, 0, columns - prefix.shape[1]))
