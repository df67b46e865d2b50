"""The drop-ins beside the functions that they stand in for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import suder_ext
from tests.ops.cases import DTYPES, linear_case, logits_case
from tests.ops.compare import assert_close


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("entries", [None, 1, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_selective_log_softmax(
    backend: str, dtype: torch.dtype, entries: int | None, temperature: float
) -> None:
    case = logits_case(12, 90, dtype, ignored=0.0)
    logits = case.floats["logits"].view(3, 4, 90)
    shape = (3, 4) if entries is None else (3, 4, entries)
    index = torch.randint(90, shape, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.7
    wide = logits.double().requires_grad_()
    picked = torch.log_softmax(wide / temperature, -1).gather(-1, index.view(3, 4, -1))
    expected = picked.view(shape).masked_fill(~mask, 0.0)
    leaf = logits.clone().requires_grad_()
    got = suder_ext.selective_log_softmax(leaf, index, temperature, mask)
    assert got.dtype == torch.float32
    assert_close(got.detach(), expected.detach(), "logprob", dtype)
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    got.backward(upstream)
    expected.backward(upstream.double())
    assert leaf.grad is not None
    assert wide.grad is not None
    kind = "grad_logits" if entries is None else "grad_logits/parts"
    assert_close(leaf.grad, wide.grad, kind, dtype)


def test_selective_log_softmax_is_trls_own() -> None:
    utils = pytest.importorskip("trl.trainer.utils")
    logits = torch.randn(3, 4, 90)
    for shape in ((3, 4), (3, 4, 2)):
        index = torch.randint(90, shape)
        expected = utils.selective_log_softmax(logits, index)
        torch.testing.assert_close(suder_ext.selective_log_softmax(logits, index), expected)


def test_selective_log_softmax_keeps_digits_beside_an_offset(isa: str) -> None:
    logits = torch.randn(5, 90).mul(256).round().div(256) + 8192
    index = torch.randint(90, (5, 6))
    expected = torch.log_softmax(logits.double(), -1).gather(-1, index)
    got = suder_ext.selective_log_softmax(logits, index)
    assert_close(got, expected, "logprob", torch.float32)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_linear_cross_entropy(
    backend: str, dtype: torch.dtype, ignore_index: int | None, smoothing: float, reduction: str
) -> None:
    case = linear_case(14, 20, 50, dtype, ignore_index=-100 if ignore_index is None else 3)
    leaves = [t.clone().requires_grad_() for t in case.floats.values()]
    wide = [t.double().requires_grad_() for t in case.floats.values()]
    options = {"reduction": reduction, "label_smoothing": smoothing}
    expected = F.cross_entropy(
        F.linear(*wide), case.target, ignore_index=case.options["ignore_index"], **options
    )
    got = suder_ext.linear_cross_entropy(
        *leaves[:2], case.target, linear_bias=leaves[2], ignore_index=ignore_index, **options
    )
    assert_close(got.detach(), expected.detach(), "logprob", dtype)
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(3))
    got.backward(upstream)
    expected.backward(upstream.double())
    for name, leaf, oracle in zip(case.floats, leaves, wide, strict=True):
        assert leaf.grad is not None
        assert oracle.grad is not None
        kind = f"grad_{name}/bfloat16" if dtype == torch.bfloat16 else f"grad_{name}"
        kind = kind if name != "bias" else "grad_bias/parts"
        kind = kind if smoothing == 0 or dtype != torch.float16 else f"grad_{name}/parts"
        assert_close(leaf.grad, oracle.grad, kind, dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_autocast_rounds_the_operands_of_the_head_and_no_other_product(
    backend: str, smoothing: float
) -> None:
    """Losses of 150, where a mean logit rounded to bfloat16 is off by 0.2."""
    case = linear_case(14, 20, 50, spread=60.0)
    options = {"reduction": "none", "label_smoothing": smoothing}
    wide = [t.bfloat16().double() for t in case.floats.values()]
    expected = F.cross_entropy(F.linear(*wide), case.target, **options)
    hidden, weight, bias = case.floats.values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = suder_ext.linear_cross_entropy(
            hidden, weight, case.target, linear_bias=bias, **options
        )
    assert_close(got, expected, "logprob", torch.bfloat16)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("wrong", [-1, 90])
def test_an_index_outside_the_vocabulary(backend: str, wrong: int, several: bool) -> None:
    """An error on the CPU; where nobody looks (here: inside vmap) NaN, for that entry alone."""
    logits, index = torch.randn(3, 90), torch.tensor([[0, 1], [2, wrong], [3, 4]])
    index = index if several else index[:, 1]
    if not backend.startswith("emulated"):
        with pytest.raises(IndexError, match=rf"\[{3 if several else 1}\] is {wrong}.*90"):
            suder_ext.selective_log_softmax(logits, index)
    got = torch.func.vmap(suder_ext.selective_log_softmax)(logits[None], index[None])[0]
    assert torch.equal(got.isnan(), index == wrong)


@pytest.mark.parametrize("shape", [(), (6,)], ids=str)
def test_linear_cross_entropy_is_torchs_own(shape: tuple[int, ...]) -> None:
    if not hasattr(F, "linear_cross_entropy"):
        pytest.skip("torch before 2.13 has none")
    hidden, weight, bias = torch.randn(*shape, 8), torch.randn(30, 8), torch.randn(30)
    target = torch.randint(30, shape)
    expected = F.linear_cross_entropy(hidden, weight, target, linear_bias=bias, label_smoothing=0.2)
    got = suder_ext.linear_cross_entropy(
        hidden, weight, target, linear_bias=bias, label_smoothing=0.2
    )
    torch.testing.assert_close(got, expected)


def test_all_rows_ignored_is_nan_as_in_torch(backend: str) -> None:
    case = linear_case(3, 4, 9, ignored=1.1, bias=False)
    hidden, weight = case.floats.values()
    assert suder_ext.linear_cross_entropy(hidden, weight, case.target).isnan()
    assert suder_ext.linear_cross_entropy(hidden, weight, case.target, reduction="sum") == 0
