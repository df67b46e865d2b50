"""Dual self-rewards against the textbook: one pair at a time, full logits, float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from suder.method import rewards
from suder.method.rewards import DualReward, check_rewards
from suder.models.base import NotFinite
from suder.models.janus.parts import JanusParts
from tests.tolerances import TOLERANCES

REWARD = TOLERANCES["reward", "cpu", torch.float32]
BATCH = TOLERANCES["batch", "cpu", torch.float32]

CAPTIONS = [
    "a red circle",
    "a blue square left of a green triangle",
    "",
    "two circles",
    "and",
    "a red circle",
    "   ",
    "above below above below above below above",
]


@pytest.fixture(scope="module")
def drawn(shared_janus):
    generator = torch.Generator().manual_seed(2)
    shape = (8, shared_janus.num_image_tokens)
    return torch.randint(shared_janus.image_vocab_size, shape, generator=generator)


def understanding_oracle(textbook, tokens, captions):
    return [
        textbook.image(caption, row).mean().item() if caption.strip() else float("nan")
        for row, caption in zip(tokens, captions, strict=True)
    ]


def generation_oracle(textbook, prompts, shown, include_eos=True):
    values = []
    for prompt, pixels in zip(prompts, shown, strict=True):
        ids = textbook.ids(prompt)
        scored = textbook.text(pixels, ids)
        values.append(scored[: len(ids) - (not include_eos)].mean().item())
    return values


def assert_near(ours, expected):
    assert ours.dtype == torch.float32
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(ours.double(), expected, **REWARD, equal_nan=True)
    assert expected.nan_to_num(0).std() > 0.1  # the candidates do differ


@torch.no_grad()
def test_understanding_equals_textbook(shared_janus, textbook, pictures):
    images = [pictures[i // 2] for i in range(8)]
    tokens = shared_janus.encode(shared_janus.pixels(images))
    ours = DualReward(shared_janus).understanding(images, CAPTIONS)
    assert_near(ours, understanding_oracle(textbook, tokens, CAPTIONS))
    assert ours.isnan().tolist() == [not caption.strip() for caption in CAPTIONS]


@torch.no_grad()
@pytest.mark.parametrize("include_eos", [True, False])
def test_generation_equals_textbook(shared_janus, textbook, prompts, drawn, include_eos):
    asked = [prompts[i // 2] for i in range(8)]
    shown = shared_janus.pixels(shared_janus.decode(drawn))
    ours = DualReward(shared_janus, include_eos=include_eos).generation(asked, drawn)
    assert_near(ours, generation_oracle(textbook, asked, shown, include_eos))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_rewards_do_not_depend_on_the_batch(shared_janus, pictures, prompts, drawn, batch_size):
    images = [pictures[i // 2] for i in range(8)]
    asked = [prompts[i // 2] for i in range(8)]
    for order in (range(8), [5, 2, 7, 0, 6, 1, 4, 3]):
        whole, cut = DualReward(shared_janus), DualReward(shared_janus, batch_size=batch_size)
        first = whole.understanding(images, CAPTIONS)[list(order)]
        again = cut.understanding([images[i] for i in order], [CAPTIONS[i] for i in order])
        torch.testing.assert_close(again, first, **BATCH, equal_nan=True)
        first = whole.generation(asked, drawn)[list(order)]
        again = cut.generation([asked[i] for i in order], drawn[list(order)])
        torch.testing.assert_close(again, first, **BATCH)


def test_every_form_of_the_inputs_gives_the_same(shared_janus, pictures, prompts, drawn):
    reward = DualReward(shared_janus)
    tokens = shared_janus.encode(shared_janus.pixels(pictures))
    expected = reward.understanding([pictures[i // 2] for i in range(8)], CAPTIONS)
    ids = shared_janus.tokenize(CAPTIONS)
    for images, captions in [
        (pictures, CAPTIONS),
        ([Image.fromarray(picture) for picture in pictures], CAPTIONS),
        (np.repeat(pictures, 2, 0), ids),
        (tokens, [row[:-1] for row in ids]),
        (tokens.repeat_interleave(2, 0), CAPTIONS),
    ]:
        again = reward.understanding(images, captions, group=2)
        torch.testing.assert_close(again, expected, **BATCH, equal_nan=True)

    expected = reward.generation([prompts[i // 2] for i in range(8)], drawn)
    shown = shared_janus.decode(drawn)
    for asked, images in [
        (prompts, drawn),
        (prompts, shown),
        (prompts, [Image.fromarray(picture.numpy()) for picture in shown]),
        ([prompts[i // 2] for i in range(8)], list(shown.numpy())),
    ]:
        again = reward.generation(asked, images, group=2)
        torch.testing.assert_close(again, expected, **BATCH)


def test_empty_texts_have_no_reward(shared_janus, drawn):
    reward = DualReward(shared_janus)
    assert reward.understanding(drawn[:2], ["", " "]).isnan().all()
    assert reward.generation(["", "a circle"], drawn[:2]).isnan().tolist() == [True, False]
    eos = torch.tensor([shared_janus.eos_token_id])
    assert reward.understanding(drawn[:1], [eos]).isnan().all()
    assert reward.understanding(drawn[:0], []).shape == (0,)
    assert reward.generation([], drawn[:0]).shape == (0,)


def test_tokens_are_not_encoded_again(shared_janus, drawn, monkeypatch):
    def fail(*_):
        raise AssertionError("tokens were decoded or encoded")

    reward = DualReward(shared_janus)
    monkeypatch.setattr("suder.models.janus.pictures.encode", fail)
    monkeypatch.setattr("suder.models.janus.pictures.decode", fail)
    assert reward.understanding(drawn, CAPTIONS).shape == (8,)


def test_equal_candidates_are_scored_once(shared_janus, prompts, drawn):
    rows = []
    module = shared_janus.core.model.language_model
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    reward = DualReward(shared_janus)
    tokens = drawn[[0, 0, 1, 1]]
    scored = reward.understanding(tokens, ["a circle", "a circle", "a circle", "two"])
    assert sum(rows) == 3
    assert scored[0] == scored[1] != scored[2]
    rows.clear()
    scored = reward.generation(["a circle", "a circle", "a circle", "two"], tokens)
    assert sum(rows) == 3
    assert scored[0] == scored[1] != scored[2]
    handle.remove()


@pytest.mark.parametrize("tokens_per_batch", [None, 48, 1])
def test_prompts_for_one_picture_read_it_once(
    shared_janus, prompts, pictures, monkeypatch, tokens_per_batch
):
    """Whatever their number, in any order, and as far as the limit allows."""
    asked = [*prompts, "two", *prompts[:2], "a circle", *prompts]
    shown = [pictures[i] for i in (0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3)]
    order = [7, 3, 11, 0, 5, 8, 1, 10, 4, 2, 9, 6]
    looked, sizes = [], []
    real = JanusParts.picture_features

    def spy(self, pixels):
        looked.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(JanusParts, "picture_features", spy)
    alone = torch.cat(
        [
            DualReward(shared_janus).generation([asked[i]], [Image.fromarray(shown[i])])
            for i in order
        ]
    )
    looked.clear()
    module = shared_janus.core.model.language_model
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    reward = DualReward(shared_janus, tokens_per_batch=tokens_per_batch)
    together = reward.generation([asked[i] for i in order], [shown[i] for i in order])
    handle.remove()
    torch.testing.assert_close(together, alone, **BATCH)
    assert alone.std() > 0.1
    if tokens_per_batch is None:
        assert sum(looked) == 4
    elif tokens_per_batch > 1:
        assert max(sizes) <= tokens_per_batch
        assert 4 < sum(looked) < 12
    else:
        assert sum(looked) == 12


def test_live_follows_the_model_and_frozen_does_not(janus, drawn):
    live, frozen = DualReward(janus), DualReward(janus, scorer="frozen")
    before = live.understanding(drawn, CAPTIONS)
    torch.testing.assert_close(
        frozen.understanding(drawn, CAPTIONS), before, rtol=0, atol=0, equal_nan=True
    )
    with torch.no_grad():
        for parameter in janus.trainable_parameters():
            parameter.mul_(1.1)
    after = live.understanding(drawn, CAPTIONS)
    assert (after - before).nan_to_num(0).abs().max() > 0.05
    torch.testing.assert_close(
        frozen.understanding(drawn, CAPTIONS), before, rtol=0, atol=0, equal_nan=True
    )


def test_frozen_is_the_base_model_where_there_are_adapters(janus, drawn, monkeypatch):
    """No copy: adapters are off while it scores, on again after."""
    from contextlib import contextmanager

    states = []

    @contextmanager
    def without_adapters():
        states.append("off")
        yield
        states.append("on")

    monkeypatch.setattr(janus, "has_adapters", lambda: True)
    monkeypatch.setattr(janus, "without_adapters", without_adapters)
    frozen = DualReward(janus, scorer="frozen")
    assert frozen.model is janus
    frozen.understanding(drawn, CAPTIONS)
    assert states == ["off", "on"]
    DualReward(janus).understanding(drawn, CAPTIONS)
    assert states == ["off", "on"]


def test_scoring_leaves_no_gradient_and_the_mode_as_it_was(janus, drawn):
    janus.train()
    scored = DualReward(janus).understanding(drawn, CAPTIONS)
    assert not scored.requires_grad
    assert janus.training


def test_the_reward_goes_through_the_op(shared_janus, drawn, monkeypatch):
    """No logits of our own: hidden states, weight and bias go to suder_ext."""
    calls = []
    real = rewards.linear_sequence_logprob

    def spy(hidden, weight, target, cu_seqlens, bias):
        calls.append((len(target), len(cu_seqlens) - 1))
        return real(hidden, weight, target, cu_seqlens, bias)

    monkeypatch.setattr(rewards, "linear_sequence_logprob", spy)
    DualReward(shared_janus, batch_size=4).understanding(drawn, CAPTIONS)
    assert calls == [(64, 4), (32, 2)]


def test_impossible_arguments_are_named(shared_janus, drawn):
    reward = DualReward(shared_janus)
    with pytest.raises(ValueError, match="images: 8 captions in groups of 1 take 8 or 8 images"):
        reward.understanding(drawn[:3], CAPTIONS)
    with pytest.raises(ValueError, match="captions: 8 of them are no whole number of groups of 3"):
        reward.understanding(drawn, CAPTIONS, group=3)
    with pytest.raises(ValueError, match="prompts: 8 images in groups of 2 take 4 or 8 prompts"):
        reward.generation(["a"] * 3, drawn, group=2)
    with pytest.raises(TypeError, match="strings or id tensors, got both"):
        reward.understanding(drawn[:2], ["a", torch.tensor([1])])
    with pytest.raises(ValueError, match="scorer: takes 'live' or 'frozen', got 'dead'"):
        DualReward(shared_janus, scorer="dead")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_a_broken_model_gives_nan_and_the_caller_is_told_on_asking(janus, drawn, direction, value):
    head = janus.core.lm_head
    if direction == "understanding":
        head = janus.core.model.generation_head.vision_head
    head.weight.data[3, 2] = value
    janus.core.config._name_or_path = "runs/broken/model"
    texts = CAPTIONS[:3]  # the last is empty
    given = (texts, drawn[:3]) if direction == "generation" else (drawn[:3], texts)
    reward = getattr(DualReward(janus), direction)(*given)
    assert reward.isnan().all()
    says = rf"rewards \({direction}\): none of 3 .*, by runs/broken/model .*'a red circle'"
    with pytest.raises(NotFinite, match=says):
        check_rewards(janus, direction, texts, reward)
    check_rewards(janus, direction, [" ", ""], reward[:2])  # nothing that could have one
    reward[1] = -1.0
    check_rewards(janus, direction, texts, reward)  # a candidate left out, no more


def test_a_text_that_is_too_long_has_no_reward(shared_janus, drawn):
    """Neither does it cost the others theirs."""
    reward = DualReward(shared_janus)
    tokens = drawn[[0, 1, 2]]
    long = "red " * 300
    for direction, given in (
        ("understanding", lambda texts, tokens: (tokens, texts)),
        ("generation", lambda texts, tokens: (texts, tokens)),
    ):
        score = getattr(reward, direction)
        scored = score(*given(["a red circle", long, "two circles"], tokens))
        others = score(*given(["a red circle", "two circles"], tokens[[0, 2]]))
        assert scored.isnan().tolist() == [False, True, False]
        torch.testing.assert_close(scored[[0, 2]], others, rtol=0, atol=0)
        assert score(*given([long], tokens[:1])).isnan().all()


def test_no_pass_holds_more_tokens_than_asked_for(shared_janus, prompts, drawn, monkeypatch):
    """Pictures that are decoded to be looked at are held no longer either."""
    sizes, decoded = [], []
    module = shared_janus.core.model.language_model
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    real = type(shared_janus).decode
    monkeypatch.setattr(
        type(shared_janus), "decode", lambda self, t: decoded.append(len(t)) or real(self, t)
    )
    asked = [prompts[i // 2] for i in range(8)]
    whole, cut = DualReward(shared_janus), DualReward(shared_janus, tokens_per_batch=128)
    for direction, given in (("understanding", (drawn, CAPTIONS)), ("generation", (asked, drawn))):
        expected = getattr(whole, direction)(*given)
        sizes.clear()
        decoded.clear()
        again = getattr(cut, direction)(*given)
        torch.testing.assert_close(again, expected, **BATCH, equal_nan=True)
        assert len(sizes) > 1
        assert max(rows * columns for rows, columns in sizes) <= 128
        assert max(decoded, default=0) <= 4
    sizes.clear()
    one = DualReward(shared_janus, tokens_per_batch=1).generation(asked, drawn)  # a pair at least
    torch.testing.assert_close(one, expected, **BATCH)
    handle.remove()
