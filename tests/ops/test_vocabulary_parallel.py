"""linear_logprob(group=...): a head split over processes, against one process and float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import suder_ext
from tests.ops.backends import use_backend
from tests.ops.cases import OUTPUTS, final_logits, gradients, oracle
from tests.ops.compare import assert_close, grad_kind
from tests.ops.vocabulary_cases import RUNS, SPLITS
from tests.ops.vocabulary_ranks import CU, RANKS, run
from tests.tolerances import TOLERANCES

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process got; all of them are started once."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(run, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_argmax_of_ranks(ranks: list[dict[str, Any]], backend: str, name: str) -> None:
    split = SPLITS[name]
    parts = [rank[f"{backend}/{name} first"] for rank in ranks[: len(split.sizes)]]
    plain = ranks[0][f"{backend}/{name}"][0]
    for part in parts:
        assert all(equal_bits(part[output], plain[output]) for output in OUTPUTS)
        assert torch.equal(part["argmax"], parts[0]["argmax"])
        assert torch.equal(part["top1"], parts[0]["top1"])
    case, found = split.case, parts[0]["argmax"]
    nothing = case.ignored | plain["logprob"].isnan()
    assert not found[nothing].any()
    assert torch.equal(parts[0]["top1"], (found == case.target) & ~nothing)
    z = final_logits(case)
    best = z.gather(-1, found[..., None])[..., 0]
    assert_close(best[~nothing].float(), z.amax(-1)[~nothing], "lse", torch.float32, split.logits)


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_ranks_equal_one_process_and_float64(
    ranks: list[dict[str, Any]], backend: str, name: str
) -> None:
    split = SPLITS[name]
    case, upstream = split.case, split.upstream()
    parts = [rank[f"{backend}/{name}"] for rank in ranks[: len(split.sizes)]]
    for got, grads in parts[1:]:
        assert all(equal_bits(got[output], parts[0][0][output]) for output in OUTPUTS)
        assert equal_bits(grads["hidden"], parts[0][1]["hidden"])
    got, grads = parts[0][0], {"hidden": parts[0][1]["hidden"]}
    for rows in list(case.floats)[1:]:
        grads[rows] = torch.cat([part[1][rows] for part in parts])

    with use_backend(backend):
        one, one_grads = gradients(case, suder_ext.linear_logprob_stats, upstream)
        expected, expected_grads = oracle(case, upstream)
        for output in OUTPUTS:
            assert got[output].dtype == one[output].dtype
            assert_close(got[output], expected[output], output, torch.float32, split.logits)
            assert_close(got[output], one[output], "split", torch.float32, split.logits)
            assert not got[output][case.ignored].any()
        assert not bool((got["logprob"] > 0).any())
        for argument, grad in grads.items() if split.with_gradients else ():
            dtype = case.floats[argument].dtype
            assert grad.dtype == dtype
            if dtype == torch.float64:
                dtype = torch.float32
            kind = grad_kind(argument, dtype)
            assert_close(grad, expected_grads[argument], kind, dtype, split.logits)
            if dtype == torch.float32:
                # Both round the logits, each by 2^-24 of itself, and p is off by as much.
                largest = float(grad.nan_to_num().abs().max()) if grad.numel() else 0.0
                terms = largest * max(1.0, split.logits / 8)
                assert_close(grad, one_grads[argument], "grad_split", dtype, terms=terms)


def test_sequences_and_rewards(ranks: list[dict[str, Any]]) -> None:
    case = SPLITS["torch.bfloat16"].case
    hidden, weight, bias = case.floats.values()
    packed = hidden, weight, case.target, CU, bias
    one = [
        suder_ext.linear_logprob(hidden, weight, case.target, bias),
        suder_ext.linear_sequence_logprob(*packed),
        *suder_ext.dual_reward(*packed, group_size=2),
    ]
    for got, other, expected in zip(ranks[0]["sequences"], ranks[1]["sequences"], one, strict=True):
        assert equal_bits(got, other)
        advantage = TOLERANCES["group_advantage", "cpu", torch.float32]
        torch.testing.assert_close(got, expected, equal_nan=True, **advantage)


def test_same_bits(ranks: list[dict[str, Any]]) -> None:
    """For any number of threads, any batch and any position in it."""
    assert all(ranks[0]["same_bits"])
    assert all(ranks[1]["same_bits"])


def test_torch_compile(ranks: list[dict[str, Any]]) -> None:
    """The call is left out of the graph; that there is one cannot be had."""
    assert all(ranks[2]["compiled"])
    assert "group: what processes tell each other is no part of a graph" in ranks[2]["whole_graph"]


def test_backward_twice_of_a_sum_and_of_the_head_alone(ranks: list[dict[str, Any]]) -> None:
    case = SPLITS["torch.float32"].case
    _, expected = oracle(case, {"logprob": torch.ones(case.target.shape)})
    first, second = (rank["autograd"] for rank in ranks[:2])
    for got in (first, second):
        assert got["twice"]
        assert got["alone"]
        assert_close(got["grads"]["hidden"], expected["hidden"], "grad_hidden", torch.float32)
    for name in ("weight", "bias"):
        whole = torch.cat([first["grads"][name], second["grads"][name]])
        assert_close(whole, expected[name], f"grad_{name}", torch.float32)


REFUSED = {
    "outside": "IndexError: target[2] is 77; it must be in [0, 77) or equal to ignore_index",
    "target": "ValueError: group takes the same hidden, target and settings on every rank; the "
    "target of rank 1 is not that of rank 0",
    "settings": "function or settings of rank 1",
    "tokens": "number of tokens of rank 1",
    "gradient": "need of a gradient of hidden of rank 1",
    "group": "TypeError: group takes a process group of torch.distributed that this process is in",
    "meta": "TypeError: group takes plain tensors on the CPU or a GPU",
    "vmap": "NotImplementedError: group takes no transform of torch",
    "jvp": "NotImplementedError: group takes no transform of torch",
    "grad": "NotImplementedError: group takes no transform of torch",
    "twice": "RuntimeError: group has no second derivatives",
    "batched": "RuntimeError: group has no second derivatives",
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_every_rank(ranks: list[dict[str, Any]], what: str) -> None:
    for rank in ranks[:2]:
        assert REFUSED[what] in rank["refused"][what]
