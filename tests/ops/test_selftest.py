"""`python -m suder_ext.selftest`: passes here, and fails in words where something is wrong."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import suder_ext
from suder.cli import packaged
from suder.models import find
from suder_ext import _load, functional
from suder_ext.selftest import __main__ as selftest
from suder_ext.selftest.ops import calls
from tests.ops.backends import ISAS

pytestmark = pytest.mark.skipif(not ISAS, reason="nothing compiled: the self-test says so")


@pytest.fixture
def ops_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_packaged", list)


def test_it_passes_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main([]) == 0
    said = capsys.readouterr().out
    for isa in ISAS:
        assert f"CPU, {isa}: " in said
    assert "packaged files load" in said
    assert "The self-test passed" in said


def test_every_public_function_is_called() -> None:
    assert {call.name for call in calls()} == set(functional.__all__)


@pytest.mark.parametrize("part", ["loss", "reward"])
@pytest.mark.usefixtures("ops_alone")
def test_a_wrong_result_fails(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = suder_ext.kto_loss

    @functools.wraps(right)
    def wrong(logprob: torch.Tensor, *rest: Any, **options: Any) -> suder_ext.KtoLoss:
        result = right(logprob, *rest, **options)
        off = {part: getattr(result, part) * 1.01}
        return result if logprob.dtype == torch.float64 else result._replace(**off)

    monkeypatch.setattr(suder_ext, "kto_loss", wrong)
    assert selftest.main([]) == 1
    said = capsys.readouterr().out
    assert f"kto_loss on CPU, {ISAS[0]} (float32): result {part} is " in said
    assert f"The self-test failed: {len(ISAS)} of its checks" in said


@pytest.mark.usefixtures("ops_alone")
def test_a_wrong_gradient_and_a_crash_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def scaled(tensor: torch.Tensor) -> torch.Tensor:
        """The same values; gradients 1% too large."""
        return tensor * 1.01 - tensor.detach() * 0.01

    right = suder_ext.linear_kl

    @functools.wraps(right)
    def wrong(hidden: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        if hidden.dtype == torch.float16:
            raise RuntimeError("no such kernel")
        exact = hidden.dtype == torch.float64
        return right(hidden if exact else scaled(hidden), *rest, **options)

    monkeypatch.setattr(suder_ext, "linear_kl", wrong)
    assert selftest.main([]) == 1
    said = capsys.readouterr().out
    assert f"linear_kl on CPU, {ISAS[-1]} (float32): gradient of hidden is " in said
    assert f"linear_kl on CPU, {ISAS[-1]} (float16): RuntimeError: no such kernel" in said


def nothing() -> Iterator[str]:
    return iter(())


def test_what_is_missing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest, "_operators", nothing)
    monkeypatch.setattr(packaged, "RECIPES", tmp_path)
    monkeypatch.setattr(packaged, "PAGES", ("nowhere.html",))
    monkeypatch.setattr(find, "EMBEDDED", {"shapes": "shapes-9"})
    assert selftest.main([]) == 1
    said = capsys.readouterr().out
    assert f"the recipes in {tmp_path}: there are none" in said
    assert "the page nowhere.html: TemplateNotFound" in said
    assert "the model 'shapes': FileNotFoundError: load_model: the embedded model" in said
    assert "3 of its checks" in said


def test_a_damaged_recipe_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shapes.yaml").write_text("model: shapes\noutput: x\nround: 3\n")
    monkeypatch.setattr(packaged, "RECIPES", tmp_path)
    monkeypatch.setattr(find, "EMBEDDED", {})
    problems = [f"{what}: {problem}" for what, problem in packaged.checked() if problem]
    assert len(problems) == 1
    assert "`round`" in problems[0]


@pytest.mark.usefixtures("ops_alone")
def test_without_kernels_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_load, "compiled", None)
    monkeypatch.setattr(_load, "fallback_reason", "suder_ext._C was not built")
    monkeypatch.setattr(selftest, "_operators", nothing)
    assert selftest.main([]) == 1
    assert "no compiled kernels: suder_ext._C was not built" in capsys.readouterr().out
