"""linear_kl on every backend against float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import suder_ext
from tests.ops.backends import BACKENDS, ISAS, use_backend
from tests.ops.cases import DTYPES, Case
from tests.ops.compare import assert_close
from tests.ops.conftest import NOTHING
from tests.ops.emulated import EMULATED
from tests.ops.kl_cases import SIDES, check, final_logits, kl_case, oracle, run, upstream_for
from tests.ops.layouts import LAYOUTS, strided

SHAPES = [
    (1, 1, 1, 1),  # the smallest there is: nothing to diverge
    (3, 5, 2, 7),  # below one vector in every direction
    (4, 16, 16, 64),  # a whole number of vectors in every direction
    (70, 96, 31, 1025),  # more than one tile of tokens; one column in the last tile
    (130, 70, 200, 515),  # more than one block of features; ragged everywhere
]


# Through these heads linear_kl goes by tiles, too.
SAME = ("emulated-fused", "emulated-hopper")


@pytest.fixture(params=[name for name in BACKENDS if name not in SAME])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


@pytest.fixture(params=[name for name in (*ISAS, *EMULATED) if name not in SAME] or NOTHING)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


def definition(case: Case) -> torch.Tensor:
    log_p, log_q = (torch.log_softmax(final_logits(case, side), -1) for side in SIDES)
    return (log_p.exp() * (log_p - log_q)).sum(-1).masked_fill(case.ignored, 0.0)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "temperature": 0.7}], ids=str)
def test_the_oracle_is_the_definition(options: dict[str, Any]) -> None:
    """Its gradients, too: p (log p - log q - kl) and q - p, before softcap and temperature."""
    case = kl_case(9, 6, 4, 17, **options)
    got, grads = oracle(case, upstream_for(case))
    torch.testing.assert_close(got, definition(case))
    leaves = {name: t.double().requires_grad_() for name, t in case.floats.items()}
    kl = definition(replace(case, floats=leaves))
    (kl * upstream_for(case)["logprob"]).sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(grads[name], leaf.grad)
    if options:
        return
    p, q = (torch.softmax(final_logits(case, side), -1) for side in SIDES)
    g = upstream_for(case)["logprob"].masked_fill(case.ignored, 0.0)[:, None].double()
    of_policy = g * p * ((p / q).log() - got[:, None])
    torch.testing.assert_close(grads["hidden"], of_policy @ case.floats["weight"].double())
    of_reference = g * (q - p) @ case.floats["ref_weight"].double()
    torch.testing.assert_close(grads["ref_hidden"], of_reference)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_float64(
    backend: str, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    case = kl_case(*shape, dtype)
    check(case, upstream_for(case))


OPTIONS = st.fixed_dictionaries(
    {
        "bias": st.booleans(),
        "ignored": st.sampled_from([0.0, 0.3, 1.0]),
        "spread": st.sampled_from([0.0, 0.1, 1.0, 10.0]),
        "temperature": st.sampled_from([1.0, 0.5, 3.0]),
        "softcap": st.sampled_from([None, 2.0, 50.0]),
    }
)


@given(
    tokens=st.integers(0, 40),
    widths=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    vocab=st.one_of(st.integers(1, 40), st.integers(41, 700)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
    layout=st.sampled_from(LAYOUTS),
    options=OPTIONS,
)
@example(5, (1, 1), 1, torch.bfloat16, 0, "contiguous", {"bias": False})
@example(2, (3, 9), 17, torch.float16, 1, "columns", {"temperature": 0.5, "softcap": 2.0})
def test_property_matches_float64(
    backend: str,
    tokens: int,
    widths: tuple[int, int],
    vocab: int,
    dtype: torch.dtype,
    seed: int,
    layout: str,
    options: dict[str, Any],
) -> None:
    case = kl_case(tokens, *widths, vocab, dtype, seed=seed, **options)
    case = replace(case, floats={n: strided(t, layout) for n, t in case.floats.items()})
    check(case, upstream_for(case, seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_asked_for_changes_no_bit(isa: str, dtype: torch.dtype) -> None:
    case = kl_case(70, 40, 24, 300, dtype)
    upstream = upstream_for(case)
    together, grads = run(case, upstream)
    with torch.no_grad():
        assert torch.equal(case.run(suder_ext.linear_kl), together)
    policy = ("hidden", "weight", "bias")
    for wanted in (*((name,) for name in case.floats), policy):
        got, some = run(case, upstream, wanted)
        assert torch.equal(got, together)
        for name in wanted:
            assert torch.equal(some[name], grads[name]), (wanted, name)


@pytest.mark.parametrize("features", [40, 1100])  # one block of sums, and several
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_batch_and_position(isa: str, dtype: torch.dtype, features: int) -> None:
    case = kl_case(150, features, 30, 700, dtype)
    upstream = upstream_for(case)
    together, grads = run(case, upstream)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    # Few tokens go another way than many: up to 14 in AVX-512, 6 in AVX2, 3 elsewhere.
    for rows in (order, *(order[:n] for n in (1, 3, 4, 6, 7, 14, 15)), order[18:115]):
        moved = {f"{side}hidden": case.floats[f"{side}hidden"][rows] for side in SIDES}
        part = Case({**case.floats, **moved}, case.target[rows])
        got, some = run(part, {"logprob": upstream["logprob"][rows]}, tuple(moved))
        assert torch.equal(got, together[rows])
        for name in moved:
            assert torch.equal(some[name], grads[name][rows]), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_number_of_threads_and_of_kept_logits(
    isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = kl_case(210, 40, 33, 300, dtype, softcap=3.0)
    upstream = upstream_for(case)
    expected, expected_grads = run(case, upstream)
    room = "suder_ext.functional.divergence.LOGITS_KEPT"
    for threads, kept in itertools.product((1, 3), (0, 2 * 120 * 224, 2 * 230 * 224)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(room, kept)
        got, grads = run(case, upstream)
        assert torch.equal(got, expected)
        for name, grad in grads.items():
            assert torch.equal(grad, expected_grads[name]), (threads, kept, name)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts_give_the_same_bits(isa: str, dtype: torch.dtype, layout: str) -> None:
    case = kl_case(21, 37, 20, 75, dtype)
    expected, expected_grads = run(case, upstream_for(case))
    moved = replace(case, floats={n: strided(t, layout) for n, t in case.floats.items()})
    got, grads = run(moved, upstream_for(case))
    assert torch.equal(got, expected)
    for name, grad in grads.items():
        assert torch.equal(grad, expected_grads[name]), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_distribution_diverges_by_nothing(backend: str, dtype: torch.dtype) -> None:
    """Not by rounding either, nor by a constant that is added to all logits."""
    case = kl_case(20, 12, 12, 1500, dtype, ignored=0.0)
    case.floats.update({f"ref_{name}": case.floats[name] for name in ("hidden", "weight", "bias")})
    got, grads = run(case, upstream_for(case))
    assert not got.any()
    for grad in grads.values():
        assert_close(grad, torch.zeros_like(grad).double(), "kl", torch.float32)
    case.floats["ref_bias"] = case.floats["bias"].float() + 8192
    case.floats["bias"] = case.floats["ref_bias"] - 4096
    assert float(case.run(suder_ext.linear_kl).max()) < 1e-6


@given(seed=st.integers(0, 2**16), step=st.sampled_from([1e-8, 1e-6, 1e-4, 1e-2]))
def test_never_negative(backend: str, seed: int, step: float) -> None:
    case = kl_case(20, 8, 8, 90, seed=seed, ignored=0.0)
    for name in ("hidden", "weight", "bias"):
        moved = case.floats[name] + step * torch.randn_like(case.floats[name])
        case.floats[f"ref_{name}"] = moved
    got = case.run(suder_ext.linear_kl)
    assert bool((got >= 0).all())
    assert_close(got, oracle(case, upstream_for(case))[0], "kl", torch.float32)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_common_offset(backend: str, offset: float, side: str) -> None:
    """float32 logits near 1e4 lie 1e-3 apart; nothing else may be lost."""
    case = kl_case(6, 8, 5, 100, ignored=0.0)
    case.floats[f"{side}bias"] += offset
    check(case, upstream_for(case))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_an_exact_offset_costs_nothing(backend: str, offset: float, side: str) -> None:
    """Logits that are multiples of 2^-8 stay exact beside 1e4: all digits are kept, those of the
    gradients as well."""
    case = kl_case(6, 8, 8, 100, ignored=0.0, bias=False)
    for name in SIDES:
        hidden = (case.floats[f"{name}hidden"] * 4).round() / 4
        weight = (case.floats[f"{name}weight"] * 16).round() / 16
        first = torch.full((100, 1), offset if name == side else 0.0)
        case.floats[f"{name}hidden"] = torch.cat([torch.ones(6, 1), hidden], dim=1)
        case.floats[f"{name}weight"] = torch.cat([first, weight], dim=1)
    expected, expected_grads = oracle(case, upstream_for(case))
    got, grads = run(case, upstream_for(case))
    assert_close(got, expected, "kl", torch.float32)
    for name in SIDES:
        # The products are of the offset, too: its own column apart.
        rest = slice(0 if name != side else 1, None)
        name = f"{name}hidden"
        assert_close(
            grads[name][:, rest], expected_grads[name][:, rest], "grad_hidden", torch.float32
        )


@pytest.mark.parametrize("vocab", [50257, 129920, 151936])
def test_vocabularies_of_real_models(isa: str, vocab: int) -> None:
    case = kl_case(3, 5, 4, vocab, ignored=0.0)
    check(case, upstream_for(case))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [3, 70, 600])
def test_masked_entries(
    backend: str, vocab: int, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    """Of both sides, or of the policy alone: its terms are 0, wherever they lie."""
    entry = torch.arange(vocab)
    for mask in (entry == 0, entry == vocab - 1, entry < vocab // 2, entry % 2 == 1, entry != 1):
        for sides in (SIDES, ("",)):
            case = kl_case(12, 8, 6, vocab, dtype, **options)
            for side in sides:
                case.floats[f"{side}bias"].masked_fill_(mask, -math.inf)
            check(case, upstream_for(case))


@pytest.mark.parametrize("vocab", [3, 600])
@pytest.mark.parametrize("fill", [-math.inf, -300.0])
def test_what_the_reference_rules_out(backend: str, vocab: int, fill: float) -> None:
    """Infinite wherever q alone is 0, however small p is; no gradient is made up for it."""
    for entry in (0, vocab // 2, vocab - 1):
        case = kl_case(12, 8, 6, vocab)
        case.floats["bias"][entry] = fill
        case.floats["ref_bias"][entry] = -math.inf
        got, grads = run(case, {"logprob": torch.ones(12)})
        possible = fill == -math.inf
        assert torch.equal(got.isfinite(), case.ignored | possible)
        assert not got.isnan().any()
        for side in SIDES:
            finite = grads[f"{side}hidden"].isfinite()
            assert torch.equal(finite.all(1), case.ignored | possible)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_inf_stay_in_their_row(isa: str, dtype: torch.dtype, side: str, bad: float) -> None:
    case = kl_case(40, 16, 9, 70, dtype, ignored=0.0)
    clean, clean_grads = run(case, upstream_for(case))
    case.floats[f"{side}hidden"][7, 3] = bad
    got, grads = run(case, upstream_for(case))
    rest = torch.arange(40) != 7
    assert not got[7].isfinite()
    assert torch.equal(got[rest], clean[rest])
    for name in SIDES:
        name = f"{name}hidden"
        assert torch.equal(grads[name][rest], clean_grads[name][rest])


@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_no_target_leaves_nothing_out(backend: str, ignore_index: int) -> None:
    case = kl_case(9, 6, 4, 17, ignored=0.0)
    got = suder_ext.linear_kl(**case.floats, ignore_index=ignore_index)
    assert torch.equal(got, case.run(suder_ext.linear_kl))
    assert bool((got > 0).all())


def test_leading_dimensions_and_targets_outside_the_vocabulary(backend: str) -> None:
    """A target says no more than which rows count."""
    case = kl_case(24, 16, 5, 33, ignored=0.3)
    flat, flat_grads = run(case, upstream_for(case))
    heads = {f"{side}hidden": case.floats[f"{side}hidden"] for side in SIDES}
    shaped = {name: t.view(2, 3, 4, -1) for name, t in heads.items()}
    target = case.target.masked_fill(~case.ignored, 10**9).view(2, 3, 4)
    upstream = {"logprob": upstream_for(case)["logprob"].view(2, 3, 4)}
    got, grads = run(replace(case, floats={**case.floats, **shaped}, target=target), upstream)
    assert torch.equal(got, flat.view(2, 3, 4))
    for name, grad in grads.items():
        assert torch.equal(grad.reshape(flat_grads[name].shape), flat_grads[name])


CU = torch.tensor([0, 3, 3, 7, 9, 12])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_sequences(backend: str, reduction: Any, dtype: torch.dtype) -> None:
    case = kl_case(12, 8, 6, 40, ignored=0.0)
    case.target[[1, 7, 8]] = -100
    leaves = {name: t.requires_grad_() for name, t in case.floats.items()}
    got = suder_ext.linear_kl(
        **leaves, target=case.target, cu_seqlens=CU.to(dtype), reduction=reduction
    )
    wide = {name: t.detach().double().requires_grad_() for name, t in leaves.items()}
    each = definition(replace(case, floats=wide))
    parts = zip(each.split(CU.diff().tolist()), case.ignored.split(CU.diff().tolist()), strict=True)
    sums = torch.stack([part.sum() / (~ignored).sum().bool() for part, ignored in parts])
    counts = torch.tensor([2, 0, 4, 0, 3])
    expected = sums / counts if reduction == "mean" else sums
    assert got.isnan().tolist() == [False, True, False, True, False]
    assert_close(got.detach(), expected.detach(), "kl", torch.float32)
    got.nansum().backward()
    expected[counts > 0].sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        expected_grad = wide[name].grad
        assert expected_grad is not None
        kind = f"grad_{name.removeprefix('ref_')}"
        assert_close(leaf.grad, expected_grad.nan_to_num(), kind, torch.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ref_hidden": torch.zeros(5, 3)}, r"ref_hidden takes shape \[..., D2\] with the pos.*"),
        ({"ref_weight": torch.zeros(8, 4)}, r"ref_weight takes shape \[V, D2\] with the V of"),
        ({"ref_weight": torch.zeros(9, 5)}, "ref_hidden takes shape .* the D of ref_weight"),
        ({"weight": torch.zeros(9, 5)}, "hidden takes shape .* the D of weight"),
        ({"ref_bias": torch.zeros(8)}, r"ref_bias takes shape \[9\] \(the V of ref_weight\)"),
        ({"target": torch.zeros(5, dtype=torch.int64)}, r"target takes shape \[6\]"),
        (
            {"cu_seqlens": torch.tensor([0, 7])},
            r"cu_seqlens.*the number of tokens, 6|from 0 to T = 6",
        ),
        ({"reduction": "max"}, "reduction takes one of 'mean', 'sum'"),
        ({"temperature": 0.0}, "temperature takes a number above 0"),
        ({"softcap": -1.0}, "softcap takes a number above 0"),
    ],
)
def test_errors(changes: dict[str, Any], message: str) -> None:
    case = kl_case(6, 4, 4, 9)
    with pytest.raises(ValueError, match=message):
        suder_ext.linear_kl(**{**case.floats, **changes})


def test_dtypes_that_are_not_taken() -> None:
    case = kl_case(6, 4, 4, 9)
    for name in ("hidden", "ref_hidden", "ref_weight"):
        with pytest.raises(TypeError, match=f"{name} takes dtype"):
            suder_ext.linear_kl(**{**case.floats, name: case.floats[name].long()})
    with pytest.raises(TypeError, match="target takes dtype"):
        suder_ext.linear_kl(**case.floats, target=torch.zeros(6))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_sides_of_two_dtypes(backend: str, dtype: torch.dtype) -> None:
    """Widened, not rounded; each gradient has the dtype of its own argument."""
    case = kl_case(17, 8, 6, 33)
    names = [name for name in case.floats if name.startswith("ref_")]
    case.floats.update({name: case.floats[name].to(dtype) for name in names})
    expected, expected_grads = oracle(case, upstream_for(case))
    got, grads = run(case, upstream_for(case))
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(got, expected, "kl", torch.float32)
    for name, grad in grads.items():
        assert grad.dtype == case.floats[name].dtype
        kind = f"grad_{name.removeprefix('ref_')}/parts"
        limits = torch.float32 if grad.dtype == torch.float64 else grad.dtype
        assert_close(grad, expected_grads[name], kind, limits)
