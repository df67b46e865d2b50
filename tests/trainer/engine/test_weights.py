"""The 16-bit copy that steps read: made once, of the present weights, with the same tokens."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from suder.engine.sampling import sample
from suder.engine.weights import places, to_sample_with
from suder.models.base import inference
from suder.models.janus.adapter import Janus
from suder.models.merged import replaced_layers, unwrapped
from suder.settings.learning import Lora
from suder_ext import linear_logprob
from tests.tolerances import TOLERANCES
from tests.trainer.engine.recorder import Recorder


@pytest.fixture
def narrow(janus):
    janus.compute = torch.bfloat16
    return janus


@pytest.fixture
def narrow_of_any_family(fresh_model):
    fresh_model.compute = torch.bfloat16
    return fresh_model


def linear_layers(model):
    parts = (model.core.model.language_model, model.core.model.generation_head, model.core.lm_head)
    parts += (model.core.model.generation_aligner,)
    return [one for part in parts for one in part.modules() if isinstance(one, torch.nn.Linear)]


def with_lora(model):
    pytest.importorskip("peft")
    model.add_lora(Lora(rank=3), seed=0)
    make = torch.Generator().manual_seed(1)
    for weight in model.trainable_parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=make)
    return model


def test_no_copy_is_made_for_float32(janus):
    assert to_sample_with(janus) is janus
    assert to_sample_with(janus.to(torch.bfloat16)) is janus


def test_what_it_shares_and_what_not(narrow):
    twin = to_sample_with(narrow)
    assert {layer.weight.dtype for layer in linear_layers(twin)} == {torch.bfloat16}
    assert {layer.weight.dtype for layer in linear_layers(narrow)} == {torch.float32}
    for ours, theirs in zip(linear_layers(twin), linear_layers(narrow), strict=True):
        assert torch.equal(ours.weight, theirs.weight.bfloat16())
    assert twin.parts.vqmodel is narrow.parts.vqmodel
    assert twin.core.get_input_embeddings().weight is narrow.core.get_input_embeddings().weight
    norms = (model.core.model.language_model.norm.weight for model in (twin, narrow))
    assert next(norms) is next(norms)
    assert not any(
        weight.requires_grad for layer in linear_layers(twin) for weight in layer.parameters()
    )
    assert all(
        weight.requires_grad for layer in linear_layers(narrow) for weight in layer.parameters()
    )


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_no_matrix_is_converted_in_a_step(narrow, prompts, pictures, direction):
    """It was done to each of them, at every step."""
    condition = prompts if direction == "generation" else narrow.pixels(pictures)

    def converted(model):
        # In inference mode, as `sample`, where autocast keeps no casts.
        with torch.inference_mode(), narrow.computing():
            steps = model.start(direction, condition, 4, 16)
            steps.make_room()
            steps.advance(torch.arange(16), 15)
            with Recorder() as recorder:
                steps.advance(torch.arange(16), 15)
                steps.features()
        shapes = {layer.weight.shape for layer in linear_layers(narrow)}
        casts = [
            call for call in recorder.record if call[0] in ("aten::to.dtype", "aten::_to_copy")
        ]
        return [call for call in casts if call[1][0][0] in shapes]

    assert len(converted(narrow)) >= 14
    assert converted(to_sample_with(narrow)) == []


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_the_tokens_are_those_of_autocast(
    narrow_of_any_family, prompts, pictures, direction, monkeypatch
):
    condition = prompts if direction == "generation" else narrow_of_any_family.pixels(pictures)
    ours = sample(narrow_of_any_family, direction, condition, 6, seed=3)
    monkeypatch.setattr("suder.engine.sampling.to_sample_with", lambda model: model)
    theirs = sample(narrow_of_any_family, direction, condition, 6, seed=3)
    assert all(map(torch.equal, ours.tokens, theirs.tokens))
    assert all(map(torch.equal, ours.logprob, theirs.logprob))


def test_it_follows_the_weights_and_stays_where_it_is(narrow, prompts):
    """After a step of the optimiser, an average swapped in, and with new adapters."""
    sample(narrow, "generation", prompts)
    twin = to_sample_with(narrow)
    where = places(twin)
    with torch.no_grad():
        for weight in narrow.trainable_parameters():
            weight.add_(0.1)
    weight = narrow.core.lm_head.weight
    weight.data = weight.data.flip(0).contiguous()
    assert to_sample_with(narrow) is twin
    assert places(twin) == where
    for ours, theirs in zip(linear_layers(twin), linear_layers(narrow), strict=True):
        assert torch.equal(ours.weight, theirs.weight.bfloat16())
    other = to_sample_with(with_lora(narrow))
    assert other is not twin
    assert to_sample_with(narrow) is other


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_the_gap_to_training_is_bounded(narrow_of_any_family, prompts, pictures, direction, lora):
    """What a run logs as `sampler_gap`, with adapters merged too."""
    model = with_lora(narrow_of_any_family) if lora else narrow_of_any_family
    condition = prompts if direction == "generation" else model.pixels(pictures)
    drawn = sample(model, direction, condition, 16, seed=1)
    with inference(model):
        hidden = model(direction, condition, drawn.tokens, 16)
        again = linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias)
    gap = (torch.cat(list(drawn.logprob)) - again).abs()
    kind = "merged" if lora else "ratio"
    assert gap.max() < TOLERANCES[kind, "cpu", torch.bfloat16]["atol"]
    assert gap.mean() < TOLERANCES[f"mean_{kind}", "cpu", torch.bfloat16]["atol"]
    assert gap.max() > 1e-4


def test_adapters_are_merged_and_can_be_off(narrow, textbook_of):
    base = [layer.weight.clone() for layer in linear_layers(narrow)]
    model = with_lora(narrow)
    merged = linear_layers(to_sample_with(model))
    assert len(merged) == len(base)
    layer = model.core.model.language_model.layers[0].mlp.down_proj
    expected = layer.base_layer.weight + layer.get_delta_weight("default")
    twin = to_sample_with(model).core.model.language_model.layers[0].mlp.down_proj
    assert type(twin) is torch.nn.Linear
    assert torch.equal(twin.weight, expected.bfloat16())
    with model.without_adapters():
        off = linear_layers(to_sample_with(model))
        assert all(torch.equal(a.weight, b.bfloat16()) for a, b in zip(off, base, strict=True))
    assert torch.equal(twin.weight, off[merged.index(twin)].weight)
    to_sample_with(model)
    assert torch.equal(twin.weight, expected.bfloat16())


def test_it_goes_with_its_model(make_janus, prompts):
    model: Janus = make_janus(compute=torch.bfloat16)
    sample(model, "generation", prompts)
    twin = weakref.ref(to_sample_with(model))
    del model
    gc.collect()
    assert twin() is None


def two_adapters(model):
    from peft import LoraConfig

    model.model.add_adapter("other", LoraConfig(r=2, lora_alpha=5, target_modules=["v_proj"]))
    model.model.base_model.set_adapter(["default", "other"])


def one_merged_by_peft(model):
    model.model.merge_adapter()


def off(model):
    model.model.base_model.disable_adapter_layers()


def as_it_is(model):
    pass


@pytest.mark.parametrize("change", [as_it_is, two_adapters, one_merged_by_peft, off])
def test_lora_is_merged_without_a_copy_of_the_layer(narrow, change, monkeypatch):
    """The bits of what PEFT merges, at every refresh; it took a fifth of sampling."""
    model = with_lora(narrow)
    change(model)
    twin = to_sample_with(model)
    make = torch.Generator().manual_seed(2)
    for weight in model.parameters():
        if weight.requires_grad:
            # Through `.data`, which no version counter sees: training of others does so.
            weight.data += 0.1 * torch.randn(weight.shape, generator=make)
    expected = {
        name: weight.bfloat16()
        for name, weight in (base_weights(model) if change is off else merged_weights(model))
    }
    with monkeypatch.context() as patch:
        patch.setattr("suder.models.inference_copy._plain", None)
        assert to_sample_with(model) is twin
    layers = twin.core.model.language_model.named_modules()
    found = {name: one.weight for name, one in layers if isinstance(one, torch.nn.Linear)}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def base_weights(model):
    for name, layer in replaced_layers(model.core.model.language_model):
        yield name, layer.base_layer.weight


def merged_weights(model):
    for name, layer in replaced_layers(model.core.model.language_model):
        yield name, unwrapped(name, layer).weight


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_other_kinds_of_lora_are_merged_by_peft(make_janus, options):
    peft = pytest.importorskip("peft")
    model: Janus = make_janus(compute=torch.bfloat16)
    for layer in model.core.model.language_model.layers:
        layer.mlp.up_proj.bias = torch.nn.Parameter(torch.ones(layer.mlp.up_proj.out_features))
    settings = peft.LoraConfig(r=2, target_modules=r".*language_model\..*\.up_proj", **options)
    model.model = peft.get_peft_model(model.core, settings)
    make = torch.Generator().manual_seed(1)
    for weight in model.trainable_parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=make)
    twin = to_sample_with(model).core.model.language_model
    for name, layer in replaced_layers(model.core.model.language_model):
        plain = unwrapped(name, layer)
        assert torch.equal(twin.get_submodule(name).weight, plain.weight.bfloat16())
        assert torch.equal(twin.get_submodule(name).bias, plain.bias.bfloat16())
