"""Log-likelihoods and draws beside transformers' own forward, in float64 and with all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from suder.engine.sampling import sample
from suder.method.rewards import DualReward
from suder.models.base import inference
from suder_ext import linear_logprob
from tests.tolerances import TOLERANCES
from tests.trainer.conftest import chosen

LOGPROB = TOLERANCES["model", "cpu", torch.float32]
ENTROPY = TOLERANCES["entropy", "cpu", torch.float32]
REWARD = TOLERANCES["reward", "cpu", torch.float32]
TEXTS = ["a red circle", "two", "", "a blue square left of a green circle"]


def logprob(hidden: Any) -> list[Tensor]:
    with torch.no_grad():
        values = linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias)
    return list(values.double().split(hidden.cu_seqlens.diff().tolist()))


def random_tokens(model: Any, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, model.num_image_tokens)
    return torch.randint(model.image_vocab_size, shape, generator=generator)


def test_what_is_asked_is_what_the_checkpoint_was_taught(published, prompts, pictures):
    model = published.model
    for prompt in [*prompts, ""]:
        frame = published.model.prompts.prompt_ids(prompt).tolist()
        if prompt or published.emu3:
            assert frame == published.prompt(prompt)
    assert model.prompts.null_ids.tolist() == published.prompt("")
    pixels = model.pixels(pictures)
    expected = torch.tensor([published.question(one) for one in pixels])
    embedded = model.core.get_input_embeddings()(expected)
    assert torch.equal(model.prefix("understanding", pixels).embeddings, embedded)
    assert len(model.prompts.question_ids) == expected.shape[1]


@pytest.mark.parametrize("group", [1, 2])
@torch.no_grad()
def test_texts(published, pictures, group):
    model = published.model
    ids = model.tokenize(TEXTS)
    pixels = model.pixels(pictures)[: len(ids) // group]
    ours = logprob(model("understanding", pixels, ids, group))
    for i, (row, target) in enumerate(zip(ours, ids, strict=True)):
        expected = chosen(published.text_logits(pixels[i // group], target), target)
        torch.testing.assert_close(row, expected, **LOGPROB)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 3.0])
@torch.no_grad()
def test_pictures(published, prompts, group, scale):
    """The end of a row is read, and no part of the likelihood."""
    model = published.model
    tokens = random_tokens(model, 4)
    ours = logprob(model("generation", prompts[: 4 // group], tokens, group, scale))
    for i, (row, target) in enumerate(zip(ours, tokens, strict=True)):
        cond = published.image_logits(prompts[i // group], target)
        null = published.image_logits("", target) if scale != 1.0 else cond
        expected = chosen(null + scale * (cond - null), target)
        torch.testing.assert_close(row, expected, **LOGPROB)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_greedy_pictures_equal_a_plain_loop(published, prompts, scale):
    """Of transformers' forward, which is told every row's end."""
    model, images = published.model, published.model.parts.images
    ours = sample(model, "generation", prompts[:2], greedy=True, guidance=scale).tokens
    side = model.grid
    for prompt, row in zip(prompts, ours, strict=False):
        before = [published.prompt(prompt), published.prompt("")]
        codes: list[int] = []
        for place in range(model.num_image_tokens):
            if published.emu3 and place and place % side == 0:
                before = [[*ids, published.row_end] for ids in before]
            with torch.no_grad():
                cond, null = (published.core(torch.tensor([ids])).logits[0, -1] for ids in before)
            logits = (null + scale * (cond - null))[images.start : images.stop]
            codes.append(int(logits.argmax()))
            before = [[*ids, images.start + codes[-1]] for ids in before]
        assert row.tolist() == codes


def test_greedy_texts_equal_generate(published, pictures):
    model, images = published.model, published.model.parts.images
    pixels = model.pixels(pictures)[:2]
    ours = sample(model, "understanding", pixels, greedy=True, max_new_tokens=12)
    words = list(range(images.start))
    for one, row in zip(pixels, ours.tokens, strict=True):
        asked = torch.tensor([published.question(one)])
        theirs = model.core.generate(
            asked,
            attention_mask=torch.ones_like(asked),
            do_sample=False,
            max_new_tokens=12,
            prefix_allowed_tokens_fn=lambda *_: words,
            eos_token_id=model.eos_token_id,
            pad_token_id=0,
        )
        assert row.tolist() == theirs[0, asked.shape[1] :].tolist()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_what_is_drawn_has_ratio_one_and_is_allowed(published, prompts, pictures, scale):
    model, images = published.model, published.model.parts.images
    pixels = model.pixels(pictures)
    asked = [("generation", prompts, scale)]
    asked += [("understanding", pixels, 1.0)] if scale == 1.0 else []
    for direction, condition, guidance in asked:
        drawn = sample(model, direction, condition, 6, guidance=guidance, max_new_tokens=20)
        with inference(model):
            again = logprob(model(direction, condition, drawn.tokens, 6, guidance))
        torch.testing.assert_close(
            torch.cat(list(drawn.logprob)).double(),
            torch.cat(again),
            **TOLERANCES["ratio", "cpu", torch.float32],
        )
        ids = torch.cat(list(drawn.tokens))
        limit = images.start if direction == "understanding" else len(images)
        assert ids.max() < limit
        assert len(ids.unique()) > 5


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_entropy_is_of_what_may_be_drawn(published, prompts, pictures, temperature):
    model = published.model
    pixels = model.pixels(pictures)
    for direction, given in (("generation", prompts), ("understanding", pixels)):
        drawn = sample(model, direction, given, seed=4, max_new_tokens=9, temperature=temperature)
        logits = published.image_logits if direction == "generation" else published.text_logits
        for condition, tokens, entropy in zip(given, drawn.tokens, drawn.entropy, strict=True):
            with torch.no_grad():
                expected = logits(condition, tokens).div(temperature).softmax(-1)
            expected = torch.special.entr(expected).sum(-1)
            torch.testing.assert_close(entropy.double(), expected, **ENTROPY)


@torch.no_grad()
def test_rewards(published, prompts, pictures):
    model, tokens = published.model, random_tokens(published.model, 4)
    ours = DualReward(model).understanding(tokens, prompts)
    drawn = zip(prompts, tokens, strict=True)
    expected = [chosen(published.image_logits(*pair), pair[1]).mean() for pair in drawn]
    torch.testing.assert_close(ours.double(), torch.stack(expected), **REWARD)
    for end in (True, False):
        ours = DualReward(model, include_eos=end).generation(prompts, pictures)
        asked = zip(model.pixels(pictures), model.tokenize(prompts), strict=True)
        expected = [
            chosen(published.text_logits(pixels, ids), ids)[: len(ids) - (not end)].mean()
            for pixels, ids in asked
        ]
        torch.testing.assert_close(ours.double(), torch.stack(expected), **REWARD)


@torch.no_grad()
def test_a_picture_may_be_given_as_tokens(published, pictures):
    """It is read as such; so a reward of a drawn picture takes no decoding and encoding."""
    model = published.model
    pixels, ids = model.pixels(pictures), model.tokenize(TEXTS)
    tokens = model.encode(pixels)
    shown, told = (model("understanding", given, ids) for given in (pixels, tokens))
    assert torch.equal(shown.hidden, told.hidden)
    captions = sample(model, "understanding", pixels, 2, seed=3, max_new_tokens=8).tokens
    again = sample(model, "understanding", tokens, 2, seed=3, max_new_tokens=8).tokens
    assert all(map(torch.equal, captions, again))
    with pytest.raises(TypeError, match=r"pixels \[C, 3, S, S\], see pixels\(\), or int64 VQ"):
        model("understanding", tokens[:, :3], ids)


def test_a_reward_reads_what_was_drawn(published, prompts, monkeypatch):
    model = published.model
    tokens = random_tokens(model, 4)

    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(type(model), "decode", fail)
    monkeypatch.setattr(type(model), "encode", fail)
    reward = DualReward(model).generation(prompts, tokens)
    with inference(model):
        expected = logprob(model("understanding", tokens, model.tokenize(prompts)))
    means = torch.stack([row.mean() for row in expected]).float()
    torch.testing.assert_close(reward, means, **TOLERANCES["batch", "cpu", torch.float32])


def test_gradients_reach_the_rows_that_may_be_drawn(make, prompts, pictures):
    """Those of the other direction get none from the head; embeddings that were read do."""
    model = make()
    images = model.parts.images
    head = model.core.lm_head.weight
    tied = head is model.core.get_input_embeddings().weight
    hidden = model("generation", prompts, random_tokens(model, 4))
    linear_logprob(hidden.hidden.detach(), hidden.weight, hidden.target).sum().backward()
    rows = head.grad.abs().sum(1) > 0
    assert rows[images.start : images.stop].all()
    assert not rows[: images.start].any()
    model.zero_grad()
    hidden = model("understanding", model.pixels(pictures), model.tokenize(TEXTS))
    linear_logprob(hidden.hidden, hidden.weight, hidden.target).sum().backward()
    rows = head.grad.abs().sum(1) > 0
    assert rows[: images.start].all()
    assert rows[images.start :].any() == tied  # by the picture that was read


def test_a_copy_that_samples_in_16_bits_reads_the_same_tokens(make, pictures):
    """The head of it is of 16 bits; pixels must not be rounded to them before they are encoded."""
    model = make(compute=torch.bfloat16)
    twin, refresh = model.inference_copy(torch.bfloat16)
    refresh()
    generator = torch.Generator().manual_seed(0)
    pixels = model.pixels(pictures).repeat(8, 1, 1, 1)
    pixels += 0.05 * torch.randn(pixels.shape, generator=generator)
    assert torch.equal(twin.encode(pixels), model.encode(pixels))
    assert not torch.equal(model.encode(pixels.bfloat16()), model.encode(pixels))
