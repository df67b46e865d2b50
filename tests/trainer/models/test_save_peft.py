"""A saved model is the model, whatever PEFT has put into it; or saving is refused."""

from __future__ import annotations

import copy
import inspect
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from suder.models import Janus, load_model
from suder.models.base import inference

LAYERS = r".*language_model\..*\.(q_proj|down_proj)"
# What a kind needs besides the layers to be put into a model this small.
NEEDS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 20},
    "IA3": {"feedforward_modules": r".*down_proj"},
    "LN_TUNING": {"target_modules": r".*language_model\..*norm"},
    "LORA": {},
    "OFT": {"oft_block_size": 4, "r": 0},
    "ROAD": {"group_size": 32},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [1, 12, 13]},
    "VBLORA": {"vector_length": 16, "num_vectors": 8},
    "WAVEFT": {"n_frequency": 20},
} | {
    kind: {}
    for kind in (
        "ADAMSS", "DEFT", "DELORA", "FROD", "GLORA", "HIRA", "HRA", "LOHA", "LOKR", "OSF",
        "PEANUT", "PSOFT", "PVERA", "SUPERTUNING", "TINYLORA", "UNILORA", "VERA",
    )
}  # fmt: skip
NEEDS |= {kind: {"r": 4} for kind in ("GRALORA", "MISS", "RANDLORA")}
# No plain weights compute what they compute, or PEFT has no way to merge them.
REFUSED = ("BEFT", "LILY")
OUTSIDE = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
LORA_OPTIONS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "rank of a layer": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
    "saved heads": {"modules_to_save": ["lm_head", "vision_head"]},
    "saved aligner": {"modules_to_save": ["generation_aligner"]},
    "biases": {"target_modules": r".*(vision_model|aligner)\..*(q_proj|fc1)", "bias": "all"},
    "lora bias": {"target_modules": r".*vision_model\..*q_proj", "lora_bias": True},
    "embeddings": {"target_modules": ["embed_tokens", "generation_embeddings"]},
    "some tokens": {"trainable_token_indices": {"embed_tokens": [3, 12]}},
    "convolution": {"target_modules": ["patch_embedding"]},
    "everywhere": {"target_modules": ["q_proj", "fc1", "fc2", "proj_out", "down_proj"]},
}


def moved(model: Any) -> Any:
    """Trained weights away from where they began: most adapters begin by doing nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(autouse=True)
def calm() -> Any:
    """PEFT warns of many things that are as they should be here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def config_of(kind: str, **options: Any) -> Any:
    made = next(c for t, c in PEFT_TYPE_TO_CONFIG_MAPPING.items() if t.value == kind)
    takes = inspect.signature(made).parameters
    if "target_modules" in takes:
        options.setdefault("target_modules", LAYERS)
    return made(**options)


def adapted(janus: Janus, kind: str = "LORA", **options: Any) -> Janus:
    core = copy.deepcopy(janus.core)
    return Janus(
        moved(peft.get_peft_model(core, config_of(kind, **options))).eval(), janus.processor
    )


def logits(model: Janus, prompts: list[str], pictures: Any) -> torch.Tensor:
    """Of both directions, one after the other."""
    tokens = torch.arange(16 * len(prompts)).view(-1, 16) % 48
    found = []
    with inference(model):
        pixels = model.pixels(pictures)
        for hidden in (
            model("generation", prompts, tokens),
            model("understanding", pixels, model.tokenize(prompts)),
        ):
            product = hidden.hidden @ hidden.weight.T
            found.append((product if hidden.bias is None else product + hidden.bias).flatten())
    return torch.cat(found)


def check(model: Janus, start: Janus, prompts: Any, pictures: Any, folder: Path) -> Janus:
    before = logits(model, prompts, pictures)
    assert (before - logits(start, prompts, pictures)).abs().max() > 1e-2
    model.save(folder)
    assert torch.equal(logits(model, prompts, pictures), before)
    loaded = load_model(folder)
    assert not loaded.has_adapters()
    torch.testing.assert_close(logits(loaded, prompts, pictures), before, rtol=1e-4, atol=1e-4)
    return loaded


@pytest.mark.parametrize("kind", sorted(NEEDS))
def test_every_kind_that_can_be_merged(shared_janus, prompts, pictures, tmp_path, kind):
    if kind not in {one.value for one in PEFT_TYPE_TO_CONFIG_MAPPING}:
        pytest.skip(f"this peft has no {kind}")
    model = adapted(shared_janus, kind, **NEEDS[kind])
    check(model, shared_janus, prompts, pictures, tmp_path)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


@pytest.mark.parametrize("options", LORA_OPTIONS.values(), ids=LORA_OPTIONS)
def test_options_of_lora(shared_janus, prompts, pictures, tmp_path, options):
    check(adapted(shared_janus, **options), shared_janus, prompts, pictures, tmp_path)


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_that_cannot_be_merged_are_refused(shared_janus, tmp_path, kind):
    if kind not in {one.value for one in PEFT_TYPE_TO_CONFIG_MAPPING}:
        pytest.skip(f"this peft has no {kind}")
    model = adapted(shared_janus, kind)
    with pytest.raises(ValueError, match=r"save: .* at model\.language_model\..* cannot be merged"):
        model.save(tmp_path)


@pytest.mark.parametrize("kind", OUTSIDE)
def test_adapters_outside_of_the_layers_are_refused(shared_janus, kind):
    core = copy.deepcopy(shared_janus.core)
    sizes = {"num_layers": 2, "token_dim": 32, "num_attention_heads": 2, "num_virtual_tokens": 4}
    sizes["task_type"] = "CAUSAL_LM"
    wrapped = peft.get_peft_model(core, config_of(kind, **sizes))
    with pytest.raises(ValueError, match="keeps its adapters outside of the model's layers"):
        Janus(wrapped, shared_janus.processor)


def test_two_adapters_at_once(shared_janus, prompts, pictures, tmp_path):
    model = adapted(shared_janus)
    model.model.add_adapter("other", config_of("LORA", r=2))
    model.model.base_model.set_adapter(["default", "other"])
    moved(model.model)
    check(model, shared_janus, prompts, pictures, tmp_path)


def test_adapters_that_are_merged_already(shared_janus, prompts, pictures, tmp_path):
    """Adding their product once more would be another model."""
    model = adapted(shared_janus)
    model.model.merge_adapter()
    check(model, shared_janus, prompts, pictures, tmp_path)


def test_adapters_that_transformers_put_in(shared_janus, prompts, pictures, tmp_path):
    """Its save_pretrained would write the adapters alone."""
    core = peft.inject_adapter_in_model(config_of("LORA"), copy.deepcopy(shared_janus.core))
    core._hf_peft_config_loaded = True
    model = Janus(moved(core).eval(), shared_janus.processor)
    check(model, shared_janus, prompts, pictures, tmp_path)


def test_adapters_that_are_turned_off(shared_janus, tmp_path):
    model = adapted(shared_janus)
    with model.without_adapters(), pytest.raises(ValueError, match=r"adapters at .* turned off"):
        model.save(tmp_path)


def test_a_tied_head_that_adapters_set_apart(make_janus, prompts, pictures, tmp_path):
    start = make_janus()
    start.core.config.tie_word_embeddings = True
    start.core.lm_head.weight = start.core.get_input_embeddings().weight
    model = adapted(start, modules_to_save=["lm_head"])
    loaded = check(model, start, prompts, pictures, tmp_path)
    assert loaded.core.config.tie_word_embeddings is False
    assert loaded.core.lm_head.weight is not loaded.core.get_input_embeddings().weight


def test_saving_inside_a_callers_autocast(shared_janus, tmp_path):
    model = adapted(shared_janus)
    model.save(tmp_path / "plain")
    with torch.autocast("cpu", torch.bfloat16):
        model.save(tmp_path / "inside")
    plain, inside = (tmp_path / name / "model.safetensors" for name in ("plain", "inside"))
    assert plain.read_bytes() == inside.read_bytes()
