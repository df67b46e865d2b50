"""Pixels, VQ tokens and texts: what goes in comes out, and equals what transformers makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from suder.inputs.files import DataError
from suder.method.conditions import read_conditions
from suder.models.janus.pictures import to_pixels


def test_all_kinds_of_pictures_give_the_same_pixels(shared_janus, pictures):
    expected = shared_janus.pixels(pictures)
    assert expected.shape == (4, 3, 32, 32)
    kinds = [
        list(pictures),
        torch.from_numpy(pictures),
        [Image.fromarray(picture) for picture in pictures],
        [torch.from_numpy(picture) for picture in pictures],
        [Image.fromarray(picture).convert("RGBA") for picture in pictures],
    ]
    for kind in kinds:
        assert torch.equal(shared_janus.pixels(kind), expected)


def test_pixels_equal_the_processors(shared_janus, pictures):
    processor = shared_janus.processor.image_processor
    theirs = processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt")
    ours = shared_janus.pixels(pictures)
    torch.testing.assert_close(ours, theirs["pixel_values"].float(), rtol=0, atol=1e-6)


def test_other_sizes_go_through_the_processor(shared_janus, pictures):
    wide = [Image.fromarray(pictures[0]).resize((80, 40)), Image.fromarray(pictures[1])]
    ours = shared_janus.pixels(wide)
    theirs = shared_janus.processor.image_processor(images=wide, return_tensors="pt")
    assert ours.shape == (2, 3, 32, 32)
    assert torch.equal(ours[0], theirs["pixel_values"][0].float())
    assert torch.equal(ours[1:], shared_janus.pixels(pictures[1:2]))  # whatever stands beside it
    torch.testing.assert_close(ours, theirs["pixel_values"].float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((32, 32, 3), np.uint8), "got one picture"),
        ([np.zeros((32, 32), np.uint8)], r"images\[0\]: takes a PIL picture or a uint8 array"),
        ([np.zeros((32, 32, 3), np.float32)], "got float32"),
    ],
)
def test_what_is_no_picture_is_refused(shared_janus, images, message):
    with pytest.raises(ValueError, match=message):
        shared_janus.pixels(images)


def test_decode_equals_transformers(shared_janus):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(48, (5, 16), generator=generator)
    ours = shared_janus.decode(tokens)
    with torch.no_grad():
        pixels = shared_janus.core.decode_image_tokens(tokens)
    expected = ((pixels.double() * 0.5 + 0.5) * 255).clamp(0, 255)
    assert ours.dtype == torch.uint8
    assert ours.shape == (5, 32, 32, 3)
    assert (ours.double() - expected).abs().max() < 0.51  # the nearest of 256 levels


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_few_pass_through_the_vq_model_at_once(shared_janus, monkeypatch, at_once):
    """96 of Janus-Pro's took seven gigabytes a layer; the results stay what they were."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(48, (9, 16), generator=generator)
    shown = shared_janus.decode(tokens)
    pixels = shared_janus.pixels(shown)
    codes = shared_janus.encode(pixels)
    for i in range(len(tokens)):
        assert torch.equal(shared_janus.decode(tokens[i : i + 1])[0], shown[i])
        assert torch.equal(shared_janus.encode(pixels[i : i + 1])[0], codes[i])
    sizes = []
    vqmodel = shared_janus.parts.vqmodel
    hooks = [
        module.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        for module in (vqmodel.encoder, vqmodel.decoder)
    ]
    monkeypatch.setattr("suder.models.janus.pictures.AT_ONCE", at_once * 32 * 32)
    again = shared_janus.decode(tokens), shared_janus.encode(pixels)
    for hook in hooks:
        hook.remove()
    assert torch.equal(again[0], shown)
    assert torch.equal(again[1], codes)
    assert sum(sizes) == 2 * len(tokens)
    assert min(sizes) >= 2
    assert max(sizes) <= max(3, at_once)


def test_no_pictures_no_tokens(shared_janus):
    assert shared_janus.encode(torch.zeros(0, 3, 32, 32)).shape == (0, 16)


def test_equal_rows_are_decoded_once(shared_janus, monkeypatch):
    decoded = []
    vqmodel = shared_janus.parts.vqmodel
    real = vqmodel.decode
    monkeypatch.setattr(vqmodel, "decode", lambda rows: decoded.append(len(rows)) or real(rows))
    tokens = torch.arange(48).view(3, 16)[[0, 1, 0, 2, 2, 0]]
    shown = shared_janus.decode(tokens)
    assert sum(decoded) == 3
    assert torch.equal(shown[0], shown[2])
    assert torch.equal(shown[3], shown[4])
    assert not torch.equal(shown[0], shown[1])
    assert shared_janus.decode(tokens[:0]).shape == (0, 32, 32, 3)


def test_encode_is_nearest_in_angle(shared_janus, pictures):
    pixels = shared_janus.pixels(pictures)
    tokens = shared_janus.encode(pixels)
    vqmodel = shared_janus.parts.vqmodel
    with torch.no_grad():
        features = vqmodel.quant_conv(vqmodel.encoder(pixels)).double()
    codes = vqmodel.quantize.embedding.weight.double()
    for picture, row in zip(features.flatten(2).transpose(1, 2), tokens, strict=True):
        cosine = F.cosine_similarity(picture[:, None], codes[None], dim=-1)
        assert torch.equal(cosine.argmax(-1), row)


def test_texts_come_back(shared_janus):
    texts = ["a red circle", "  two blue circles ", "", "an an"]
    ids = shared_janus.tokenize(texts)
    assert [row[-1].item() for row in ids] == [shared_janus.eos_token_id] * 4
    assert [len(row) for row in ids] == [4, 4, 1, 3]
    assert shared_janus.detokenize(ids) == [text.strip() for text in texts]
    assert shared_janus.detokenize([row[:-1] for row in ids]) == [text.strip() for text in texts]


SHAPES = ((32, 32), (40, 80), (7, 33), (300, 20), (1, 50), (31, 32), (64, 64))
SETTINGS = {
    "as it is": {},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "neither": {"do_normalize": False, "do_rescale": False},
    "of CLIP": {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]},
    "on another ground": {"image_mean": [0.1, 0.5, 0.9]},
    "another factor": {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0]},
    "neither converted": {"do_convert_rgb": False},
    "converted": {"do_convert_rgb": True},
    "bilinear": {"resample": 2, "min_size": 20},
}


def processor_of(**settings: Any) -> Any:
    """As a checkpoint's file gives it."""
    half = [0.5, 0.5, 0.5]
    given = {"size": {"height": 32, "width": 32}, "image_mean": half, "image_std": half}
    processor = JanusImageProcessorPil(**{**given, **settings})
    return type(processor).from_dict(processor.to_dict())


@pytest.mark.parametrize("name", SETTINGS)
def test_the_processors_settings_are_obeyed_at_every_size(name):
    processor = processor_of(**SETTINGS[name])
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]
    ours = to_pixels(shown, processor, 32)
    for picture, one in zip(shown, ours, strict=True):
        theirs = processor(images=[Image.fromarray(picture)], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(one, theirs[0].float(), rtol=1e-6, atol=1e-6)
        assert torch.equal(to_pixels([picture], processor, 32)[0], one)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_modes_are_converted_as_the_processor_would(mode, shape):
    """Where it is told to (do_convert_rgb); the published settings leave it to the caller."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).convert(mode)
    processor = processor_of(do_convert_rgb=True)
    theirs = processor(images=[picture], return_tensors="pt")["pixel_values"][0]
    (ours,) = to_pixels([picture], processor_of(do_convert_rgb=None), 32)
    torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        (
            {"do_pad": False},
            (20, 32),
            r"images\[1\]: 32 x 20 pixels become 32 x 20 by this model's",
        ),
        ({"do_resize": False}, (20, 20), "20 x 20 pixels become 20 x 20"),
        ({"do_resize": False}, (20, 24), "24 x 20 pixels become 24 x 24"),
        ({"size": {"height": 48, "width": 48}}, (32, 32), "32 x 32 pixels become 48 x 48"),
        ({"min_size": 40}, (32, 32), "32 x 32 pixels become 40 x 40"),
    ],
)
def test_a_picture_that_the_processor_leaves_in_another_size(settings, shape, message):
    fits = np.zeros((32, 32, 3), np.uint8)
    pictures = [fits, np.zeros((*shape, 3), np.uint8)]
    if "size" in settings or "min_size" in settings:
        message = r"images\[0\]: " + message
    with pytest.raises(DataError, match=message):
        to_pixels(pictures, processor_of(**settings), 32)
    if "do_resize" in settings or "do_pad" in settings:
        assert to_pixels([fits], processor_of(**settings), 32).shape == (1, 3, 32, 32)


def test_a_picture_of_another_size_is_left_out_and_named(make_janus, tmp_path):
    janus = make_janus()
    janus.processor.image_processor = processor_of(do_pad=False)
    for name, shape in (("wide", (16, 32)), ("square", (40, 40))):
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(tmp_path / f"{name}.png")
    names = [str(tmp_path / f"{name}.png") for name in ("wide", "square")]
    found = read_conditions(janus, "understanding", names)
    assert found.inputs == (names[1],)
    assert found.values.shape == (1, 3, 32, 32)
    ((lost, why),) = found.lost
    assert lost == names[0]
    assert "32 x 16 pixels become 32 x 16" in why


@pytest.mark.parametrize("name", ["not normalised", "not rescaled", "neither", "of CLIP"])
def test_the_vq_model_sees_the_same_whatever_the_vision_tower_is_shown(
    make_janus, shared_janus, pictures, name
):
    """DeepSeek's code gives it [-1, 1] and takes that from it, as the published settings do."""
    janus = make_janus()
    janus.processor.image_processor = processor_of(**SETTINGS[name])
    codes = janus.encode(janus.pixels(pictures))
    assert torch.equal(codes, shared_janus.encode(shared_janus.pixels(pictures)))
    assert torch.equal(janus.decode(codes), shared_janus.decode(codes))
