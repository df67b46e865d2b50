"""Our own adapter keeps the contract in every dtype; every check finds one that does not."""

from __future__ import annotations

import pytest
import torch

from suder.models import load_model
from suder.pretrain.architecture import SPECIAL
from suder.settings.learning import Lora
from suder.testing import CHECKS, AdapterError, check_adapter, texts
from suder.testing.adapter import PROMPTS
from suder.testing.findings import Findings
from suder.testing.subject import Subject
from tests.trainer.families import small_emu3, small_liquid
from tests.trainer.models.janus.test_words import byte_pairs
from tests.trainer.testing.broken import BROKEN


def state(model):
    weights = [(one.detach().clone(), one.requires_grad, one.grad) for one in model.parameters()]
    return weights, model.training, torch.get_rng_state()


def test_janus_keeps_the_contract_and_is_left_as_it_was(janus, capsys):
    pytest.importorskip("peft")
    janus.train()
    before = state(janus)
    report = check_adapter(janus)
    assert report.passed == list(CHECKS)
    assert capsys.readouterr().out.count("passed  ") == len(CHECKS)
    after = state(janus)
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])
    for (weight, asks, grad), (again, asks_again, grad_again) in zip(
        before[0], after[0], strict=True
    ):
        assert torch.equal(weight, again)
        assert asks == asks_again
        assert grad is grad_again


@pytest.mark.parametrize("make", [small_emu3, small_liquid])
def test_models_of_one_vocabulary_keep_the_contract(make):
    pytest.importorskip("peft")
    assert check_adapter(make(), say=None).passed == list(CHECKS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_embedded_model_keeps_it_in_every_dtype(dtype):
    checks = ["pictures", "vq_round_trip", "ratio", "step_by_step", "inference_copy", "recomputed"]
    report = check_adapter(load_model("shapes", dtype=dtype), checks, say=None)
    assert report.passed == checks
    assert "likeness 0.9" in str(report)  # the VQ model is a trained one


def test_mixed_precision_and_adapters_keep_it(janus):
    pytest.importorskip("peft")
    janus.compute = torch.bfloat16
    checks = ["ratio", "step_by_step", "inference_copy", "save_and_load"]
    assert check_adapter(janus, checks, say=None).passed == checks
    janus.add_lora(Lora(rank=2), 0)
    checks += ["gradients", "frozen_copy"]
    for weight in janus.trainable_parameters():
        weight.data += 0.02
    assert check_adapter(janus, checks, say=None).passed == checks
    assert "has adapters already" in str(check_adapter(janus, ["lora"], say=None))


@pytest.mark.parametrize(
    ("check", "kind"), BROKEN, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_check_can_fail(check, kind, make_janus):
    if check == "lora":
        pytest.importorskip("peft")
    whole = load_model("shapes") if check == "vq_round_trip" else make_janus()
    whole.__class__ = kind
    with pytest.raises(AdapterError, match=f"1 checks failed\nFAILED   {check}: .+\n") as caught:
        check_adapter(whole, [check], say=None)
    assert caught.value.report.failed == [check]
    assert "raised" not in str(caught.value)  # found by what it measured


def test_every_check_has_a_fault_that_it_finds():
    assert {check for check, _ in BROKEN} == set(CHECKS)


def test_an_adapter_that_raises_is_a_finding_and_the_others_go_on(janus, monkeypatch):
    def fails(*_):
        raise KeyError("codebook")

    monkeypatch.setattr(type(janus), "decode", fails)
    said = []
    report = check_adapter(janus, ["pictures", "texts"], strict=False, say=said.append)
    assert (report.failed, report.passed) == (["pictures"], ["texts"])
    assert "raised KeyError at test_check_adapter.py:" in said[0]
    with pytest.raises(AssertionError, match=r"raised KeyError.*\npassed: texts"):
        check_adapter(janus, ["pictures", "texts"], say=None)


def test_a_loader_of_the_callers_own(shared_janus):
    """Of a family that `load_model` does not know, or with options."""
    folders = []

    def load(folder):
        folders.append(folder)
        return load_model(folder, question="What is red?")

    (outcome,) = check_adapter(
        shared_janus, ["save_and_load"], load=load, strict=False, say=None
    ).outcomes
    assert len(folders) == 1
    assert "log p of the loaded model" in outcome.problems[0]
    assert "they should be the same bits" in outcome.problems[0]


def test_what_is_asked_wrongly(shared_janus):
    with pytest.raises(ValueError, match="checks: no ratios; there are pictures, "):
        check_adapter(shared_janus, ["ratios"])
    with pytest.raises(ValueError, match="three or more"):
        check_adapter(shared_janus, ["ratio"], prompts=["a red circle"])


def test_nan_is_not_close():
    found = Findings()
    nan = torch.tensor([-1.0, torch.nan])
    found.close("NaN", nan, torch.tensor([-1.0, -2.0]), torch.float32)
    found.close("shorter", nan[:1], nan, torch.float32)
    found.same("as bits", nan[:1], torch.tensor([-1.1]))
    found.differ("after training", nan[:1], nan[:1])
    assert [one.partition(":")[0] for one in found.problems] == [
        "NaN", "shorter", "as bits", "after training",
    ]  # fmt: skip


class Spells:
    """As much of an adapter as texts need, over a tokenizer that spells everything."""

    def __init__(self, tokenizer):
        self.tokenizer, self.eos_token_id = tokenizer, tokenizer.eos_token_id

    def tokenize(self, texts):
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return [torch.tensor([*row, self.eos_token_id]) for row in rows]

    def detokenize(self, ids):
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in ids]


def test_what_the_tokenizer_itself_loses_is_no_fault_of_the_adapters(monkeypatch):
    """As published: a letter that is a token of its own is decoded as the byte it stands for."""
    spells = Spells(byte_pairs(SPECIAL).tokenizer)
    subject = Subject(spells, PROMPTS, None, None, None)
    whole = Findings()
    texts.texts(subject, whole)
    assert (whole.problems, whole.notes) == ([], [])
    spells.tokenizer.add_tokens(["ö"])
    quirky = Findings()
    texts.texts(subject, quirky)
    assert quirky.problems == []
    assert quirky.notes == ["the tokenizer itself does not give back 'Größe 7,5 €'"]
    honest = spells.detokenize

    def cut(ids):
        return [text if text.startswith("qzx") else text[:-2] for text in honest(ids)]

    monkeypatch.setattr(spells, "detokenize", cut)
    broken = Findings()
    texts.texts(subject, broken)
    assert "texts come back as others: 'a red circle' as 'a red circ'" in broken.problems[0]
