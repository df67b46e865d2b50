"""Greedy decoding equals transformers' `generate`, in both modes."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from suder.engine.sampling import sample
from suder.models.janus.layout import generation_ids, understanding_ids
from tests.tolerances import TOLERANCES

BATCH = TOLERANCES["batch", "cpu", torch.float32]


def generate_image(janus, prompt, scale):
    ids = generation_ids(janus.processor, prompt)[None]
    try:
        return janus.core.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_mode="image",
            do_sample=False,
            guidance_scale=scale,
        )[0]
    except TypeError as error:
        if "prefill_chunk_size" not in str(error):
            raise
        pytest.skip(f"Janus's generate of transformers {transformers.__version__} raises: {error}")


def test_captions_equal_generate(shared_janus, pictures):
    pixels = shared_janus.pixels(pictures)
    ours = sample(shared_janus, "understanding", pixels, greedy=True, max_new_tokens=20)
    ids = understanding_ids(shared_janus.processor)[None]
    for i, row in enumerate(ours.tokens):
        theirs = shared_janus.core.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels[i : i + 1],
            generation_mode="text",
            do_sample=False,
            max_new_tokens=20,
        )[0, ids.shape[1] :]
        assert row.tolist() == theirs.tolist()


@pytest.mark.parametrize("scale", [1.5, 5.0])
def test_pictures_equal_generate(make_janus, prompts, scale):
    """With the null prompt of `generate`, as long as the prompt itself: the default."""
    janus = make_janus()
    ours = sample(janus, "generation", prompts, greedy=True, guidance=scale)
    for row, prompt in zip(ours.tokens, prompts, strict=True):
        assert row.tolist() == generate_image(janus, prompt, scale).tolist()


def test_the_null_prompt_of_generate_leaks_the_length(make_janus, prompts):
    """And "fixed" does not: the pictures differ where it leaks."""
    fixed, padded = make_janus(null_prompt="fixed"), make_janus()
    ours = sample(fixed, "generation", prompts, greedy=True, guidance=5.0).tokens
    theirs = sample(padded, "generation", prompts, greedy=True, guidance=5.0).tokens
    assert (ours != theirs).any(1).sum() >= 3
    parts = fixed.parts
    frame = len(generation_ids(fixed.processor, ""))
    assert fixed.prompts.null(parts, "generation", [9, 20]).lengths == [frame, frame]
    assert padded.prompts.null(parts, "generation", [9, 20]).lengths == [9, 20]


def test_greedy_candidates_of_one_condition_are_equal(shared_model, prompts):
    drawn = sample(shared_model, "generation", prompts, 3, greedy=True).tokens
    rows = drawn.unflatten(0, (len(prompts), 3))
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert len({tuple(row.tolist()) for row in rows[:, 0]}) > 1


def test_pictures_are_asked_what_each_is_asked(shared_model, pictures):
    """As a model that is set up with that question is, whatever the others of the batch are."""
    model, asked = shared_model, ["a red circle", "two", "a blue square above a red one", "two"]
    options = {"greedy": True, "max_new_tokens": 6}
    pixels = model.pixels(pictures)
    together = sample(model, "understanding", pixels, questions=asked, batch_size=3, **options)
    for i, question in enumerate(asked):
        alone = copy.copy(model)
        alone.prompts = copy.copy(model.prompts)
        alone.prompts.question_ids = model.question_ids(question)
        usual = sample(alone, "understanding", pixels[i : i + 1], **options)
        assert together.tokens[i].tolist() == usual.tokens[0].tolist()
        torch.testing.assert_close(together.logprob[i], usual.logprob[0], **BATCH)
    own = sample(model, "understanding", pixels, **options)
    assert any(a.tolist() != b.tolist() for a, b in zip(own.tokens, together.tokens, strict=True))
    with pytest.raises(ValueError, match="questions: 4 conditions take as many, got 1"):
        sample(model, "understanding", pixels, questions=asked[:1])
    with pytest.raises(ValueError, match="asked about pictures"):
        sample(model, "generation", asked, questions=asked)
