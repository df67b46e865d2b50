"""LoRA: only adapters are trained, the start model costs nothing, and what is saved is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from suder.engine.weights import to_sample_with
from suder.guard.rule import Guard
from suder.models import load_model
from suder.models.base import DIRECTIONS
from suder.models.decoder.adapter import DecoderModel
from suder.run.learner import Learner
from suder.run.plan import plan
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.learning import Lora
from suder.storage.files import read_jsonl
from tests.tolerances import TOLERANCES

Make = Callable[..., TrainConfig]
PROMPTS = ["a red circle", "two blue square"]
ADAPTERS = "lora.rank=3"


def moved(folder: Path, by: float = 0.2) -> DecoderModel:
    """A model whose adapters have moved away from zero."""
    model = load_model(folder)
    model.add_lora(Lora(rank=3), seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def hidden_of(model: DecoderModel) -> torch.Tensor:
    count = model.num_image_tokens
    tokens = torch.arange(2 * count).view(2, count) % model.image_vocab_size
    return model("generation", PROMPTS, tokens).hidden


def test_only_adapters_of_the_language_model_are_trained(model_folder: Path) -> None:
    plain = load_model(model_folder)
    model = load_model(model_folder)
    model.add_lora(Lora(rank=3, targets=["q_proj", "down_proj"]), seed=1)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    layers = model.core.config.get_text_config().num_hidden_layers
    assert len(trained) == layers * 2 * 2  # layers, targets, A and B
    assert all(".layers." in name and ".lora_" in name for name in trained)
    assert not any("vision" in name or "vqmodel" in name for name in trained)
    assert torch.equal(hidden_of(model), hidden_of(plain))  # B is 0


def test_the_start_model_shares_all_other_weights(model_folder: Path) -> None:
    model = load_model(model_folder)
    model.add_lora(Lora(rank=3), seed=1)
    start = model.frozen_copy()
    before = hidden_of(start)
    ours = {name: value.data_ptr() for name, value in model.named_parameters()}
    for name, value in start.named_parameters():
        assert (value.data_ptr() == ours[name]) == (".lora_" not in name), name
        assert not value.requires_grad
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += 0.3
    assert torch.equal(hidden_of(start), before)
    assert not torch.allclose(hidden_of(model), before)


def test_a_saved_model_is_whole_and_brings_its_adapters(model_folder: Path, tmp_path: Path) -> None:
    import peft

    model = moved(model_folder)
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.save(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    merged = load_model(tmp_path)
    assert not merged.has_adapters()
    torch.testing.assert_close(
        hidden_of(merged), hidden_of(model), **TOLERANCES["merged", "cpu", torch.float32]
    )
    start = load_model(model_folder)
    assert not torch.allclose(hidden_of(merged), hidden_of(start), rtol=1e-3, atol=1e-3)
    wrapped = peft.PeftModel.from_pretrained(start.core, tmp_path / "adapter")
    again = type(start).of_folder(model_folder, wrapped, start.processor)
    assert torch.equal(hidden_of(again), hidden_of(model))


@pytest.mark.parametrize("action", ["watch", "rollback"])
def test_a_run_and_its_resumption(
    make_config: Make, lively_model_folder: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Also through a roll-back, which reads the adapters that were saved."""
    monkeypatch.setattr(Guard, "_doubt", lambda *_: "")
    limit = "1e-9" if action == "rollback" else "100.0"
    changes = (
        ADAPTERS, f"model={lively_model_folder}", "rounds=4", f"guard.action={action}",
        "guard.patience=1", f"guard.kl_limit={limit}",
    )  # fmt: skip
    whole = make_config(*changes, output="whole")
    summary = Trainer(whole, quiet=True).run()
    assert summary["rounds"] == 4
    assert summary["guard"]["rollbacks"] == (2 if action == "rollback" else 0)
    cut = make_config(*changes, output="cut")
    trainer = Trainer(cut, quiet=True)
    optimise, rounds = Learner.optimise, iter(range(9))

    def dying(*arguments: object) -> dict[str, float]:
        if next(rounds) == 3:
            raise KeyboardInterrupt
        return optimise(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "optimise", dying)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    Trainer.resume(cut.output, quiet=True).run()
    files = [Path(one.output) / "state" / "000004.safetensors" for one in (whole, cut)]
    first, second = map(load_file, files)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any("vqmodel" in name or "base_layer" in name for name in first)


def test_frozen_weights_in_16_bits(make_config: Make, lively_model_folder: Path) -> None:
    """A checkpoint in bfloat16 loses nothing, and nothing of it is held twice."""
    narrow = lively_model_folder.parent / "narrow"
    load_model(lively_model_folder, saved=torch.bfloat16).save(narrow)
    rows = []
    for dtype in ("float32", "bfloat16"):
        config = make_config(
            ADAPTERS, f"model={narrow}", "dtype=bfloat16", f"lora.frozen_dtype={dtype}",
            output=dtype,
        )  # fmt: skip
        trainer = Trainer(config, quiet=True)
        policy = trainer.learner.policy
        kept = {one.dtype for one in policy.parameters() if not one.requires_grad}
        assert kept == {getattr(torch, dtype)}
        assert {one.dtype for one in policy.trainable_parameters()} == {torch.float32}
        assert (to_sample_with(policy) is policy) == (dtype == "bfloat16")
        trainer.run()
        logged = read_jsonl(Path(config.output) / "metrics.jsonl")
        rows.append(next(row for row in logged if "sampler_gap/generation" in row))
        said = plan(config).held
        assert ("16-bit copies" in said and said["16-bit copies"] > 0) == (dtype == "float32")
    wide, short = rows
    for direction in DIRECTIONS:
        same = TOLERANCES["merged", "cpu", torch.bfloat16]["atol"]
        assert short[f"sampler_gap/{direction}"] < same
        assert short[f"reward/{direction}"] == pytest.approx(wide[f"reward/{direction}"], abs=same)


def test_frozen_weights_in_16_bits_are_those_beside_adapters(make_config: Make) -> None:
    for changes in (("dtype=bfloat16",), ("lora.rank=2",)):
        with pytest.raises(ValueError, match="frozen_dtype bfloat16 is for adapters"):
            make_config("lora.frozen_dtype=bfloat16", *changes)


def test_a_layer_that_is_not_there(random_model_folder: Path) -> None:
    model = load_model(random_model_folder)
    with pytest.raises(ValueError, match=r"no linear layer qproj; it has .*q_proj"):
        model.add_lora(Lora(rank=2, targets=["qproj"]), seed=1)
