"""What the CUDA forward keeps for its backward: the accuracy of every row, memory, the setting.

On the emulated kernels, where they are built; the setting also without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import suder_ext
from suder_ext import _workspace
from suder_ext._ops.cuda import call, fused_backward, kept_exps, linear_logprob, logit_gradients
from tests.ops.backends import use_backend
from tests.ops.cases import (
    OUTPUTS,
    Case,
    gradients,
    linear_case,
    oracle,
    upstream_for,
)
from tests.ops.compare import grad_kind
from tests.ops.emulated import EMULATED
from tests.tolerances import TOLERANCES

emulated = pytest.mark.skipif(not EMULATED, reason="the emulated kernels are not built")
DTYPES = [torch.bfloat16, torch.float16]
WAYS = [name for name in EMULATED if name != "emulated-tiles"]
ALL = 2**29


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on both kernels, which keep everything."""
    with use_backend(request.param), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_workspace, "kept_bytes", ALL)
        yield request.param


def ranging_case(dtype: torch.dtype, spread: float, **options: Any) -> Case:
    """Targets of all probabilities: from 1e-17 over what chance gives to almost 1."""
    case = linear_case(48, 64, 1100, dtype, spread=spread, ignored=0.1, **options)
    weight = case.floats["weight"].float()
    of_target = weight[case.target.clamp(min=0)]
    towards = torch.linspace(-25.0, 16.0, 32).unsqueeze(1)
    hidden = case.floats["hidden"].float() * 0.1
    hidden[:32] += towards * of_target[:32] / of_target[:32].square().sum(1, keepdim=True)
    return replace(case, floats={**case.floats, "hidden": hidden.to(dtype)})


def sizes_of_terms(case: Case, upstream: dict[str, Tensor]) -> dict[str, Tensor]:
    """For each row of a gradient, the largest sum of the sizes of its own terms.

    Those of a logit are its gradient and what cancels in it, probability times what comes from
    above.
    """
    hidden, weight, bias = (tensor.double() for tensor in case.floats.values())
    logits = replace(case, floats={"logits": hidden @ weight.t() + bias})
    z = logits.floats["logits"]
    if cap := case.options.get("softcap"):
        z = cap * (z / cap).tanh()
    temperature = case.options.get("temperature", 1.0)
    above = sum(grad.abs() for grad in upstream.values()).masked_fill(case.ignored, 0.0)
    sizes = oracle(logits, upstream)[1]["logits"].abs()
    sizes += (z / temperature).softmax(1) * above.unsqueeze(1) / temperature
    return {
        "hidden": (sizes @ weight.abs()).amax(1, keepdim=True),
        "weight": (sizes.t() @ hidden.abs()).amax(1, keepdim=True),
        "bias": sizes.sum(0),
    }


@emulated
@pytest.mark.parametrize("spread", [0.2, 6.0])
@pytest.mark.parametrize("outputs", [("logprob",), ("entropy",), OUTPUTS], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"softcap": 30.0}, {"softcap": 3.0, "temperature": 1.5}]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_row_is_as_exact_as_its_own_terms(
    way: str,
    dtype: torch.dtype,
    options: dict[str, float],
    outputs: tuple[str, ...],
    spread: float,
) -> None:
    """Of each token and of each entry of the vocabulary, however small beside the others."""
    case = ranging_case(dtype, spread, **options)
    upstream = upstream_for(case, outputs=outputs)
    expected_results, expected = oracle(case, upstream)
    _, grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
    terms = sizes_of_terms(case, upstream)
    # A log p of float32 knows 1 - p to so much only.
    probability = expected_results["logprob"].exp()
    certain = (1 - probability < 1e-4) & (probability > 0.5)
    for name, grad in grads.items():
        kind = grad_kind(name, dtype)
        limits = TOLERANCES[kind, "cuda", dtype]
        # In float16 the probability is rounded by as much as its gradient.
        of_terms = (2 if dtype == torch.float16 else 1) * limits["atol"] * terms[name]
        error = (grad.double() - expected[name]).abs() - limits["rtol"] * expected[name].abs()
        # The last digits of float16: of the gradients of logits, before products with up to 30.
        least = 64 * 2.0**-24 if dtype == torch.float16 else 1e-30
        wrong = error > of_terms + least
        assert not (wrong[~certain] if name == "hidden" else wrong).any(), name


@emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_target_that_is_almost_certain(way: str, dtype: torch.dtype) -> None:
    """1 - p from 0.03 to 4e-4, which is next to nothing where p has 16 bits."""
    case = linear_case(4, 8, 300, dtype, bias=False, ignored=0.0)
    weight, hidden = case.floats["weight"].zero_(), case.floats["hidden"].zero_()
    weight[case.target, range(4)] = 1.0
    hidden[range(4), range(4)] = torch.tensor([9.25, 11.0, 12.25, 13.5]).to(dtype)
    upstream = {"logprob": torch.tensor([1.0, -2.0, 0.5, 3.0])}
    _, expected = oracle(case, upstream)
    _, grads = gradients(case, suder_ext.linear_logprob, upstream)
    got, right = (g["hidden"][range(4), range(4)].double() for g in (grads, expected))
    # log p is that of a float32 sum, to which 64 small terms are added one by one.
    limit = 2 * TOLERANCES["grad_hidden", "cuda", dtype]["rtol"] + 64 * 2.0**-24 / 4e-4
    assert ((got - right).abs() <= limit * right.abs()).all()


@emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_have_the_same_bits_kept_or_not(way: str, dtype: torch.dtype) -> None:
    case = linear_case(300, 32, 600, dtype, ignored=0.0)
    with torch.no_grad():
        without = case.run(suder_ext.linear_logprob_stats)
    for rows in (slice(0, 300), slice(5, 22), slice(100, 270)):
        hidden = case.floats["hidden"][rows].clone().requires_grad_()
        part = replace(case, floats={**case.floats, "hidden": hidden}, target=case.target[rows])
        for name, value in part.run(suder_ext.linear_logprob_stats)._asdict().items():
            assert torch.equal(value.detach(), getattr(without, name)[rows]), (name, rows)


@emulated
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}], ids=str)
def test_infinite_and_nan_logits_stay_in_their_rows(way: str, options: dict[str, float]) -> None:
    """As where nothing is kept: a tile of -inf, a row of it, NaN, inf; -inf at a target."""
    case = linear_case(9, 16, 700, torch.bfloat16, ignored=0.0, **options)
    bias = case.floats["bias"]
    bias[256:600] = -torch.inf
    case.target[:] = torch.randint(0, 250, (9,))
    case.target[0], case.target[1] = 300, -100
    hidden = case.floats["hidden"]
    hidden[1], hidden[3, 2], hidden[5, 0] = torch.nan, torch.nan, torch.inf
    results = []
    for kept in (0, ALL):
        _workspace.kept_bytes = kept
        upstream = upstream_for(case)
        results.append(gradients(case, suder_ext.linear_logprob_stats, upstream, ("hidden",)))
    (_, again), (_, ours) = results
    finite = [0, 2, 4, 6, 7, 8]
    assert torch.equal(again["hidden"].isnan(), ours["hidden"].isnan())
    assert ours["hidden"][finite].isfinite().all()
    assert not ours["hidden"][1].any()
    torch.testing.assert_close(
        ours["hidden"][finite], again["hidden"][finite], rtol=0.02, atol=0.02
    )


@emulated
def test_backward_twice_and_through_the_compiler(way: str) -> None:
    case = linear_case(40, 16, 300, torch.bfloat16)
    upstream = upstream_for(case)["logprob"]

    def function(hidden: Tensor, weight: Tensor) -> Tensor:
        return suder_ext.linear_logprob(hidden, weight, case.target)

    leaves = [case.floats[name].requires_grad_() for name in ("hidden", "weight")]
    result = function(*leaves)
    first = torch.autograd.grad(result, leaves, upstream, retain_graph=True)
    second = torch.autograd.grad(result, leaves, upstream)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    third = torch.autograd.grad(compiled(*leaves), leaves, upstream)
    for one, *others in zip(first, second, third, strict=True):
        assert all(torch.equal(one, other) for other in others)


@emulated
def test_memory_is_the_workspace_and_no_more(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for beyond results and O(tokens) does not grow with tokens x vocabulary."""
    chunk, columns, features, vocab = 64, 256, 40, 1100
    asked: list[int] = []

    def floats(like: Tensor, *size: int, **options: Any) -> Tensor:
        result = call.floats(like, *size, **options)
        asked.append(result.numel() * result.element_size())
        return result

    for module in (logit_gradients, fused_backward, linear_logprob):
        monkeypatch.setattr(module, "floats", floats)
    monkeypatch.setattr(logit_gradients, "CHUNK_TOKENS", chunk)
    monkeypatch.setattr(logit_gradients, "SLICE_COLUMNS", columns)
    for workspace in (0, 100_000, 10**9):
        for tokens in (100, 300):
            asked.clear()
            monkeypatch.setattr(_workspace, "kept_bytes", workspace)
            case = linear_case(tokens, features, vocab, torch.bfloat16)
            gradients(case, suder_ext.linear_logprob_stats, upstream_for(case))
            splits = -(-vocab // 256)
            of_tokens = tokens * (4 * features + 16 * splits)
            results = 2 * vocab * features + 4 * vocab
            fixed = 2 * chunk * columns + 4 * columns * features + 4 * (chunk // 16) * columns
            kept = min(workspace, tokens * 4 * kept_exps.floats_of(vocab))
            assert 0.5 * kept <= sum(asked) - of_tokens - results <= fixed + kept + 1024


def test_room_is_for_whole_rows_of_what_needs_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.empty(1000, 16, dtype=torch.bfloat16)
    each = 4 * kept_exps.floats_of(1000)
    assert each == 2 * 1000 + 4 * 16 + 4
    monkeypatch.setattr(_workspace, "kept_bytes", ALL)
    monkeypatch.setattr(kept_exps, "_keeps", lambda *_: True)
    monkeypatch.setattr(kept_exps, "way_of", lambda *_: "mma")
    for given, tokens in ((0, 0), (600 * each, 512), (700 * each, 700), (10**9, 700)):
        suder_ext.set_workspace(given)
        assert kept_exps.room(weight[:700], weight, 0) * 4 == tokens * each
    monkeypatch.setattr(kept_exps, "way_of", lambda *_: "tiles")
    assert kept_exps.room(weight[:700], weight, 0) == 0


def test_the_setting_takes_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workspace, "kept_bytes", ALL)
    with pytest.raises(ValueError, match="from 0 on, got -1"):
        suder_ext.set_workspace(-1)
    for wrong in (1.5, "512 MiB", True, None):
        with pytest.raises(TypeError, match="a number of bytes"):
            suder_ext.set_workspace(wrong)  # type: ignore[arg-type]
    assert _workspace.kept_bytes == ALL
    suder_ext.set_workspace(12)
    assert _workspace.kept_bytes == 12


@emulated
@pytest.mark.parametrize("tokens", [16, 40])
def test_the_operators_pass_torchs_own_checks(way: str, tokens: int) -> None:
    """With a part of the tokens kept, and all of them."""
    case = linear_case(40, 16, 300, torch.bfloat16)
    floats = [tensor.requires_grad_() for tensor in case.floats.values()]
    keep = tokens * kept_exps.floats_of(300)
    arguments = (*floats, case.target, -100, 0.7, 5.0, True, keep, False)
    torch.library.opcheck(torch.ops.suder.linear_logprob.default, arguments)
    _, lse, entropy, kept, _ = torch.ops.suder.linear_logprob(*arguments)
    saved = (tensor.detach() for tensor in (lse, entropy, kept))
    backward = (torch.ones(40), None, torch.ones(40), *arguments[:4], *saved, -100, 0.7, 5.0)
    torch.library.opcheck(
        torch.ops.suder.linear_logprob_backward.default,
        tuple(x.detach() if isinstance(x, Tensor) else x for x in (*backward, True, True, True)),
    )
