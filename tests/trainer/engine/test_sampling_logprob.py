"""What the sampler says about its tokens: probabilities, ends, seeds, independence of the batch."""

from __future__ import annotations

import pytest
import torch

from suder.engine.sampling import FEWEST, batches, sample
from suder.models.base import inference
from suder_ext import linear_logprob
from tests.tolerances import TOLERANCES

LOGPROB = TOLERANCES["ratio", "cpu", torch.float32]["atol"]
BATCH = TOLERANCES["batch", "cpu", torch.float32]
ENTROPY = TOLERANCES["model", "cpu", torch.float32]
RULES = [{}, {"temperature": 0.6}, {"top_k": 4}, {"top_p": 0.7}, {"greedy": True}]


def replayed(model, direction, condition, samples, n, guidance=1.0, temperature=1.0):
    with inference(model):
        hidden = model(direction, condition, samples.tokens, n, guidance)
        return linear_logprob(
            hidden.hidden, hidden.weight, hidden.target, hidden.bias, temperature=temperature
        )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_captions_logprob_equals_teacher_forcing(shared_model, pictures, temperature):
    pixels = shared_model.pixels(pictures)
    drawn = sample(
        shared_model, "understanding", pixels, 6, temperature=temperature, max_new_tokens=9, seed=1
    )
    again = replayed(shared_model, "understanding", pixels, drawn, 6, temperature=temperature)
    assert (torch.cat(drawn.logprob) - again).abs().max() < LOGPROB
    assert 0 < drawn.finished.sum() < len(drawn.finished)


@pytest.mark.parametrize("null_prompt", ["fixed", "padded"])
@pytest.mark.parametrize(
    ("guidance", "temperature"), [(1.0, 1.0), (1.0, 0.6), (4.0, 1.0), (0.5, 1.3)]
)
def test_pictures_logprob_equals_teacher_forcing(
    make_janus, prompts, null_prompt, guidance, temperature
):
    """Guidance 1 is the policy "cond"; another scale is the policy "cfg", which is replayed too."""
    janus = make_janus(null_prompt=null_prompt)
    options = {"guidance": guidance, "temperature": temperature}
    drawn = sample(janus, "generation", prompts, 5, seed=2, **options)
    again = replayed(janus, "generation", prompts, drawn, 5, **options)
    assert (drawn.logprob.flatten() - again).abs().max() < LOGPROB


def test_the_policies_differ(shared_model, prompts):
    """Scoring guided samples without guidance, as peers do, is another distribution."""
    drawn = sample(shared_model, "generation", prompts, 5, guidance=4.0, seed=2)
    again = replayed(shared_model, "generation", prompts, drawn, 5)
    assert (drawn.logprob.flatten() - again).abs().max() > 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_ratio_is_one_on_fresh_samples(shared_model, prompts, guidance):
    """The policy ratio of the first update: exactly one against a replay of the same batch."""
    drawn = sample(shared_model, "generation", prompts, 4, guidance=guidance, seed=3)
    old = replayed(shared_model, "generation", prompts, drawn, 4, guidance)
    new = replayed(shared_model, "generation", prompts, drawn, 4, guidance)
    assert torch.equal((new - old).exp(), torch.ones_like(new))
    ratio = (new - drawn.logprob.flatten()).exp()
    assert (ratio - 1).abs().max() < LOGPROB


def test_logprob_is_of_the_restricted_distribution(shared_janus, textbook, prompts):
    drawn = sample(shared_janus, "generation", prompts, 3, top_k=4, seed=4)
    prefix = shared_janus.prompts.prompt_ids
    for i, (tokens, logprob) in enumerate(zip(drawn.tokens, drawn.logprob, strict=True)):
        logits = textbook.image_logits(prefix(prompts[i // 3]), tokens)
        kept = logits >= logits.topk(4).values[:, -1:]
        expected = logits.masked_fill(~kept, -torch.inf).log_softmax(-1)
        expected = expected.gather(-1, tokens[:, None])[:, 0]
        assert (logprob - expected).abs().max() < LOGPROB


def test_texts_end_with_their_only_eos(shared_model, pictures):
    pixels = shared_model.pixels(pictures)
    drawn = sample(shared_model, "understanding", pixels, 48, max_new_tokens=11, seed=5)
    eos = shared_model.eos_token_id
    for row, logprob, finished in zip(drawn.tokens, drawn.logprob, drawn.finished, strict=True):
        assert row.shape == logprob.shape
        assert (row[:-1] != eos).all()
        assert bool(row[-1] == eos) == bool(finished)
        assert finished or len(row) == 11
    lengths = {len(row) for row in drawn.tokens}
    assert len(lengths) > 3


def test_a_seed_is_a_result_and_another_is_another(shared_model, prompts):
    first, again, other = (
        sample(shared_model, "generation", prompts, 2, seed=seed).tokens for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(row.tolist()) for row in first}) == len(first)


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_candidates_do_not_depend_on_the_batch(shared_model, pictures, prompts, direction):
    """Not on how it is cut, nor on n, nor on the conditions that follow; logprob to rounding."""
    condition = shared_model.pixels(pictures) if direction == "understanding" else prompts

    def draw(count, n, batch_size):
        limits = {"batch_size": batch_size, "max_new_tokens": 16}
        return sample(shared_model, direction, condition[:count], n, seed=9, **limits)

    whole = draw(4, 8, 256)
    cuts = [(4, 8, 8), (4, 8, 20), (2, 8, 256), (4, 3, 256), (1, 1, 1)]
    # A batch smaller than one condition's candidates divides them.
    cuts += [(4, 8, 5), (4, 8, 3), (2, 8, 1), (2, 7, 2)]
    for count, n, batch_size in cuts:
        part = draw(count, n, batch_size)
        for i, (tokens, logprob) in enumerate(zip(part.tokens, part.logprob, strict=True)):
            same = i // n * 8 + i % n
            assert torch.equal(tokens, whole.tokens[same])
            torch.testing.assert_close(logprob, whole.logprob[same], **BATCH)
            torch.testing.assert_close(part.entropy[i], whole.entropy[same], **BATCH)


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_a_batch_bounds_the_memory_whatever_n(shared_model, pictures, prompts, direction):
    """Rows of the key/value cache: `candidates: 100000` of one input must not be one batch."""
    condition = shared_model.pixels(pictures) if direction == "understanding" else prompts
    rows = []
    module = shared_model.parts.language_model.layers[0].mlp
    handle = module.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    drawn = sample(shared_model, direction, condition[:2], 50, batch_size=16, max_new_tokens=3)
    handle.remove()
    assert len(drawn.tokens) == 100
    assert max(rows) <= 16
    seven = list(batches(2, 7, 2))  # fewer rows than four would be rounded otherwise
    assert [each for _, each in seven] == [7, 7]
    assert min(each for size in range(1, 99) for _, each in batches(1, 99, size)) >= FEWEST


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_logits_that_are_not_finite_are_an_error(
    fresh_model, pictures, prompts, direction, value, greedy
):
    """It would draw one token for ever. The error names model and input."""
    # Of infinity times a number of either sign one is positive; the other is no logit to draw.
    fresh_model.parts.last_layer(direction)[0].data[-2:, 2] = torch.tensor([value, -value])
    fresh_model.core.config._name_or_path = "runs/broken/model"
    condition = fresh_model.pixels(pictures) if direction == "understanding" else prompts
    given = "picture 0 of 4" if direction == "understanding" else f"prompt {prompts[0]!r}"
    with pytest.raises(ValueError, match=f"not finite from runs/broken/model.*{given}"):
        sample(fresh_model, direction, condition, 3, greedy=greedy)


def test_dropping_ended_rows_changes_nothing(shared_model, pictures, monkeypatch):
    pixels = shared_model.pixels(pictures)
    dropped = sample(shared_model, "understanding", pixels, 8, seed=10)
    monkeypatch.setattr("suder.engine.writing.STEPS_BETWEEN_LOOKS", 1000)
    kept = sample(shared_model, "understanding", pixels, 8, seed=10)
    assert all(map(torch.equal, dropped.tokens, kept.tokens))
    for ours, theirs in zip(dropped.logprob, kept.logprob, strict=True):
        torch.testing.assert_close(ours, theirs, **BATCH)


def test_each_condition_is_read_once(shared_model, prompts, pictures):
    rows = []
    module = shared_model.parts.language_model
    handle = module.layers[0].register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    steps = module.layers[0].mlp.register_forward_pre_hook(
        lambda _, args: rows.append(len(args[0]))
    )
    sample(shared_model, "generation", prompts, 8)
    handle.remove()
    steps.remove()
    # The prefixes pass through the layer itself, steps through its parts.
    row_ends = 3 if shared_model.parts.row else 0  # which are read as a token is
    assert rows == [4, 4] + [32] * (shared_model.num_image_tokens - 1 + row_ends)


def test_sampling_leaves_the_mode_as_it_was(fresh_model, prompts):
    fresh_model.train()
    sample(fresh_model, "generation", prompts[:1])
    assert fresh_model.training
    assert not fresh_model.parts.vqmodel.training
    assert all(parameter.grad is None for parameter in fresh_model.parameters())


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_samples_can_take_part_in_a_loss(fresh_model, prompts, pictures, direction):
    condition = fresh_model.pixels(pictures) if direction == "understanding" else prompts
    drawn = sample(fresh_model, direction, condition, 2, max_new_tokens=5)
    hidden = fresh_model(direction, condition, drawn.tokens, 2)
    new = linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias)
    (new * torch.cat(list(drawn.logprob))).sum().backward()
    assert fresh_model.core.get_input_embeddings().weight.grad.abs().sum() > 0
    # Ids that sampling was the first to need are remembered, and must serve training as well.
    assert not any(fresh_model.prompts.prompt_ids(prompt).is_inference() for prompt in prompts)


def test_gradient_checkpointing_does_not_change_samples(fresh_model, prompts):
    """transformers drops the cache of a checkpointed model in training mode."""
    expected = sample(fresh_model, "generation", prompts, seed=3).tokens
    old_name = "gradient_checkpointing_enable"  # renamed in transformers 5.24
    enable = getattr(fresh_model.core, "activation_checkpointing_enable", None)
    (enable or getattr(fresh_model.core, old_name))()
    assert torch.equal(sample(fresh_model.train(), "generation", prompts, seed=3).tokens, expected)


def test_no_conditions_no_candidates(shared_model):
    drawn = sample(shared_model, "generation", [])
    assert drawn.tokens.shape == (0, 16)
    captions = sample(shared_model, "understanding", torch.zeros(0, 3, 32, 32))
    assert captions.tokens == []
    assert captions.finished.shape == (0,)


def test_impossible_numbers_are_refused(shared_janus, prompts):
    with pytest.raises(ValueError, match="take integers from 1, got 0, 32, 256"):
        sample(shared_janus, "generation", prompts, 0)
    for scale in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="guidance: takes a finite number"):
            sample(shared_janus, "generation", prompts, guidance=scale)


@pytest.mark.parametrize("options", RULES, ids=str)
@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_entropy_is_that_of_the_distribution_drawn_from(
    shared_janus, textbook, prompts, pictures, direction, options
):
    """Against float64, all logits held: after temperature and truncation, as long as the tokens."""
    given = prompts if direction == "generation" else shared_janus.pixels(pictures)
    drawn = sample(shared_janus, direction, given, 3, seed=4, max_new_tokens=9, **options)
    for i, (tokens, entropy) in enumerate(zip(drawn.tokens, drawn.entropy, strict=True)):
        assert entropy.shape == tokens.shape
        assert entropy.dtype == torch.float32
        if direction == "generation":
            logits = textbook.image_logits(shared_janus.prompts.prompt_ids(prompts[i // 3]), tokens)
        else:
            logits = textbook.text_logits(given[i // 3], tokens)
        expected = entropies(logits / options.get("temperature", 1.0), options)
        torch.testing.assert_close(entropy.double(), expected, **ENTROPY)


def entropies(logits, options):
    probability = logits.softmax(-1)
    if "top_k" in options:
        kept = logits >= logits.topk(options["top_k"]).values[:, -1:]
        probability = logits.masked_fill(~kept, -torch.inf).softmax(-1)
    if "top_p" in options:
        value, place = probability.sort(-1, descending=True)
        before = value.cumsum(-1) - value
        value = value.masked_fill(before >= options["top_p"], 0.0)
        probability = torch.zeros_like(value).scatter_(-1, place, value)
        probability /= probability.sum(-1, keepdim=True)
    return torch.special.entr(probability).sum(-1)
