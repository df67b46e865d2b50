"""Chameleon's VQ model of pictures (`vqgan.ckpt`), which Liquid uses, in transformers' classes.

transformers has only the encoder of it. Its Janus has a VQ model of the same construction (that of
taming transformers, arXiv 2012.09841) and two differences: attention in the narrowest blocks, which
is taken out here, and codes that are normalised while decoding, which is not done.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from suder.storage.files import whole

FILE, PICKLE = "vqgan.safetensors", "vqgan.ckpt"
PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")


class TamingVQ(nn.Module):
    """From pixels `[B, 3, S, S]` in [-1, 1] to codes `[B, I]` and back.

    Args:
        state: tensors by the names of taming transformers; they tell the sizes.

    Raises:
        ValueError: tensors are missing, unexpected or misshapen.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        config = _config(state)
        self.factor = 2 ** (len(config.channel_multiplier) - 1)
        with torch.device("meta"):  # the tensors of `state` are what it will hold
            self.vq: Any = JanusVQVAE(config)
        for level in (self.vq.encoder.down[-1], self.vq.decoder.up[0]):
            level.attn = nn.ModuleList()
        try:
            self.vq.load_state_dict(_renamed(state, self._levels), assign=True)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:500]
            raise ValueError(f"vqgan: these are no weights of Chameleon's: {said}") from error
        self.requires_grad_(False).eval()

    @property
    def _levels(self) -> int:
        return len(self.vq.config.channel_multiplier)

    @property
    def codes(self) -> int:
        return int(self.vq.config.num_embeddings)

    def encode(self, pixels: Tensor) -> Tensor:
        features = self.vq.quant_conv(self.vq.encoder(pixels))
        indices: Tensor = self.vq.quantize(features)[2]
        return indices.view(len(pixels), -1)

    def decode(self, tokens: Tensor) -> Tensor:
        side = int(tokens.shape[1] ** 0.5)
        entries = self.vq.quantize.embedding(tokens).unflatten(1, (side, side))
        pixels: Tensor = self.vq.decoder(self.vq.post_quant_conv(entries.permute(0, 3, 1, 2)))
        return pixels

    def save(self, folder: Path) -> None:
        state = {name: value.contiguous() for name, value in self.vq.state_dict().items()}
        size = sum(value.nbytes for value in state.values())
        with whole(folder / FILE, size) as partial:
            save_file(_renamed(state, self._levels), partial)


def read_vq(folder: Path) -> TamingVQ | None:
    """Of `vqgan.safetensors` or `vqgan.ckpt` in a folder; None where there is neither.

    Raises:
        ValueError: the file is damaged, holds other things than tensors, or other tensors.
    """
    for name in (FILE, PICKLE):
        file = folder / name
        if not file.is_file():
            continue
        try:
            state: Any = load_file(file) if name == FILE else _read_pickle(file)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ValueError(
                f"load_model: {file} cannot be read as tensors alone: {first}"
            ) from error
        return TamingVQ({name: value for name, value in state.items() if name.startswith(PARTS)})
    return None


def _read_pickle(file: Path) -> Any:
    content = torch.load(file, map_location="cpu", weights_only=True)
    return content.get("state_dict", content)


def _config(state: dict[str, Tensor]) -> JanusVQVAEConfig:
    try:
        base = state["encoder.conv_in.weight"].shape[0]
        levels = 1 + max(
            int(name.split(".")[2]) for name in state if name.startswith("encoder.down.")
        )
        first = [
            name
            for name in state
            if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", name)
        ]
        wide = [state[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
        codes, width = state["quantize.embedding.weight"].shape
        return JanusVQVAEConfig(
            embed_dim=width,
            num_embeddings=codes,
            latent_channels=state["encoder.conv_out.weight"].shape[0],
            base_channels=base,
            channel_multiplier=[one // base for one in wide],
            num_res_blocks=len(first),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"vqgan: these are no weights of Chameleon's: no {error}") from error


def _renamed(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """taming transformers count the decoder's levels from the widest, Janus from the narrowest."""

    def other(name: str) -> str:
        return re.sub(
            r"^decoder\.up\.(\d+)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name
        )

    return {other(name): value for name, value in state.items()}
