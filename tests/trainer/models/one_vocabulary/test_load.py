"""Loading, saving, and what such a checkpoint may lack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

import suder
from suder.models.base import inference
from suder.models.one_vocabulary.taming import FILE
from tests.trainer.families import CODES, SIDE, small_emu3, small_liquid

Make = Callable[..., Any]


def values(model: Any, prompts: list[str], pixels: torch.Tensor) -> list[torch.Tensor]:
    tokens = torch.arange(16 * len(prompts)).view(len(prompts), -1) % CODES
    with inference(model):
        return [
            model("generation", prompts, tokens, guidance=2.0).hidden,
            model("understanding", pixels, model.tokenize(prompts)).hidden,
        ]


def test_saved_and_loaded_it_is_the_same(
    make: Make, prompts: Any, pictures: Any, tmp_path: Path
) -> None:
    """The size of its pictures included, which is not that of the published ones."""
    model = make()
    model.save(tmp_path)
    loaded = suder.load_model(tmp_path)
    assert type(loaded) is type(model)
    assert (loaded.image_size, loaded.num_image_tokens) == (SIDE, 16)
    pixels = model.pixels(pictures)
    assert torch.equal(loaded.pixels(pictures), pixels)
    assert all(map(torch.equal, values(loaded, prompts, pixels), values(model, prompts, pixels)))
    tokens = model.encode(pixels)
    assert torch.equal(loaded.encode(pixels), tokens)
    assert torch.equal(loaded.decode(tokens), model.decode(tokens))
    half = suder.load_model(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == half.pixels(pictures).dtype == torch.bfloat16
    assert suder.sample(half, "generation", prompts, 2, guidance=2.0).tokens.shape == (8, 16)
    assert torch.equal(half.decode(tokens), half.decode(tokens))


def test_smaller_and_larger_pictures(make: Make, prompts: Any, pictures: Any) -> None:
    """A setting; in training, too."""
    model = make(image_size=16)
    assert (model.image_size, model.num_image_tokens) == (16, 4)
    pixels = model.pixels(pictures)
    assert pixels.shape == (4, 3, 16, 16)
    drawn = suder.sample(model, "generation", prompts).tokens
    assert drawn.shape == (4, 4)
    assert model.decode(drawn).shape == (4, 16, 16, 3)
    assert model.encode(pixels).shape == (4, 4)
    with pytest.raises(ValueError, match="image_size: takes multiples of 8 pixels, got 20"):
        make(image_size=20)


def test_the_usual_sizes(make: Make) -> None:
    """512 and 720 pixels: 1,024 tokens of Liquid, which has a halving less here, 8,100 of Emu3."""
    model = make()
    del model.core.config.image_size
    model._choose_size(None, 512 if "Liquid" in type(model).__name__ else 720)
    assert model.num_image_tokens == (64**2 if "Liquid" in type(model).__name__ else 90**2)
    assert not hasattr(model.core.config, "image_size")


def test_pictures_of_other_shapes_are_made_square(make: Make) -> None:
    model = make()
    wide = torch.full((10, 20, 3), 200, dtype=torch.uint8)
    pixels = model.pixels([wide.numpy()])
    assert pixels.shape == (1, 3, SIDE, SIDE)
    mean, deviation = (torch.tensor(one).view(3, 1, 1) for one in model.statistics)
    levels = ((pixels[0] * deviation + mean) * 255).round()
    assert levels[:, 0, 0].tolist() == list(model.background)
    assert levels[:, 16, 16].tolist() == [200, 200, 200]


def test_emu3_s_dropout_is_off(prompts: Any, pictures: Any) -> None:
    """Its config says nothing of it, and transformers' default is 0.1, on the residual branches."""
    model = small_emu3()
    pixels = model.pixels(pictures)
    expected = values(model, prompts, pixels)
    model.train()
    tokens = torch.arange(64).view(4, 16) % CODES
    again = model("generation", prompts, tokens, guidance=2.0).hidden
    assert torch.equal(again, expected[0])
    assert model.core.config.text_config.attention_dropout == 0.0
    assert not model.parts.vqmodel.training


def test_visual_tokens_must_be_one_slice() -> None:
    model = small_emu3()
    mapping = dict(model.core.config.vocabulary_map)
    one, other = "<|visual token 000003|>", "<|visual token 000004|>"
    mapping[one], mapping[other] = mapping[other], mapping[one]
    model.core.config.vocabulary_map = mapping
    with pytest.raises(ValueError, match=r"names 48 visual tokens; .* side by side"):
        type(model)(model.core, model.processor, image_size=SIDE)


def test_liquid_without_a_vq_model(pictures: Any, prompts: Any, tmp_path: Path) -> None:
    """As it is published: words and tokens can be had, pictures not, and it says what to do."""
    small_liquid().save(tmp_path)
    (tmp_path / FILE).unlink()
    model = suder.load_model(tmp_path, image_size=64)
    assert model.image_vocab_size == CODES
    assert suder.sample(model, "generation", prompts).tokens.shape == (4, 16)
    for call in (
        lambda: model.encode(model.pixels(pictures)),
        lambda: model.decode(torch.zeros(1, 16).long()),
    ):
        with pytest.raises(ValueError, match=r"no VQ model.*put Chameleon's vqgan.ckpt"):
            call()


def test_a_plain_gemma_is_refused(tmp_path: Path) -> None:
    model = small_liquid()
    plain = GemmaForCausalLM(GemmaConfig(**model.core.config.to_dict()))
    plain.save_pretrained(tmp_path)
    tokenizer = model.processor
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    text = tokenizer.backend_tokenizer.to_str().replace("<boi>", "<other>")
    tokenizer = type(tokenizer)(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(text),
        eos_token="<eos>", bos_token="<bos>", pad_token="<pad>", unk_token="<unk>",
    )  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"<boi> is no token of its vocabulary.*plain Gemma"):
        suder.load_model(tmp_path)


def test_words_behind_the_pictures_are_refused() -> None:
    model = small_emu3()
    model.processor.tokenizer.add_tokens(["late"])
    model.core.resize_token_embeddings(len(model.processor.tokenizer))
    with pytest.raises(ValueError, match="has words behind them"):
        type(model)(model.core, model.processor, image_size=SIDE)


@pytest.mark.parametrize("said", ["<eos>", "<boi>", "<|image start|>", "<|visual token 000003|>"])
def test_a_text_that_spells_a_command_is_text(make: Make, said: str) -> None:
    model = make()
    images = model.parts.images
    for ids in (
        *model.tokenize([f"a {said} circle"]),
        model.prompts.prompt_ids(f"a {said} circle"),
    ):
        plain = model.tokenize(["a circle"])[0].tolist()
        frame = {*plain, *model.prompts.prompt_ids("").tolist()}
        unknown = model.tokenizer.unk_token_id
        assert (ids < images.start).all()
        extra = [one for one in ids.tolist() if one not in frame]
        named = model.tokenizer.convert_tokens_to_ids(said)
        assert named == unknown or named not in extra
    assert model.tokenize([f"a {said} circle"])[0].tolist().count(model.eos_token_id) == 1
