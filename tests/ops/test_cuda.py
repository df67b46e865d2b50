"""What is CUDA's own: nothing looks at targets or offsets, same bits in every batch, no races.

Runs on the emulated kernels, where they are built; tests/ops/emulated.py says how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest
import torch

import suder_ext
from suder_ext import _ops
from suder_ext._ops.cuda import logit_gradients, ops
from suder_ext._ops.schemas import SCHEMAS
from tests.ops.backends import use_backend
from tests.ops.cases import (
    DTYPES,
    OUTPUTS,
    gradients,
    linear_case,
    logits_case,
    oracle,
    upstream_for,
)
from tests.ops.compare import assert_close
from tests.ops.emulated import EMULATED, load, short_way, use_emulated
from tests.ops.kl_cases import kl_case
from tests.ops.pairs import taken_logprobs

pytestmark = pytest.mark.skipif(not EMULATED, reason="the emulated kernels are not built")


@pytest.fixture(params=EMULATED)
def emulated(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on every forward pass of linear_logprob."""
    with use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("wrong", [-1, 40, 2**40])
def test_a_target_outside_the_vocabulary_makes_its_row_nan(emulated: str, wrong: int) -> None:
    for case, function in (
        (linear_case(6, 16, 40, torch.bfloat16, ignored=0.0), suder_ext.linear_logprob),
        (logits_case(6, 40, ignored=0.0), suder_ext.logprob),
    ):
        upstream = {"logprob": torch.ones(6)}
        good, good_grads = gradients(case, function, upstream)
        target = case.target.clone()
        target[2] = wrong
        got, grads = gradients(replace(case, target=target), function, upstream)
        name = next(iter(case.floats))  # hidden or logits: has the tokens' rows
        for value, expected in (
            (got["logprob"], good["logprob"]),
            (grads[name], good_grads[name]),
        ):
            assert value[2].isnan().all()
            others = torch.arange(6) != 2
            assert torch.equal(value[others], expected[others])


def test_offsets_out_of_range_touch_nothing_outside(emulated: str) -> None:
    """The values have no meaning then; the sanitizer build is what would complain."""
    logprob, target = torch.rand(7), torch.zeros(7, dtype=torch.int64)
    for offsets in ([0, 9], [-3, 4, 7], [5, 2, 7]):
        cu_seqlens = torch.tensor(offsets)
        value, count = torch.ops.suder.sequence_reduce(logprob, target, cu_seqlens, True, -100)
        assert value.shape == count.shape == (len(offsets) - 1,)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_in_any_batch_and_position(emulated: str, dtype: torch.dtype) -> None:
    case = linear_case(300, 32, 600, dtype, ignored=0.0)
    whole = case.run(suder_ext.linear_logprob_stats)
    # Of one block, across two, from the second of a cluster alone.
    for rows in (slice(0, 1), slice(5, 22), slice(100, 270), slice(200, 230), slice(299, 300)):
        part = replace(
            case,
            floats={**case.floats, "hidden": case.floats["hidden"][rows]},
            target=case.target[rows],
        )
        for name, value in part.run(suder_ext.linear_logprob_stats)._asdict().items():
            assert torch.equal(value, getattr(whole, name)[rows]), (name, rows)


@pytest.mark.parametrize("shape", [(5, 712, 300), (3, 136, 3000), (650, 72, 800)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_steps_and_tiles(
    emulated: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """Rings of stages go round; each of the emulator's five processors takes several tiles, of the
    vocabulary or of tokens."""
    case = linear_case(*shape, dtype)
    expected, _ = oracle(case, upstream_for(case))
    got = case.run(suder_ext.linear_logprob_stats)._asdict()
    for name in OUTPUTS:
        assert_close(got[name], expected[name], name, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_bias_is_read_in_its_own_dtype(emulated: str, dtype: torch.dtype) -> None:
    """With the bits of the same values in float32, and from an address that fits two bytes only."""
    case = linear_case(5, 16, 300, dtype)
    hidden, weight, bias = case.floats.values()
    ends = -100, 1.0, None
    bias = torch.cat([bias, bias])[1:301]
    results = []
    for own in (bias, bias.float()):
        _, lse, entropy, *_ = forward = torch.ops.suder.linear_logprob(
            hidden, weight, own, case.target, *ends, True, 0, False
        )
        grads = torch.ops.suder.linear_logprob_backward(
            *(torch.ones(5), None, None, hidden, weight, own, case.target, lse, entropy),
            *(torch.empty(0), *ends, True, True, True),
        )
        results.append([*forward[:3], *grads[:2], grads[2].to(dtype)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


# A thread has four packs of 16 bytes at a time, a block up to 256 threads: one pack, one round, a
# part of the second, several; and two splits of a row.
@pytest.mark.parametrize("vocab", [5, 1023, 4096, 4100, 20001, 65600])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_logits_of_any_width_and_alignment(vocab: int, dtype: torch.dtype) -> None:
    with use_backend(EMULATED[0]):
        case = logits_case(2, vocab, dtype, ignored=0.0)
        upstream = upstream_for(case)
        expected, expected_grads = oracle(case, upstream)
        got, grads = gradients(case, suder_ext.logprob_stats, upstream)
        for name in OUTPUTS:
            assert_close(got[name], expected[name], name, dtype)
        assert_close(grads["logits"], expected_grads["logits"], "grad_logits", dtype)
        wide = torch.zeros(2, vocab + 3, dtype=dtype)
        wide[:, 1:-2] = case.floats["logits"]
        moved = replace(case, floats={"logits": wide[:, 1:-2]})
        again, grads_again = gradients(moved, suder_ext.logprob_stats, upstream)
        for name in OUTPUTS:
            assert torch.equal(again[name], got[name]), name
        assert torch.equal(grads_again["logits"], grads["logits"])


def test_rows_that_overlap_are_taken(emulated: str) -> None:
    """TMA takes no such matrix: the forward has to copy it."""
    case = linear_case(5, 16, 40, torch.bfloat16, ignored=0.0)
    row = case.floats["hidden"][:1]
    same, copied = (
        replace(case, floats={**case.floats, "hidden": hidden}).run(suder_ext.linear_logprob)
        for hidden in (row.expand(5, 16), row.repeat(5, 1))
    )
    assert torch.equal(same, copied)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_short_way_gives_the_same_bits(emulated: str, dtype: torch.dtype) -> None:
    """An eager call goes past the dispatcher, and makes no more than what is asked for."""
    linear, logits = linear_case(20, 16, 300, dtype), logits_case(20, 70, dtype)
    functions = (
        (linear, suder_ext.linear_logprob),
        (linear, suder_ext.linear_logprob_stats),
        (logits, suder_ext.logprob_stats),
    )
    for case, function in functions:
        upstream = upstream_for(
            case, outputs=OUTPUTS if "stats" in function.__name__ else ("logprob",)
        )
        expected, gradient = gradients(case, function, upstream)
        with (
            short_way(),
            mock.patch.object(_ops, "linear_logprob", None),  # the dispatcher's
            mock.patch.object(_ops, "logprob", None),
        ):
            short, short_gradient = gradients(case, function, upstream)
            plain = case.run(function)
        assert all(torch.equal(short[name], value) for name, value in expected.items())
        assert all(torch.equal(short_gradient[name], value) for name, value in gradient.items())
        plain = plain._asdict() if isinstance(plain, tuple) else {"logprob": plain}
        assert all(torch.equal(plain[name], value) for name, value in expected.items())


def test_no_races() -> None:
    """Every operator once, each memory access logged: the emulator raises at the first race."""
    kernels = load("_C_emulated_races")
    if kernels is None:
        pytest.skip("this build logs no accesses")
    for name in EMULATED:
        # Chunks of two blocks of rows, the second not full; more columns than blocks at a time.
        sizes = mock.patch.multiple(logit_gradients, CHUNK_TOKENS=136, SLICE_COLUMNS=2048)
        with use_emulated(name, kernels), sizes:
            for dtype in DTYPES:
                for case in (
                    linear_case(18, 40, 1030, dtype, softcap=3.0),
                    linear_case(140, 16, 300, dtype),
                    logits_case(5, 70, dtype),
                ):
                    stats = (
                        suder_ext.logprob_stats
                        if "logits" in case.floats
                        else suder_ext.linear_logprob_stats
                    )
                    gradients(case, stats, upstream_for(case, outputs=OUTPUTS))
            offset = logits_case(3, 70)
            moved = replace(offset, floats={"logits": offset.floats["logits"] + 1e4})
            gradients(moved, suder_ext.logprob_stats, upstream_for(moved))
            if name == "emulated-tiles":  # the others go the same way
                for case in (kl_case(18, 40, 8, 1030, softcap=3.0), kl_case(3, 16, 8, 2000)):
                    gradients(case, suder_ext.linear_kl, upstream_for(case, outputs=("logprob",)))
            _losses_and_sequences()
            _tokens()


def _losses_and_sequences() -> None:
    cu_seqlens = torch.tensor([0, 3, 3, 9])
    logprob = torch.rand(9, requires_grad=True)
    target = torch.tensor([1, -100, 2, 3, 4, 5, 6, -100, 8])
    value, _ = suder_ext.sequence_reduce(logprob, target, cu_seqlens, mean=False)
    value.nansum().backward()
    suder_ext.group_advantage(torch.rand(70), 35)
    for level in ("token", "sequence"):
        suder_ext.policy_loss(
            logprob,
            torch.rand(9),
            torch.rand(3),
            cu_seqlens,
            torch.rand(9),
            kl_coef=0.1,
            reduction="constant",
            level=level,
        ).backward()
    for loss_type in ("sigmoid", "aot", "aot_unpaired", "cpo"):
        pair = taken_logprobs(loss_type, [torch.rand(150, requires_grad=True) for _ in range(4)])
        suder_ext.preference_loss(*pair, loss_type=loss_type).loss.sum().backward()


def _tokens() -> None:
    """A row that takes a warp, and one that takes several, greedy or not."""
    logits = torch.randn(2, 1500)
    for uniform in (torch.tensor([0.3, 0.9]), None):
        suder_ext.sample_token(logits[:, :9], uniform)
        suder_ext.linear_sample_token(torch.randn(2, 8), torch.randn(1500, 8), uniform, logits[0])


def test_every_operator_has_a_kernel() -> None:
    composite = {"policy_loss_backward"}  # _ops/composite.py
    on_the_cpu = {"linear_preference_loss", "linear_preference_loss_backward"}  # pair_chunks.py
    assert set(SCHEMAS) - set(ops.OPS) == composite | on_the_cpu
