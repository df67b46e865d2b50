"""Dual self-rewards against the textbook: one pair at a time, full logits, float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from suder.method import rewards
from suder.method.rewards import DualReward, check_rewards
from suder.models.base import NotFinite
from suder.models.decoder.adapter import DecoderModel
from tests.tolerances import TOLERANCES
from tests.trainer.families import CODES

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
def drawn():
    """Of every family's small model: 16 tokens a picture."""
    return torch.randint(CODES, (8, 16), generator=torch.Generator().manual_seed(2))


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
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("include_eos", [True, False])
def test_generation_equals_textbook(shared_janus, textbook, prompts, drawn, include_eos, reduction):
    asked = [prompts[i // 2] for i in range(8)]
    shown = shared_janus.pixels(shared_janus.decode(drawn))
    reward = DualReward(shared_janus, include_eos=include_eos, reduction=reduction)
    expected = generation_oracle(textbook, asked, shown, include_eos)
    if reduction == "sum":
        lengths = [len(textbook.ids(prompt)) - (not include_eos) for prompt in asked]
        expected = [length * mean for length, mean in zip(lengths, expected, strict=True)]
    assert_near(reward.generation(asked, drawn), expected)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_rewards_do_not_depend_on_the_batch(shared_model, pictures, prompts, drawn, batch_size):
    images = [pictures[i // 2] for i in range(8)]
    asked = [prompts[i // 2] for i in range(8)]
    for order in (range(8), [5, 2, 7, 0, 6, 1, 4, 3]):
        whole, cut = DualReward(shared_model), DualReward(shared_model, batch_size=batch_size)
        first = whole.understanding(images, CAPTIONS)[list(order)]
        again = cut.understanding([images[i] for i in order], [CAPTIONS[i] for i in order])
        torch.testing.assert_close(again, first, **BATCH, equal_nan=True)
        first = whole.generation(asked, drawn)[list(order)]
        again = cut.generation([asked[i] for i in order], drawn[list(order)])
        torch.testing.assert_close(again, first, **BATCH)


def test_every_form_of_the_inputs_gives_the_same(shared_model, pictures, prompts, drawn):
    reward = DualReward(shared_model)
    tokens = shared_model.encode(shared_model.pixels(pictures))
    expected = reward.understanding([pictures[i // 2] for i in range(8)], CAPTIONS)
    ids = shared_model.tokenize(CAPTIONS)
    for images, captions in [
        (pictures, CAPTIONS),
        ([Image.fromarray(picture) for picture in pictures], CAPTIONS),
        (np.repeat(pictures, 2, 0), ids),
        (tokens, [row[:-1] for row in ids]),
        (tokens.repeat_interleave(2, 0), CAPTIONS),
    ]:
        again = reward.understanding(images, captions, group=2)
        torch.testing.assert_close(again, expected, **BATCH, equal_nan=True)

    shown = shared_model.decode(drawn)
    if shared_model.reads_tokens:  # not what a picture of them would be encoded to
        drawn = shared_model.encode(shared_model.pixels(shown))
    expected = reward.generation([prompts[i // 2] for i in range(8)], drawn)
    for asked, images in [
        (prompts, drawn),
        (prompts, shown),
        (prompts, [Image.fromarray(picture.numpy()) for picture in shown]),
        ([prompts[i // 2] for i in range(8)], list(shown.numpy())),
    ]:
        again = reward.generation(asked, images, group=2)
        torch.testing.assert_close(again, expected, **BATCH)


def test_empty_texts_have_no_reward(shared_model, drawn):
    reward = DualReward(shared_model)
    assert reward.understanding(drawn[:2], ["", " "]).isnan().all()
    assert reward.generation(["", "a circle"], drawn[:2]).isnan().tolist() == [True, False]
    eos = torch.tensor([shared_model.eos_token_id])
    assert reward.understanding(drawn[:1], [eos]).isnan().all()
    assert reward.understanding(drawn[:0], []).shape == (0,)
    assert reward.generation([], drawn[:0]).shape == (0,)


def test_tokens_are_not_encoded_again(shared_model, drawn, monkeypatch):
    def fail(*_):
        raise AssertionError("tokens were decoded or encoded")

    reward = DualReward(shared_model)
    monkeypatch.setattr(type(shared_model), "encode", fail)
    monkeypatch.setattr(type(shared_model), "decode", fail)
    assert reward.understanding(drawn, CAPTIONS).shape == (8,)
    if shared_model.reads_tokens:
        assert reward.generation(CAPTIONS, drawn).shape == (8,)


def test_equal_candidates_are_scored_once(shared_model, prompts, drawn):
    rows = []
    module = shared_model.parts.language_model
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    reward = DualReward(shared_model)
    tokens = drawn[[0, 0, 1, 1]]
    scored = reward.understanding(tokens, ["a circle", "a circle", "a circle", "two"])
    assert sum(rows) == 3
    assert scored[0] == scored[1] != scored[2]
    rows.clear()
    scored = reward.generation(["a circle", "a circle", "a circle", "two"], tokens)
    assert sum(rows) == 3
    assert scored[0] == scored[1] != scored[2]
    handle.remove()


@pytest.mark.parametrize("limit", ["none", "few", "one"])
def test_prompts_for_one_picture_read_it_once(shared_model, prompts, pictures, monkeypatch, limit):
    """Whatever their number, in any order, and as far as the limit allows."""
    asked = [*prompts, "two", *prompts[:2], "a circle", *prompts]
    shown = [pictures[i] for i in (0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3)]
    order = [7, 3, 11, 0, 5, 8, 1, 10, 4, 2, 9, 6]
    looked, sizes = [], []
    real = DecoderModel.prefix

    def spy(self, direction, condition):
        looked.append(len(condition))
        return real(self, direction, condition)

    monkeypatch.setattr(DecoderModel, "prefix", spy)
    few = len(shared_model.prompts.question_ids) + 24
    tokens_per_batch = {"none": None, "few": few, "one": 1}[limit]
    alone = torch.cat(
        [
            DualReward(shared_model).generation([asked[i]], [Image.fromarray(shown[i])])
            for i in order
        ]
    )
    looked.clear()
    module = shared_model.parts.language_model
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    reward = DualReward(shared_model, tokens_per_batch=tokens_per_batch)
    together = reward.generation([asked[i] for i in order], [shown[i] for i in order])
    handle.remove()
    torch.testing.assert_close(together, alone, **BATCH)
    assert alone.std() > 0.1
    if limit == "none":
        assert sum(looked) == 4
    elif limit == "few":
        assert max(sizes) <= tokens_per_batch
        assert 4 < sum(looked) < 12
    else:
        assert sum(looked) == 12


def test_live_follows_the_model_and_frozen_does_not(fresh_model, drawn):
    live, frozen = DualReward(fresh_model), DualReward(fresh_model, scorer="frozen")
    before = live.understanding(drawn, CAPTIONS)
    torch.testing.assert_close(
        frozen.understanding(drawn, CAPTIONS), before, rtol=0, atol=0, equal_nan=True
    )
    with torch.no_grad():
        for parameter in fresh_model.trainable_parameters():
            parameter.mul_(1.1)
    after = live.understanding(drawn, CAPTIONS)
    assert (after - before).nan_to_num(0).abs().max() > 0.05
    torch.testing.assert_close(
        frozen.understanding(drawn, CAPTIONS), before, rtol=0, atol=0, equal_nan=True
    )


def test_frozen_is_the_base_model_where_there_are_adapters(fresh_model, drawn, monkeypatch):
    """No copy: adapters are off while it scores, on again after."""
    from contextlib import contextmanager

    states = []

    @contextmanager
    def without_adapters():
        states.append("off")
        yield
        states.append("on")

    monkeypatch.setattr(fresh_model, "has_adapters", lambda: True)
    monkeypatch.setattr(fresh_model, "without_adapters", without_adapters)
    frozen = DualReward(fresh_model, scorer="frozen")
    assert frozen.model is fresh_model
    frozen.understanding(drawn, CAPTIONS)
    assert states == ["off", "on"]
    DualReward(fresh_model).understanding(drawn, CAPTIONS)
    assert states == ["off", "on"]


def test_scoring_leaves_no_gradient_and_the_mode_as_it_was(fresh_model, drawn):
    fresh_model.train()
    scored = DualReward(fresh_model).understanding(drawn, CAPTIONS)
    assert not scored.requires_grad
    assert fresh_model.training


def test_the_reward_goes_through_the_op(shared_model, drawn, monkeypatch):
    """No logits of our own: hidden states, weight and bias go to suder_ext."""
    calls = []
    real = rewards.linear_sequence_logprob

    def spy(hidden, weight, target, cu_seqlens, bias, reduction):
        calls.append((len(target), len(cu_seqlens) - 1))
        return real(hidden, weight, target, cu_seqlens, bias, reduction=reduction)

    monkeypatch.setattr(rewards, "linear_sequence_logprob", spy)
    DualReward(shared_model, batch_size=4).understanding(drawn, CAPTIONS)
    assert calls == [(64, 4), (32, 2)]


def test_impossible_arguments_are_named(shared_model, drawn):
    reward = DualReward(shared_model)
    with pytest.raises(ValueError, match="images: 8 captions in groups of 1 take 8 or 8 images"):
        reward.understanding(drawn[:3], CAPTIONS)
    with pytest.raises(ValueError, match="captions: 8 of them are no whole number of groups of 3"):
        reward.understanding(drawn, CAPTIONS, group=3)
    with pytest.raises(ValueError, match="prompts: 8 images in groups of 2 take 4 or 8 prompts"):
        reward.generation(["a"] * 3, drawn, group=2)
    with pytest.raises(TypeError, match="strings or id tensors, got both"):
        reward.understanding(drawn[:2], ["a", torch.tensor([1])])
    with pytest.raises(ValueError, match="reduction: takes 'mean' or 'sum', got 'max'"):
        DualReward(shared_model, reduction="max")
    with pytest.raises(ValueError, match="scorer: takes 'live' or 'frozen', got 'dead'"):
        DualReward(shared_model, scorer="dead")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_a_broken_model_gives_nan_and_the_caller_is_told_on_asking(
    fresh_model, drawn, direction, value
):
    asked = "generation" if direction == "understanding" else "understanding"
    fresh_model.parts.last_layer(asked)[0].data[3, 2] = value
    fresh_model.core.config._name_or_path = "runs/broken/model"
    texts = CAPTIONS[:3]  # the last is empty
    given = (texts, drawn[:3]) if direction == "generation" else (drawn[:3], texts)
    reward = getattr(DualReward(fresh_model), direction)(*given)
    assert reward.isnan().all()
    says = rf"rewards \({direction}\): none of 3 .*, by runs/broken/model .*'a red circle'"
    with pytest.raises(NotFinite, match=says):
        check_rewards(fresh_model, direction, texts, reward)
    check_rewards(fresh_model, direction, [" ", ""], reward[:2])  # nothing that could have one
    reward[1] = -1.0
    check_rewards(fresh_model, direction, texts, reward)  # a candidate left out, no more


def test_a_text_that_is_too_long_has_no_reward(shared_model, drawn):
    """Neither does it cost the others theirs."""
    reward = DualReward(shared_model)
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


def test_no_pass_holds_more_tokens_than_asked_for(shared_model, prompts, drawn, monkeypatch):
    """Pictures that are decoded to be looked at are held no longer either."""
    sizes, decoded = [], []
    module = shared_model.parts.language_model
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    real = type(shared_model).decode
    monkeypatch.setattr(
        type(shared_model), "decode", lambda self, t: decoded.append(len(t)) or real(self, t)
    )
    asked = [prompts[i // 2] for i in range(8)]
    whole, cut = DualReward(shared_model), DualReward(shared_model, tokens_per_batch=128)
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
    one = DualReward(shared_model, tokens_per_batch=1).generation(asked, drawn)  # a pair at least
    torch.testing.assert_close(one, expected, **BATCH)
    handle.remove()
