"""Loading, saving and copying."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
import torch
from transformers import LlamaConfig

import suder
from suder.models import find
from suder.models.base import inference


def hidden_of(model, prompts):
    tokens = torch.arange(16 * len(prompts)).view(-1, 16) % 48
    with inference(model):
        return model("generation", prompts, tokens).hidden


def test_saved_and_loaded_it_is_the_same(janus, prompts, pictures, tmp_path):
    janus.save(tmp_path)
    loaded = suder.load_model(tmp_path)
    assert not loaded.training
    assert loaded.dtype == torch.float32
    assert torch.equal(hidden_of(loaded, prompts), hidden_of(janus, prompts))
    pixels = janus.pixels(pictures)
    assert torch.equal(loaded.pixels(pictures), pixels)
    assert torch.equal(loaded.encode(pixels), janus.encode(pixels))
    again = tmp_path / "again"
    loaded.save(again)
    assert torch.equal(hidden_of(suder.load_model(again), prompts), hidden_of(janus, prompts))


def test_the_image_processor_of_a_hub_checkpoint_needs_no_torchvision(janus, pictures, tmp_path):
    """Hub checkpoints name the torchvision class; the PIL one stands in where it is missing."""
    janus.save(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    assert settings["image_processor"]["image_processor_type"] == "JanusImageProcessor"
    loaded = suder.load_model(tmp_path)
    torch.testing.assert_close(loaded.pixels(pictures), janus.pixels(pictures), rtol=0, atol=1e-6)


def test_bfloat16(janus, prompts, pictures, tmp_path):
    janus.save(tmp_path)
    loaded = suder.load_model(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == loaded.pixels(pictures).dtype == torch.bfloat16
    samples = suder.sample(loaded, "generation", prompts, 2, guidance=2.0)
    assert samples.logprob.dtype == torch.float32
    assert suder.sample(loaded, "understanding", loaded.pixels(pictures)).finished.shape == (4,)


def test_another_family_is_refused(tmp_path):
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 'llama' checkpoint; suder has an adapter"):
        suder.load_model(tmp_path)


def test_a_missing_embedded_model_says_how_to_make_it(monkeypatch):
    monkeypatch.setitem(find.EMBEDDED, "shapes", "no-such-model-1")
    with pytest.raises(FileNotFoundError, match="suder pretrain --world shapes --seed 1 --output"):
        suder.load_model("shapes")


def test_numbers_of_image_tokens_must_agree(janus, tmp_path):
    janus.save(tmp_path)
    file = tmp_path / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["num_image_tokens"] = 9
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"numbers of image tokens disagree.*processor.*: 9"):
        suder.load_model(tmp_path)


def test_a_frozen_copy_stays_as_it_was(janus, prompts):
    before = hidden_of(janus, prompts)
    janus.train()
    frozen = janus.frozen_copy()
    assert janus.training
    assert all(parameter.requires_grad for parameter in janus.core.lm_head.parameters())
    assert frozen.trainable_parameters() == []
    with torch.no_grad():
        for parameter in janus.trainable_parameters():
            parameter.mul_(1.5)
    assert torch.equal(hidden_of(frozen, prompts), before)
    assert not torch.equal(hidden_of(janus, prompts), before)
    # What is never trained is not held twice.
    assert frozen.parts.vqmodel is janus.parts.vqmodel
    trained = {parameter.data_ptr() for parameter in janus.trainable_parameters()}
    assert trained.isdisjoint(
        parameter.data_ptr()
        for name, parameter in frozen.named_parameters()
        if "vqmodel" not in name
    )


class Wrapped(torch.nn.Module):
    """What a PEFT model looks like from outside: a wrapper whose adapters can be turned off."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.off = 0

    def get_base_model(self):
        return self.base

    @contextmanager
    def disable_adapter(self):
        self.off += 1
        yield
        self.off -= 1


def test_a_peft_model_is_looked_through(janus, prompts):
    plain = hidden_of(janus, prompts)
    wrapped = Wrapped(janus.core)
    adapter = suder.Janus(wrapped, janus.processor)
    assert torch.equal(hidden_of(adapter, prompts), plain)
    assert adapter.has_adapters()
    assert not janus.has_adapters()
    with adapter.without_adapters():
        assert wrapped.off == 1
    assert wrapped.off == 0


def test_an_adapter_on_the_last_layer_is_refused(janus, prompts):
    janus.core.model.generation_head.vision_head.base_layer = torch.nn.Identity()
    with pytest.raises(ValueError, match="leave lm_head and vision_head out of target_modules"):
        hidden_of(janus, prompts)
