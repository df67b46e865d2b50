"""linear_cross_entropy against torch's own in float64: all that torch takes, and more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext import linear_cross_entropy
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES["grad_hidden", "cpu", torch.float32]
V, D = 19, 7


def batch(shape: tuple[int, ...], probabilities: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, V, shape, generator=generator)
    if target.numel() > 2:
        target.view(-1)[::3] = -100
    if probabilities:
        target = torch.randn(*shape, V, generator=generator).softmax(-1)
    return {
        "input": torch.randn(*shape, D, generator=generator),
        "linear_weight": torch.randn(V, D, generator=generator),
        "linear_bias": torch.randn(V, generator=generator),
        "target": target,
    }


def torchs(
    t: dict[str, Tensor], z_loss: float, temperature: float, softcap: float | None, **o: Any
):
    """The same of logits that are held."""
    logits = F.linear(t["input"], t["linear_weight"], t["linear_bias"])
    if softcap:
        logits = softcap * (logits / softcap).tanh()
    rows, target = (logits / temperature).reshape(-1, V), t["target"]
    flat = target.reshape(-1, V) if target.is_floating_point() else target.reshape(-1)
    if "weight" in o:
        o["weight"] = o["weight"].double()
    loss = F.cross_entropy(rows, flat, **o)
    kept = torch.ones(len(rows), dtype=torch.bool) if flat.dim() == 2 else flat != -100
    extra = z_loss * rows.logsumexp(-1).masked_fill(~kept, 0.0) ** 2
    if o["reduction"] == "none":
        return (loss + extra).reshape(t["input"].shape[:-1])
    return loss + (extra.sum() if o["reduction"] == "sum" else extra.sum() / kept.sum())


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    ("probabilities", "smoothing", "softcap"),
    [
        (False, 0.0, 5.0),
        (False, 0.2, None),
        (False, 1.0, None),
        (True, 0.0, None),
        (True, 0.2, None),
    ],
)
@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("shape", [(), (9,), (2, 3, 4)], ids=str)
def test_matches_torchs(
    shape: tuple[int, ...],
    extras: bool,
    probabilities: bool,
    smoothing: float,
    softcap: float | None,
    reduction: str,
    fastest: str,
) -> None:
    t = batch(shape, probabilities)
    options: dict[str, Any] = {"label_smoothing": smoothing, "reduction": reduction}
    numbers = {"z_loss": 0.0, "temperature": 1.0, "softcap": softcap}
    if extras:
        options["weight"] = torch.rand(V, generator=torch.Generator().manual_seed(1))
        numbers |= {"z_loss": 0.01, "temperature": 0.7}
    outcomes = []
    for function, dtype in ((linear_cross_entropy, torch.float32), (torchs, torch.float64)):
        leaves = {
            name: x.to(dtype).requires_grad_() if x.is_floating_point() else x
            for name, x in t.items()
        }
        loss = (
            function(leaves, **numbers, **options)
            if function is torchs
            else function(**leaves, **numbers, **options, options=None)
        )
        floats = [x for x in leaves.values() if x.requires_grad]
        upstream = torch.arange(1.0, loss.numel() + 1, dtype=dtype).view(loss.shape)
        outcomes.append([loss.detach(), *torch.autograd.grad(loss, floats, upstream)])
    for ours, oracle in zip(*outcomes, strict=True):
        scale = oracle.abs().max().clamp(min=1)
        torch.testing.assert_close(ours.double() / scale, oracle / scale, **CLOSE)


def test_every_backend_takes_them(backend: str) -> None:
    for probabilities in (False, True):
        t = batch((9,), probabilities)
        options = {"z_loss": 0.01, "temperature": 0.7, "weight": torch.linspace(0.5, 2.0, V)}
        got = linear_cross_entropy(**t, **options, label_smoothing=0.1)
        wide = {name: x.double() if x.is_floating_point() else x for name, x in t.items()}
        expected = torchs(
            wide, **{"softcap": None, **options}, label_smoothing=0.1, reduction="mean"
        )
        torch.testing.assert_close(got.double(), expected, **CLOSE)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch has none before 2.13")
@pytest.mark.parametrize("probabilities", [False, True])
def test_torchs_function_of_the_name(probabilities: bool) -> None:
    t, weight = batch((9,), probabilities), torch.linspace(0.5, 2.0, V)
    options = {"weight": weight, "label_smoothing": 0.2, "options": None}
    expected = F.linear_cross_entropy(**t, **options)
    torch.testing.assert_close(linear_cross_entropy(**t, **options), expected, **CLOSE)


@pytest.mark.parametrize(
    ("options", "probabilities", "message"),
    [
        ({"softcap": 3.0, "label_smoothing": 0.1}, False, "softcap takes class indices and label"),
        ({"softcap": 3.0}, True, "softcap takes class indices .* with class probabilities"),
        ({"ignore_index": 3}, True, "ignore_index takes None beside class probabilities, got 3"),
        ({"z_loss": -1.0}, False, "z_loss takes a number of at least 0, got -1.0"),
        ({"weight": torch.ones(3)}, False, r"weight takes shape \[19\]"),
    ],
)
def test_bad_options(
    options: dict[str, Any], probabilities: bool, message: str, fastest: str
) -> None:
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**batch((9,), probabilities), **options)


def test_probabilities_of_a_wrong_shape(fastest: str) -> None:
    t = batch((9,), True)
    with pytest.raises(ValueError, match=r"target takes shape \[9, 19\] .*got \[9, 18\]"):
        linear_cross_entropy(**(t | {"target": t["target"][:, 1:]}))
