"""VQ models beside transformers' own, and beside a plain pass in float64; files of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from suder.models.one_vocabulary.taming import FILE, PICKLE, TamingVQ, read_vq
from tests.tolerances import TOLERANCES
from tests.trainer.families import CODES, SIDE, small_emu3, small_liquid, taming_state

PIXELS = TOLERANCES["vq_pixels", "cpu", torch.float32]


def test_emu3_round_trips_as_transformers_own(pictures: Any) -> None:
    model = small_emu3()
    core, grid = model.core.model, model.grid
    pixels = model.pixels(pictures)
    tokens = model.encode(pixels)
    sizes = torch.full((len(pixels), 2), SIDE)
    theirs = core.get_image_tokens(pixels, sizes).view(len(pixels), grid, grid + 1)
    assert torch.equal(tokens + model.images.start, theirs[..., :-1].flatten(1).long())
    assert len(tokens.unique()) > 5
    ends = torch.zeros(len(pixels), 3, dtype=theirs.dtype)
    decoded = core.decode_image_tokens(torch.cat([theirs.flatten(1), ends], 1), grid, grid)
    shown = model.processor.postprocess(list(decoded), return_tensors="PIL.Image.Image")
    ours = model.decode(tokens)
    for one, other in zip(ours, shown["pixel_values"], strict=True):
        # transformers cuts what is behind the point off; here it is rounded.
        apart = one.int() - torch.from_numpy(np.array(other)).int()
        assert apart.min() >= 0
        assert apart.max() <= 1


def test_emu3_s_processor_makes_the_same_pixels(pictures: Any) -> None:
    model = small_emu3()
    theirs = model.processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(model.pixels(pictures), theirs.float(), rtol=0, atol=1e-5)


def plain_decode(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """taming transformers' decoder, written out: no attention but in the middle."""
    state = {name: value.double() for name, value in state.items()}

    def conv(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def block(name: str, x: Tensor) -> Tensor:
        h = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", x)))
        h = conv(f"{name}.conv2", F.silu(norm(f"{name}.norm2", h)))
        return h + (
            conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x
        )

    side = int(tokens.shape[1] ** 0.5)
    x = state["quantize.embedding.weight"][tokens].view(-1, side, side, 8).permute(0, 3, 1, 2)
    x = block("decoder.mid.block_1", conv("decoder.conv_in", conv("post_quant_conv", x)))
    q, k, v = (conv(f"decoder.mid.attn_1.{n}", norm("decoder.mid.attn_1.norm", x)) for n in "qkv")
    weight = (q.flatten(2).mT @ k.flatten(2) * q.shape[1] ** -0.5).softmax(-1)
    x = x + conv("decoder.mid.attn_1.proj_out", (v.flatten(2) @ weight.mT).view_as(x))
    x = block("decoder.mid.block_2", x)
    for level in (3, 2, 1, 0):
        for number in (0, 1):
            x = block(f"decoder.up.{level}.block.{number}", x)
        if level:
            x = conv(f"decoder.up.{level}.upsample.conv", F.interpolate(x, scale_factor=2.0))
    return conv("decoder.conv_out", F.silu(norm("decoder.norm_out", x)))


@torch.no_grad()
def test_chameleon_s_vq_model(pictures: Any) -> None:
    """Encoded as by transformers' class, decoded as written down."""
    state = taming_state()
    vq = TamingVQ(state)
    config = ChameleonVQVAEConfig(
        embed_dim=8,
        num_embeddings=CODES,
        latent_channels=16,
        resolution=SIDE,
        base_channels=32,
        channel_multiplier=[1, 1, 2, 2],
        num_res_blocks=1,
    )
    theirs = ChameleonVQVAE(config)
    theirs.load_state_dict({k: v for k, v in state.items() if k in theirs.state_dict()})
    pixels = small_liquid().pixels(pictures)
    codes = vq.encode(pixels)
    assert torch.equal(codes, theirs.encode(pixels).image_tokens.view(len(pixels), -1))
    assert len(codes.unique()) > 3
    tokens = torch.arange(32).view(2, 16) % CODES
    decoded = vq.decode(tokens)
    assert decoded.shape == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(decoded.double(), plain_decode(state, tokens), **PIXELS)


@pytest.mark.parametrize("name", [FILE, PICKLE])
def test_files_of_the_vq_model(tmp_path: Path, name: str) -> None:
    """A checkpoint of training holds a loss as well; what is written has taming's names, too."""
    state = taming_state()
    if name == FILE:
        save_file(state, tmp_path / name)
    else:
        torch.save({"state_dict": state | {"loss.logvar": torch.zeros(1)}}, tmp_path / name)
    vq = read_vq(tmp_path)
    assert vq is not None
    assert (vq.factor, vq.codes) == (8, CODES)
    vq.save(tmp_path)
    again = load_file(tmp_path / FILE)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())


class Program:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


def test_files_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": taming_state(), "callbacks": Program()}, tmp_path / PICKLE)
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        read_vq(tmp_path)
    assert not (tmp_path / "ran").exists()
    state = taming_state()
    del state["decoder.conv_out.bias"]
    save_file(state, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"no weights of Chameleon's.*decoder.conv_out.bias"):
        read_vq(tmp_path)
    save_file({"encoder.conv_in.weight": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="no weights of Chameleon's"):
        read_vq(tmp_path)
