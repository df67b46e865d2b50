"""Questions with yes and no: as many of each, near misses among them, the textbook loss."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from suder.models.janus.layout import understanding_ids
from suder.pretrain import questions, vq, warmup
from suder.pretrain.architecture import Sizes, build_janus
from suder.pretrain.questions import Partners
from suder.world.catalogue import world

SMALL = Sizes(hidden=32, layers=1, heads=2, mlp=64, vision_hidden=32, vision_layers=1, codebook=64)
WORDS = (
    *world("shapes").words,
    "does",
    "this",
    "picture",
    "show",
    "?",
    "answer",
    "yes",
    "or",
    "no",
)
CAPTIONS = [f"{thing}, {style}" for thing in ("apple", "pear", "bell") for style in ("old", "new")]


def test_half_is_true_and_half_of_the_rest_differs_in_one_word():
    generator = torch.Generator().manual_seed(0)
    partners = Partners(CAPTIONS * 3)
    kinds: Counter[str] = Counter()
    asked: Counter[tuple[str, bool]] = Counter()
    for _ in range(300):
        texts, truth = partners.draw(CAPTIONS[:4], generator)
        assert truth == [True, False, True, False]
        for caption, text, true in zip(CAPTIONS, texts, truth, strict=False):
            assert (text == caption) == true
            assert text in CAPTIONS
            asked[text, true] += 1
            if not true:
                thing, style = (
                    one == other for one, other in zip(caption.split(), text.split(), strict=True)
                )
                kinds["thing" if style else "style" if thing else "both"] += 1
    # Of 600: each word in a quarter; the rest any of the five others, two by thing, one by style.
    assert 180 < kinds["thing"] < 360
    assert 140 < kinds["style"] < 280
    assert 60 < kinds["both"] < 180


def test_a_caption_without_near_ones_has_any_other_as_its_partner():
    generator = torch.Generator().manual_seed(0)
    texts, truth = Partners(["a b", "c d e", "f"]).draw(["a b"] * 40, generator)
    assert {text for text, true in zip(texts, truth, strict=True) if not true} == {"c d e", "f"}
    assert Partners(["a"]).draw(["a", "a"], generator) == (["a", "a"], [True, True])


def test_the_loss_is_the_textbook_one():
    """One question at a time, unpadded, against the batch of mixed lengths."""
    model, processor = build_janus(WORDS, seed=0, sizes=SMALL)
    pictures, captions = world("shapes").pairs("supervised", 6, 0)
    pixels = vq.to_pixels(torch.from_numpy(pictures))
    truth = [True, False] * 3
    asked = questions.answers(processor, captions, truth)
    assert len({len(one) for one in asked.questions}) > 1
    scores = []
    for row, (question, answer) in enumerate(zip(*asked, strict=True)):
        word = processor.tokenizer.decode(answer, skip_special_tokens=True)
        assert word == ("yes" if truth[row] else "no")
        ids = torch.cat([question, answer])[None]
        logits = model(input_ids=ids, pixel_values=pixels[row : row + 1]).logits[0].double()
        found = logits[len(question) - 1 : -1].log_softmax(-1)
        scores.append(found.gather(1, answer[:, None])[:, 0])
    loss = questions.judging_loss(model, asked, pixels)
    torch.testing.assert_close(loss.double(), -torch.cat(scores).mean(), rtol=1e-5, atol=0)


def test_a_question_is_asked_in_the_words_it_will_be_asked_in():
    _, processor = build_janus(WORDS, seed=0, sizes=SMALL)
    asked = questions.answers(processor, ["a red ring"], [True]).questions[0]
    text = "Does this picture show a red ring? Answer yes or no."
    assert torch.equal(asked, understanding_ids(processor, text))
    assert processor.tokenizer.unk_token_id not in asked


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_warm_up_asks_where_its_recipe_says_so(share):
    model, processor = build_janus(WORDS, seed=0, sizes=SMALL)
    pictures, captions = world("shapes").pairs("supervised", 16, 0)
    pairs = warmup.prepare_pairs(model, processor, torch.from_numpy(pictures), captions)
    settings = warmup.WarmupSettings(steps=25, batch=8, lr=1e-2, judged=share)
    rows: list[dict[str, float]] = []
    warmup.train_warmup(model, processor, pairs, settings, seed=0, log=rows.append)
    assert all(("judging" in row) == (share > 0) for row in rows)
    if share:
        assert rows[-1]["judging"] < 0.8 * rows[0]["judging"]
