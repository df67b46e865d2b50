"""sample_token and linear_sample_token: the right token for a number, and what it was drawn at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import suder_ext
from suder_ext import SampledToken, reference
from tests.ops.backends import ISAS, use_backend
from tests.ops.compare import assert_close
from tests.ops.emulated import EMULATED
from tests.tolerances import TOLERANCES

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RULES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"top_k": 5},
    {"top_p": 0.8},
    {"top_k": 40, "top_p": 0.5, "temperature": 1.7},
]
few = settings(max_examples=40, deadline=None, derandomize=True)


# The ways through the linear head make no difference here: one emulated backend is enough.
@pytest.fixture(params=["reference", *ISAS, *EMULATED[:1]])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


def logits_of(rows: int, vocab: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(rows, vocab, generator=generator)).to(dtype)
    return logits, torch.rand(rows, generator=generator, dtype=torch.float64)


def head_of(
    rows: int, features: int, vocab: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, features, generator=generator)
    weight = torch.randn(vocab, features, generator=generator) * 3 / features**0.5
    bias = torch.randn(vocab, generator=generator)
    uniform = torch.rand(rows, generator=generator, dtype=torch.float64)
    return hidden.to(dtype), weight.to(dtype), uniform, bias.to(dtype)


def check(got: SampledToken, logits: Tensor, uniform: Tensor | None, **rules: Any) -> None:
    """Against float64 on the same logits: the level lies in the token's interval, or as near as
    rounding lets it; log-probability and entropy are those of the token that was drawn."""
    exact = logits.double()
    temperature = rules.get("temperature", 1.0)
    kept = reference.sampling._cut(
        exact / temperature, rules.get("top_k", 0), rules.get("top_p", 1.0)
    )
    logprob = kept.log_softmax(-1)
    chosen = logprob.gather(-1, got.token[:, None])[:, 0]
    assert (chosen > -math.inf).all()
    scale = float(exact[exact.isfinite()].abs().max()) / temperature
    assert [part.dtype for part in got] == [torch.int64, torch.float32, torch.float32]
    assert_close(got.logprob, chosen, "logprob", logits.dtype, logits=scale)
    entropy = torch.distributions.Categorical(logits=kept).entropy()
    assert_close(got.entropy, entropy, "entropy", logits.dtype, logits=scale)
    if uniform is None:
        assert torch.equal(got.token, exact.argmax(-1))
        return
    upper = logprob.exp().cumsum(-1)
    above = upper.gather(-1, got.token[:, None])[:, 0]
    slack = TOLERANCES["cumulative", "cpu", torch.float32]["atol"]
    assert (uniform <= above + slack).all()
    assert (uniform >= above - chosen.exp() - slack).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rules", RULES)
# One token; fewer than a vector; just over one, two and many groups of vectors; every warp of a
# block several times.
@pytest.mark.parametrize(
    ("rows", "vocab"), [(1, 1), (3, 5), (4, 65), (2, 129), (33, 5003), (1, 40001)]
)
def test_matches_float64(
    backend: str, rows: int, vocab: int, rules: dict[str, Any], dtype: torch.dtype
) -> None:
    logits, uniform = logits_of(rows, vocab, dtype)
    check(suder_ext.sample_token(logits, uniform, **rules), logits, uniform, **rules)
    check(suder_ext.sample_token(logits, None, **rules), logits, None, **rules)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rules", RULES)
# One token, few tokens, just over a panel; one tile of the vocabulary, just over one, many.
@pytest.mark.parametrize(
    ("rows", "features", "vocab"), [(1, 1, 1), (3, 9, 112), (20, 33, 113), (35, 16, 1500)]
)
def test_hidden_states_match_float64(
    backend: str, rows: int, features: int, vocab: int, rules: dict[str, Any], dtype: torch.dtype
) -> None:
    hidden, weight, uniform, bias = head_of(rows, features, vocab, dtype)
    logits = (hidden.double() @ weight.double().T + bias.double()).float()
    for numbers in (uniform, None):
        got = suder_ext.linear_sample_token(hidden, weight, numbers, bias, **rules)
        check(got, logits, numbers, **rules)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_any_batch(
    backend: str, rules: dict[str, Any], dtype: torch.dtype
) -> None:
    if backend == "reference":
        pytest.skip("a promise of the kernels")
    hidden, weight, uniform, bias = head_of(70, 24, 700, dtype)
    logits, _ = logits_of(70, 700, dtype)
    whole = suder_ext.linear_sample_token(hidden, weight, uniform, bias, **rules)
    plain = suder_ext.sample_token(logits, uniform, **rules)
    for part in (slice(0, 1), slice(5, 9), slice(31, 70)):
        alone = suder_ext.linear_sample_token(hidden[part], weight, uniform[part], bias, **rules)
        assert all(torch.equal(a, b[part]) for a, b in zip(alone, whole, strict=True))
        alone = suder_ext.sample_token(logits[part], uniform[part], **rules)
        assert all(torch.equal(a, b[part]) for a, b in zip(alone, plain, strict=True))
    torch.set_num_threads(3)
    again = suder_ext.linear_sample_token(hidden, weight, uniform, bias, **rules)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))


@pytest.mark.parametrize("rules", RULES)
def test_masked_vocabulary(backend: str, rules: dict[str, Any]) -> None:
    """-inf logits are never drawn, wherever they stand, whatever the number."""
    inf = math.inf
    logits = torch.tensor(
        [
            [-inf, -inf, 1.0, 2.0, -inf],
            [0.0, -inf, -inf, -inf, -inf],
            [-inf, -inf, -inf, -inf, -1e4],
            [1e4, 1e4 - 1, -inf, 1e4, 1e4],
        ]
    )
    for number in (0.0, 0.3, 1.0 - 2.0**-53, 1.0):
        uniform = torch.full((4,), number, dtype=torch.float64)
        check(suder_ext.sample_token(logits, uniform, **rules), logits, uniform, **rules)
        got = suder_ext.linear_sample_token(torch.zeros(1, 3), torch.ones(5, 3), uniform[:1],
                                            logits[0], **rules)  # fmt: skip
        check(got, logits[:1], uniform[:1], **rules)


def test_without_a_distribution(backend: str) -> None:
    """NaN, +inf, nothing but -inf: no token can be right, and the row's numbers say so."""
    inf = math.inf
    logits = torch.tensor(
        [[0.0, math.nan, 1.0], [0.0, inf, 1.0], [-inf, -inf, -inf], [0.0, 0.0, 9.0]]
    )
    half = torch.full((4,), 0.5)
    for uniform in (half, None):
        for rules in RULES:
            got = suder_ext.sample_token(logits, uniform, **rules)
            assert got.token.tolist() == [0, 0, 0, 2]
            assert got.logprob.isnan().tolist() == [True, True, True, False]
            assert got.entropy.isnan().tolist() == [True, True, True, False]
            part = None if uniform is None else uniform[:1]
            for row in logits[:3]:
                head = torch.zeros(1, 2), torch.ones(3, 2)
                bad = suder_ext.linear_sample_token(*head, part, row, **rules)
                assert bad.token.tolist() == [0]
                assert bad.logprob.isnan().all()


def test_ties_and_edges(backend: str) -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0]])
    for top_k in (1, 2, 3):  # ties with the k-th are kept, as transformers keeps them
        drawn = {
            int(suder_ext.sample_token(logits, torch.tensor([u]), top_k=top_k).token)
            for u in (0.0, 0.34, 0.67, 0.99)
        }
        assert drawn == {1, 2, 4}
    # Of equals, top_p takes the first.
    for u in (0.0, 0.99):
        got = suder_ext.sample_token(logits, torch.tensor([u]), top_p=1e-6)
        assert (int(got.token), float(got.logprob), float(got.entropy)) == (1, 0.0, 0.0)
    assert int(suder_ext.sample_token(logits, None).token) == 1
    whole = suder_ext.sample_token(logits, torch.tensor([0.4]))
    same = suder_ext.sample_token(logits, torch.tensor([0.4]), top_k=5)
    assert torch.equal(whole.token, same.token)
    empty = suder_ext.sample_token(torch.zeros(0, 5), torch.zeros(0))
    assert [len(part) for part in empty] == [0, 0, 0]


@pytest.mark.parametrize("rules", [{}, {"top_k": 4, "temperature": 1.5}])
def test_a_million_draws(fastest: str, rules: dict[str, Any]) -> None:
    """Chi-square of the counts against the probabilities, at one in ten thousand."""
    draws = 1_000_000
    logits = torch.tensor([0.0, 2.0, -1.0, 1.0, 0.5, -3.0])
    uniform = torch.rand(draws, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    token = suder_ext.sample_token(logits.expand(draws, -1), uniform, **rules).token
    exact = reference.sampling._cut(
        logits[None].double() / rules.get("temperature", 1.0), rules.get("top_k", 0), 1.0
    )
    expected = draws * exact.softmax(-1)[0]
    counts = torch.bincount(token, minlength=6).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = float(((counts - expected)[possible] ** 2 / expected[possible]).sum())
    assert statistic < (25.7 if possible.sum() == 6 else 21.1)  # 5 and 3 degrees of freedom


@few
@given(
    vocab=st.integers(1, 300),
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.25, 1.0, 3.0]),
    top_k=st.integers(0, 320),
    top_p=st.sampled_from([1e-6, 0.3, 0.95, 1.0]),
    masked=st.floats(0, 0.95),
)
def test_any_rules(
    vocab: int, seed: int, temperature: float, top_k: int, top_p: float, masked: float
) -> None:
    logits, uniform = logits_of(3, vocab, torch.float32, seed)
    hidden = torch.rand(3, vocab, generator=torch.Generator().manual_seed(seed)) < masked
    hidden[:, seed % vocab] = False
    logits = logits.masked_fill(hidden, -math.inf)
    rules = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    got = suder_ext.sample_token(logits, uniform, **rules)
    expected = reference.sample_token(logits.double(), uniform, **rules)
    # A cut that rounding decides may fall on the other side, but what is drawn is possible.
    assert (logits.gather(-1, got.token[:, None]) > -math.inf).all()
    assert (got.logprob <= 0).all()
    assert (got.entropy >= -1e-6).all()
    assert int((got.token != expected.token).sum()) <= 1


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
def test_inside_torch() -> None:
    logits, uniform = logits_of(4, 7, torch.float32)
    hidden, weight, _, bias = head_of(4, 5, 7, torch.float32)
    torch.library.opcheck(torch.ops.suder.sample_token.default, (logits, uniform, 1.0, 0, 1.0))
    torch.library.opcheck(
        torch.ops.suder.linear_sample_token.default, (hidden, weight, bias, None, 0.5, 2, 0.9)
    )
    compiled = torch.compile(suder_ext.linear_sample_token, fullgraph=True, backend="eager")
    eager = suder_ext.linear_sample_token(hidden, weight, uniform, bias)
    for a, b in zip(compiled(hidden, weight, uniform, bias), eager, strict=True):
        assert torch.equal(a, b)
    _, tangent = torch.func.jvp(
        lambda z: suder_ext.sample_token(z, uniform).logprob, (logits,), (torch.ones(4, 7),)
    )
    assert not tangent.any()
    _, tangent = torch.func.jvp(
        lambda h: suder_ext.linear_sample_token(h, weight, uniform).logprob,
        (hidden,),
        (torch.ones(4, 5),),
    )
    assert not tangent.any()
    assert not any(
        part.requires_grad for part in suder_ext.sample_token(logits.requires_grad_(), uniform)
    )


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"logits": torch.zeros(3)}, ValueError, "logits takes 2 dimension"),
        ({"logits": torch.zeros(2, 0)}, ValueError, "V >= 1"),
        ({"logits": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "logits takes dtype"),
        ({"uniform": torch.zeros(3)}, ValueError, "uniform takes shape"),
        ({"uniform": torch.zeros(2).half()}, TypeError, "uniform takes dtype"),
        ({"temperature": 0.0}, ValueError, "temperature takes"),
        ({"temperature": math.inf}, ValueError, "temperature takes"),
        ({"temperature": math.nan}, ValueError, "temperature takes"),
        ({"top_k": -1}, ValueError, "top_k takes"),
        ({"top_p": 0.0}, ValueError, "top_p takes"),
        ({"top_p": 1.5}, ValueError, "top_p takes"),
    ],
)
def test_errors_name_the_argument(
    change: dict[str, Any], error: type[Exception], says: str
) -> None:
    arguments = {"logits": torch.zeros(2, 3), "uniform": torch.zeros(2)} | change
    with pytest.raises(error, match=says):
        suder_ext.sample_token(**arguments)


def test_layouts_and_dtypes_of_inputs(backend: str) -> None:
    logits, uniform = logits_of(6, 40, torch.float32)
    wide = torch.zeros(6, 80)
    wide[:, ::2] = logits
    plain = suder_ext.sample_token(logits, uniform)
    for same in (logits.T.contiguous().T, wide[:, ::2], logits.double()):
        assert torch.equal(suder_ext.sample_token(same, uniform).token, plain.token)
