"""Teacher-forced hidden states against one sequence at a time through transformers, in float64."""

from __future__ import annotations

import copy

import pytest
import torch

from suder.models.decoder import teacher_forcing
from suder.models.janus.layout import generation_ids
from tests.tolerances import TOLERANCES

LOGPROB = TOLERANCES["model", "cpu", torch.float32]
BATCH = TOLERANCES["batch", "cpu", torch.float32]
GRADIENT = TOLERANCES["layout_gradient", "cpu", torch.float64]


def logprob(hidden):
    """From `Hidden`, in float64 and with full logits: the head adds no error of its own."""
    logits = hidden.hidden.double() @ hidden.weight.double().T
    if hidden.bias is not None:
        logits = logits + hidden.bias.double()
    chosen = logits.log_softmax(-1).gather(-1, hidden.target[:, None])[:, 0]
    return list(chosen.split(hidden.cu_seqlens.diff().tolist()))


@pytest.fixture
def captions(shared_janus):
    texts = ["a red circle", "two", "", "a blue square left of a green circle", "an an an", "red"]
    return shared_janus.tokenize([*texts, "and a circle", "below"])


@pytest.fixture
def drawn(shared_janus):
    generator = torch.Generator().manual_seed(1)
    shape = (8, shared_janus.num_image_tokens)
    return torch.randint(shared_janus.image_vocab_size, shape, generator=generator)


@pytest.mark.parametrize("group", [1, 2, 4])
@torch.no_grad()
def test_understanding_equals_textbook(shared_janus, textbook, pictures, captions, group):
    pixels = shared_janus.pixels(pictures)[[0, 1, 2, 3, 1, 0, 2, 3][: 8 // group]]
    ours = logprob(shared_janus("understanding", pixels, captions, group))
    for i, (row, ids) in enumerate(zip(ours, captions, strict=True)):
        torch.testing.assert_close(row, textbook.text(pixels[i // group], ids), **LOGPROB)


@pytest.mark.parametrize("group", [1, 2, 4])
@torch.no_grad()
def test_generation_equals_textbook(shared_janus, textbook, prompts, drawn, group):
    asked = [*prompts, *reversed(prompts)][: 8 // group]
    ours = logprob(shared_janus("generation", asked, drawn, group))
    for i, (row, tokens) in enumerate(zip(ours, drawn, strict=True)):
        torch.testing.assert_close(row, textbook.image(asked[i // group], tokens), **LOGPROB)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
@torch.no_grad()
def test_guidance_is_the_mixture_of_logits(shared_janus, textbook, prompts, drawn, scale):
    """Mixing the last layer's inputs mixes its outputs, bias and all."""
    ours = logprob(shared_janus("generation", prompts, drawn, 2, guidance=scale))
    processor = shared_janus.processor
    for i, (row, tokens) in enumerate(zip(ours, drawn, strict=True)):
        prompt = generation_ids(processor, prompts[i // 2])
        null = torch.full_like(prompt, processor.tokenizer.pad_token_id)
        null[0], null[-1] = prompt[0], prompt[-1]
        cond = textbook.image_logits(prompt, tokens)
        uncond = textbook.image_logits(null, tokens)
        mixed = (uncond + scale * (cond - uncond)).log_softmax(-1)
        expected = mixed.gather(-1, tokens[:, None])[:, 0]
        torch.testing.assert_close(row, expected, **LOGPROB)


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_both_layouts_give_the_same_values_and_gradients(
    janus, pictures, prompts, captions, drawn, direction, monkeypatch
):
    """One row a sequence, or one row a condition with its targets side by side."""
    results = []
    for shared in (False, True):
        model = copy.deepcopy(janus).double()
        plan = teacher_forcing.layout
        monkeypatch.setattr(
            "suder.models.decoder.hidden.layout", lambda *a, plan=plan, s=shared: plan(*a, shared=s)
        )
        text = direction == "understanding"
        condition = model.pixels(pictures) if text else prompts
        hidden = model(direction, condition, captions if text else drawn, 2)
        values = torch.cat(logprob(hidden))
        weights = torch.linspace(-1, 2, len(values), dtype=torch.float64)
        (values * weights).sum().backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((values.detach(), gradients))
    (apart, apart_gradients), (packed, packed_gradients) = results
    torch.testing.assert_close(packed, apart, **BATCH)
    assert apart_gradients.keys() == packed_gradients.keys()
    assert any("vision_model" in name for name in apart_gradients) == (direction == "understanding")
    for name, gradient in apart_gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, **GRADIENT)


def test_the_cheaper_layout_is_chosen():
    """A long prefix is shared; long targets are not put side by side."""
    picture_first = teacher_forcing.layout([600], [40] * 8, 8, 2048)
    assert picture_first.segment is not None
    assert picture_first.source.shape == (1, 600 + 8 * 39)
    short_prompt = teacher_forcing.layout([20], [576] * 8, 8, 2048)
    assert short_prompt.segment is None
    assert short_prompt.source.shape == (8, 20 + 575)


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(shared_janus, pictures, captions):
    pixels = shared_janus.pixels(pictures)
    together = logprob(shared_janus("understanding", pixels, captions, 2))
    alone = logprob(shared_janus("understanding", pixels[1:2], captions[2:4], 2))
    for row, expected in zip(together[2:4], alone, strict=True):
        torch.testing.assert_close(row, expected, **LOGPROB)


@torch.no_grad()
def test_the_condition_is_computed_once_a_group(shared_janus, pictures, captions, monkeypatch):
    seen = []
    tower = shared_janus.core.model.vision_model
    handle = tower.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    shared_janus("understanding", shared_janus.pixels(pictures), captions, 2)
    handle.remove()
    assert seen == [4]


@torch.no_grad()
def test_the_head_is_not_run(shared_janus, pictures, prompts, captions, drawn, monkeypatch):
    def fail(*_):
        raise AssertionError("the last linear layer was run")

    core = shared_janus.core
    monkeypatch.setattr(core.lm_head, "forward", fail)
    monkeypatch.setattr(core.model.generation_head.vision_head, "forward", fail)
    read = shared_janus("understanding", shared_janus.pixels(pictures), captions, 2)
    assert torch.equal(read.target, torch.cat(captions))
    made = shared_janus("generation", prompts, drawn, 2)
    assert torch.equal(made.target, drawn.flatten())


@torch.no_grad()
def test_bfloat16_gives_bfloat16_hidden_near_float32(janus, pictures, captions):
    pixels = janus.pixels(pictures)
    exact = janus("understanding", pixels, captions, 2).hidden
    rounded = copy.deepcopy(janus).to(torch.bfloat16)("understanding", pixels, captions, 2).hidden
    assert rounded.dtype == torch.bfloat16
    # Hidden states are normalised to about 1; bf16 keeps 8 bits through two layers.
    assert (rounded.float() - exact).abs().mean() < 0.03


def test_wrong_arguments_are_named(shared_janus, pictures, prompts, captions, drawn):
    pixels = shared_janus.pixels(pictures)
    with pytest.raises(ValueError, match="targets: 4 conditions of group 1 take 4 targets, got 8"):
        shared_janus("understanding", pixels, captions)
    with pytest.raises(ValueError, match=r"targets: generation takes int64 VQ tokens \[B, 16\]"):
        shared_janus("generation", prompts, drawn[:, :-1], 2)
    with pytest.raises(TypeError, match="condition: generation takes a list of str"):
        shared_janus("generation", "a red circle", drawn[:1])
    with pytest.raises(TypeError, match="condition: understanding takes pixels"):
        shared_janus("understanding", prompts, captions, 2)
    with pytest.raises(ValueError, match="guidance: only the generation direction"):
        shared_janus("understanding", pixels, captions, 2, guidance=2.0)
    with pytest.raises(ValueError, match="direction: takes"):
        shared_janus("draw", prompts, drawn, 2)
