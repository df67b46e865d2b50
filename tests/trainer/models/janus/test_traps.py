"""Traps of transformers' Janus that an adapter walks into, one test each."""

from __future__ import annotations

import copy
import inspect
import warnings

import pytest
import torch
from transformers import GenerationConfig

from suder.engine.sampling import sample
from suder.models import Janus, load_model
from suder.models.base import inference
from suder.models.decoder import decoding
from suder.pretrain.architecture import build_janus
from tests.tolerances import TOLERANCES


@pytest.mark.parametrize("guidance", [1.0, 0.5, 0.0])
def test_guidance_of_one_and_below(shared_janus, prompts, guidance):
    """`generate` doubles the batch and halves it only above 1: it cannot draw without guidance."""
    drawn = sample(shared_janus, "generation", prompts, 2, guidance=guidance)
    assert drawn.tokens.shape == (8, 16)


def test_no_generation_config_is_needed(make_janus, prompts, pictures):
    """`generate` needs `generation_kwargs["boi_token_id"]` and an attention mask."""
    bare = make_janus()
    bare.core.generation_config = GenerationConfig()
    expected = sample(make_janus(), "generation", prompts, guidance=2.0).tokens
    assert torch.equal(sample(bare, "generation", prompts, guidance=2.0).tokens, expected)
    captions = sample(bare, "understanding", bare.pixels(pictures))
    assert captions.finished.any()


def test_pictures_are_scored_by_the_generation_head(shared_janus, prompts):
    """transformers' forward knows lm_head only, and the image head has a hidden layer."""
    core = shared_janus.core
    tokens = torch.arange(64).view(4, 16) % 48
    with inference(shared_janus):
        scored = shared_janus("generation", prompts, tokens)
    head = core.model.generation_head
    assert scored.weight is head.vision_head.weight
    assert scored.bias is head.vision_head.bias
    assert scored.hidden.shape == (64, head.vision_head.in_features)


def test_encoding_normalises_codes(janus, pictures):
    """The codebook's lengths must not matter; transformers' quantiser lets them."""
    pixels = janus.pixels(pictures)
    tokens = janus.encode(pixels)
    codebook = janus.parts.vqmodel.quantize.embedding.weight
    lengths = torch.rand(len(codebook), 1, generator=torch.Generator().manual_seed(0)) * 3 + 0.2
    with torch.no_grad():
        codebook.mul_(lengths)
        theirs = janus.parts.vqmodel.encode(pixels).image_tokens.view(4, -1)
    assert torch.equal(janus.encode(pixels), tokens)
    assert (theirs != tokens).float().mean() > 0.02
    assert tokens.shape == (4, 16)  # theirs are flat


def test_what_is_encoded_is_what_is_decoded(janus, pictures):
    """The code chosen for a feature is the entry that the decoder is given for it."""
    vqmodel = janus.parts.vqmodel
    with torch.no_grad():
        vqmodel.quantize.embedding.weight.mul_(torch.linspace(0.5, 2, 48)[:, None])
        entries = vqmodel.quantize.get_codebook_entry(torch.arange(48).view(3, 16))
        directions = entries.permute(0, 2, 3, 1).reshape(48, -1)
        features = vqmodel.quant_conv(vqmodel.encoder(janus.pixels(pictures)))
    features = features.permute(0, 2, 3, 1).flatten(1, 2)
    assert torch.equal((features @ directions.T).argmax(-1), janus.encode(janus.pixels(pictures)))


def test_bfloat16_pictures_into_a_bfloat16_vq_model(janus, pictures):
    """transformers raises if pixels are float32 and the VQ model is not."""
    exact = janus.pixels(pictures)
    rounded = copy.deepcopy(janus).to(torch.bfloat16)
    assert rounded.pixels(pictures).dtype == torch.bfloat16
    tokens = rounded.encode(exact)
    assert tokens.dtype == torch.int64
    assert (tokens == janus.encode(exact)).float().mean() > 0.8
    assert rounded.decode(tokens).dtype == torch.uint8


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings(tied, prompts, pictures, tmp_path):
    """JanusConfig ties lm_head to the embeddings by default; then they are one parameter."""
    from transformers import JanusForConditionalGeneration

    untied, processor = build_janus(prompts, seed=0)
    config = copy.deepcopy(untied.config)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    model = JanusForConditionalGeneration(config)
    janus = Janus(model, processor)
    embeddings = model.get_input_embeddings().weight
    assert (model.lm_head.weight.data_ptr() == embeddings.data_ptr()) == tied
    trained = janus.trainable_parameters()
    assert len({parameter.data_ptr() for parameter in trained}) == len(trained)

    janus.save(tmp_path)
    loaded = load_model(tmp_path)
    words = loaded.core.get_input_embeddings().weight
    assert (loaded.core.lm_head.weight.data_ptr() == words.data_ptr()) == tied
    assert torch.equal(loaded.core.lm_head.weight, model.lm_head.weight)
    pixels = loaded.pixels(pictures)
    drawn = sample(loaded, "understanding", pixels, greedy=True, max_new_tokens=4)
    again = sample(janus.frozen_copy(), "understanding", pixels, greedy=True, max_new_tokens=4)
    assert all(map(torch.equal, drawn.tokens, again.tokens))


def test_training_mode_leaves_the_vq_model_alone(janus):
    """model.train() would put it in training mode, and its parameters ask for gradients."""
    janus.train()
    assert janus.core.model.language_model.training
    assert not any(module.training for module in janus.parts.vqmodel.modules())
    trained = {id(parameter) for parameter in janus.trainable_parameters()}
    frozen = {id(parameter) for parameter in janus.parts.vqmodel.parameters()}
    everything = {id(parameter) for parameter in janus.parameters()}
    assert trained == everything - frozen
    assert not any(parameter.requires_grad for parameter in janus.parts.vqmodel.parameters())


def test_the_cache_goes_by_position(shared_janus, prompts):
    """Its keyword was `past_key_values`, is `cache`, and the old name goes in 5.40."""
    source = inspect.getsource(decoding)
    assert "past_key_values" not in source
    assert "cache=" not in source.replace("use_cache=", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(shared_janus, "generation", prompts[:1])


def test_no_step_reads_the_prompt_again(shared_janus, prompts):
    """Image generation broke in transformers 5 when a step was given the whole prompt's ids."""
    shapes = []
    module = shared_janus.core.model.language_model
    handle = module.register_forward_pre_hook(lambda _, args: shapes.append(args[4].shape))
    steps = module.layers[0].mlp.register_forward_pre_hook(
        lambda _, args: shapes.append(args[0].shape)
    )
    sample(shared_janus, "generation", prompts, guidance=2.0)
    handle.remove()
    steps.remove()
    longest = max(len(shared_janus.prompts.prompt_ids(prompt)) for prompt in prompts)
    assert shapes[:2] == [(8, longest, 32)] * 2
    assert shapes[2:] == [(8, 32)] * 15


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_prompts_of_different_lengths_do_not_touch(shared_janus, prompts, guidance):
    together = sample(shared_janus, "generation", prompts, greedy=True, guidance=guidance)
    for i, prompt in enumerate(prompts):
        alone = sample(shared_janus, "generation", [prompt], greedy=True, guidance=guidance)
        assert torch.equal(alone.tokens[0], together.tokens[i])
        torch.testing.assert_close(
            alone.logprob[0], together.logprob[i], **TOLERANCES["batch", "cpu", torch.float32]
        )


def test_attention_stops_behind_what_is_written(shared_janus, prompts):
    """transformers' static cache attends to its whole length at every step."""
    with inference(shared_janus):
        steps = shared_janus.start("generation", prompts, 3, 16)
        whole = shared_janus.start("generation", prompts, 3, 16)
        steps.make_room()
        whole.make_room()
        for tokens in torch.arange(36).view(3, 12):
            steps.advance(tokens, 4)
            whole.advance(tokens, 15)
    longest = max(len(shared_janus.prompts.prompt_ids(prompt)) for prompt in prompts)
    assert steps.cache.mask_seen.shape[-1] == longest + 4
    assert steps.cache.own[0][0].shape == (12, 2, 15, 16)
    assert steps.cache.written == 3
    torch.testing.assert_close(
        steps.hidden, whole.hidden, **TOLERANCES["model", "cpu", torch.float32]
    )


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_a_prefix_is_kept_once_for_all_that_continue_it(shared_janus, pictures, prompts, direction):
    condition = prompts if direction == "generation" else shared_janus.pixels(pictures)
    with inference(shared_janus):
        few, many = (shared_janus.start(direction, condition, n, 16) for n in (1, 50))
    for one, other in zip(few.cache.prefix, many.cache.prefix, strict=True):
        assert one[0].shape == other[0].shape
        assert len(one[0]) == 4
        assert torch.equal(one[0], other[0])


@torch.no_grad()
def test_what_is_longer_than_the_models_positions_is_refused(shared_janus):
    """Beyond them a model was never trained; the last token that fits is one that nobody reads."""
    limit, steps = shared_janus.positions, shared_janus.num_image_tokens
    frame = len(shared_janus.prompts.prompt_ids("red")) - 1
    fits = "red " * (limit - steps + 1 - frame)
    tokens = torch.zeros(1, steps, dtype=torch.int64)
    for text, runs in ((fits, True), (fits + "red", False)):
        assert ("more than the model's 256 positions" in shared_janus.too_long(
            "generation", text)) is not runs  # fmt: skip
        for use in (
            lambda text=text: shared_janus.start("generation", [text], 1, steps),
            lambda text=text: shared_janus("generation", [text], tokens),
        ):
            if runs:
                use()
            else:
                with pytest.raises(ValueError, match=r"prompt 'red red .* more than the model's"):
                    use()


@torch.no_grad()
def test_the_longest_text_about_a_picture_is_said_before(shared_janus, pictures):
    longest = shared_janus.longest_text
    pixels = shared_janus.pixels(pictures[:1])
    for count, runs in ((longest, True), (longest + 1, False)):
        text = "red " * (count - 1)  # and EOS
        assert (not shared_janus.too_long("understanding", text)) is runs
        for use in (
            lambda count=count: shared_janus.start("understanding", pixels, 1, count),
            lambda t=text: shared_janus("understanding", pixels, shared_janus.tokenize([t])),
        ):
            if runs:
                use()
            else:
                with pytest.raises(ValueError, match=r"a picture: .* more than the model's"):
                    use()
