"""The fused backward of linear_logprob: slices of the vocabulary, chunks of tokens, their edges.

On the emulated kernels, where they are built; what every backend promises is tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import suder_ext
from suder_ext import _workspace
from suder_ext._ops.cuda import call, logit_gradients, tensor_cores
from tests.ops.backends import use_backend
from tests.ops.cases import gradients, linear_case, oracle, product_terms, upstream_for
from tests.ops.compare import assert_close, grad_kind
from tests.ops.emulated import EMULATED

pytestmark = pytest.mark.skipif(not EMULATED, reason="the emulated kernels are not built")
DTYPES = [torch.bfloat16, torch.float16]
TOKENS, FEATURES, VOCAB = 300, 40, 530


@pytest.fixture(params=[name for name in EMULATED if name != "emulated-tiles"])
def hopper(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Runs the test on both kernels."""
    with use_backend(request.param):
        yield request.param == "emulated-hopper"


# Blocks have 128 rows and 256 columns, clusters 256 rows: parts of one, several, all that there is.
# And all tokens computed again, the first 64 kept (1.1 kB each), or all.
@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ((96, 512), 0),
        ((272, 256), 0),
        ((8192, 16384), 0),
        ((96, 512), 64 * 1200),
        ((8192, 16384), 64 * 1200),
        ((272, 256), 2**29),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"softcap": 3.0, "temperature": 0.7}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_slices_and_chunks(
    hopper: bool,
    sizes: tuple[int, int],
    kept: int,
    options: dict[str, float],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With NaN hidden states in ignored rows, which must not reach any gradient."""
    monkeypatch.setattr(_workspace, "kept_bytes", kept)
    monkeypatch.setattr(logit_gradients, "CHUNK_TOKENS", sizes[0])
    monkeypatch.setattr(logit_gradients, "SLICE_COLUMNS", sizes[1])
    case = linear_case(TOKENS, FEATURES, VOCAB, dtype, **options)
    upstream = upstream_for(case)
    _, expected = oracle(case, upstream)
    terms = product_terms(case, upstream)
    hidden = case.floats["hidden"].masked_fill(case.ignored.unsqueeze(1), float("nan"))
    case = replace(case, floats={**case.floats, "hidden": hidden})
    # What is wanted decides whether the kernel meets the NaN.
    for wanted in (("hidden", "weight", "bias"), ("hidden",), ("weight",), ("bias",)):
        _, grads = gradients(case, suder_ext.linear_logprob_stats, upstream, wanted)
        for name, grad in grads.items():
            kind = grad_kind(name, dtype)
            assert_close(grad, expected[name], kind, dtype, terms=terms.get(name, 0.0))


def test_the_gradient_of_the_bias_is_not_rounded_before_its_sum(hopper: bool) -> None:
    """By the tokens' gradients of 16 bits it would be off by 2^-9 of their sizes."""
    case = linear_case(TOKENS, FEATURES, VOCAB, torch.bfloat16)
    upstream = {"logprob": upstream_for(case)["logprob"]}
    expected = oracle(case, upstream)[1]["bias"]
    grad, sums = _logits_gradients(case.floats, case.target, upstream["logprob"], hopper)
    assert_close(sums, expected, "grad_bias", torch.float32)
    with pytest.raises(AssertionError):
        assert_close(grad.float().sum(0), expected, "grad_bias", torch.float32)


def _logits_gradients(
    floats: dict[str, Tensor], target: Tensor, grad_logprob: Tensor, hopper: bool
) -> tuple[Tensor, Tensor]:
    """The kernel itself: gradients of the logits, and the sums of their columns."""
    hidden, weight, bias = floats.values()
    (tokens, features), vocab = hidden.shape, weight.shape[0]
    _, lse, _ = suder_ext.linear_logprob_stats(hidden, weight, target, bias)
    assert call.kernels is not None
    parts = call.kernels.fused_grad_row_parts(tokens, hopper)
    # One row more than the kernel may write.
    width = vocab + 8 - vocab % 8
    grad = torch.full((tokens + 1, width), 7.0, dtype=hidden.dtype)
    sums = torch.full((parts + 1, width), 7.0)
    call.run(
        "fused_grad",
        hidden,
        dtype=call.DTYPE_CODES[hidden.dtype],
        hidden=hidden,
        tokens=tokens,
        features=features,
        hidden_stride=features,
        weight=weight,
        cols=vocab,
        weight_stride=features,
        first_column=0,
        vocab=vocab,
        **tensor_cores.bias_arguments(bias, hidden.dtype),
        target=target,
        ignore_index=-100,
        temperature=1.0,
        softcap=0.0,
        lse=lse,
        entropy=None,
        grad_logprob=grad_logprob,
        grad_lse=None,
        grad_entropy=None,
        grad=grad,
        grad_stride=width,
        column_sums=sums,
        hopper=hopper,
    )
    assert bool((grad[tokens] == 7.0).all())
    assert bool((sums[parts] == 7.0).all())
    return grad[:tokens, :vocab], sums[:parts, :vocab].sum(0)
