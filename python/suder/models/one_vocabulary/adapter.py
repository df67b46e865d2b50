"""What Emu3 and Liquid have in common as adapters."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from suder.models.base import Condition, Direction
from suder.models.decoder.adapter import DecoderModel
from suder.models.decoder.prefix import Prefix
from suder.models.one_vocabulary import pictures
from suder.models.one_vocabulary.parts import VocabularyParts
from suder.models.one_vocabulary.prompts import VocabularyPrompts
from suder.models.pictures import in_parts
from suder.models.precision import exactly

# Pixels that pass through a VQ model at once: bounds its memory.
AT_ONCE = 1 << 20


class OneVocabulary(DecoderModel):
    """A model that reads the tokens that it draws.

    So a condition of the understanding direction may be VQ tokens int64 `[C, I]` as well as pixels,
    which are encoded first: a picture that was drawn need not be decoded to be read.

    Pictures are squares of `image_size` pixels. Where that is not what the model was trained on, it
    is saved with the model's config, as `image_size`.

    Attributes:
        factor: pixels of a token's side.
        repeats: how often the VQ model looks at a picture; it is a video's in Emu3.
        statistics: mean and deviation that pictures are normalised by.
        colour: what pictures are made square by.
    """

    reads_tokens = True
    prompts: VocabularyPrompts
    factor: int
    repeats = 1
    statistics: pictures.Statistics
    colour: tuple[int, int, int]

    @property
    @abstractmethod
    def parts(self) -> VocabularyParts: ...

    @abstractmethod
    def _codes(self, pixels: Tensor) -> Tensor:
        """VQ tokens `[B, I]` of pixels `[B, 3, S, S]`, all at once."""

    def _choose_size(self, asked: int | None, usual: int) -> None:
        """As asked for, as saved, or the usual."""
        config = self.core.config
        size = asked or getattr(config, "image_size", None) or usual
        if size < self.factor or size % self.factor:
            raise ValueError(f"image_size: takes multiples of {self.factor} pixels, got {size}")
        if size != usual or hasattr(config, "image_size"):
            config.image_size = size
        self._size = int(size)

    @property
    def image_size(self) -> int:
        return self._size

    @property
    def background(self) -> tuple[int, int, int]:
        return self.colour

    @property
    def grid(self) -> int:
        """Tokens of a picture's side."""
        return self.image_size // self.factor

    @property
    def num_image_tokens(self) -> int:
        return self.grid**2

    @property
    def positions(self) -> int:
        return int(self.core.config.get_text_config().max_position_embeddings)

    def prefix(self, direction: Direction, condition: Condition) -> Prefix:
        given: Any = condition
        if direction == "understanding":
            if isinstance(given, Tensor) and given.ndim == 4:
                given = self.encode(given)
            elif not isinstance(given, Tensor) or given.shape[1:] != (self.num_image_tokens,):
                raise TypeError(
                    "condition: understanding takes pixels [C, 3, S, S], see pixels(), or int64 "
                    f"VQ tokens [C, {self.num_image_tokens}]"
                )
            given = given.to(self.device)
        elif isinstance(given, Tensor | str):
            raise TypeError(f"condition: generation takes a list of str, got {type(given)}")
        return super().prefix(direction, given)

    def pixels(self, images: Any) -> Tensor:
        """`[B, 3, S, S]` in the model's dtype and device; see `pictures.to_pixels`."""
        pixels = pictures.to_pixels(images, self.image_size, self.background, self.statistics)
        return pixels.to(self.device, self.dtype)

    @property
    def pictures_at_once(self) -> int:
        return max(2, AT_ONCE // (self.repeats * self.image_size**2))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """VQ tokens int64 `[B, I]` of pixels `[B, 3, S, S]`, few at once."""
        if not len(pixels):
            return torch.zeros(0, self.num_image_tokens, dtype=torch.int64, device=self.device)
        vqmodel = self.parts.vqmodel
        if vqmodel is not None:  # whose dtype a copy that samples in 16 bits has kept
            pixels = pixels.to(self.device, next(vqmodel.parameters()).dtype)
        with exactly(self.device):
            return in_parts(self._codes, pixels, self.pictures_at_once)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Pictures uint8 `[B, S, S, 3]` of VQ tokens `[B, I]`; equal rows once, few at once."""
        size = self.image_size
        if not len(tokens):
            return torch.zeros(0, size, size, 3, dtype=torch.uint8, device=self.device)
        rows, place = torch.unique(tokens.to(self.device), dim=0, return_inverse=True)
        with exactly(self.device):
            pixels = in_parts(self.vq_decode, rows, self.pictures_at_once)
        return pictures.to_levels(pixels, self.statistics)[place]
