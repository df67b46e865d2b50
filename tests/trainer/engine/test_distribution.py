"""The distribution a token is drawn from, against a plain oracle in float64."""

from __future__ import annotations

import math

import pytest
import torch

from suder.engine.distribution import Distribution, log_distribution, sample_token


def oracle(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Probabilities by sorting and summing in Python floats."""
    scaled = [x / temperature for x in logits]
    order = sorted(range(len(scaled)), key=lambda i: -scaled[i])
    if top_k:
        least = scaled[order[min(top_k, len(order)) - 1]]
        order = [i for i in order if scaled[i] >= least]
    highest = max(scaled)
    weight = {i: math.exp(scaled[i] - highest) for i in order}
    total = math.fsum(weight.values())
    kept, held = [], 0.0
    for i in order:
        if held < top_p:
            kept.append(i)
        held += weight[i] / total
    total = math.fsum(weight[i] for i in kept)
    return [weight[i] / total if i in kept else 0.0 for i in range(len(logits))]


CASES = [
    (1.0, 0, 1.0),
    (0.5, 0, 1.0),
    (1.7, 5, 1.0),
    (1.0, 1, 1.0),
    (1.0, 100, 1.0),  # more than there are tokens
    (1.0, 0, 0.9),
    (1.0, 0, 0.3),
    (0.7, 8, 0.8),
    (1.0, 0, 1e-6),  # always the most likely token at least
]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), CASES)
def test_support_and_probabilities(temperature, top_k, top_p):
    logits = torch.randn(32, 40, generator=torch.Generator().manual_seed(3)) * 2
    rules = Distribution(temperature, top_k, top_p)
    ours = log_distribution(logits, rules).double().exp()
    for row, values in zip(ours, logits.double().tolist(), strict=True):
        expected = torch.tensor(oracle(values, temperature, top_k, top_p), dtype=torch.float64)
        assert torch.equal(row > 0, expected > 0)
        torch.testing.assert_close(row, expected, rtol=2e-6, atol=1e-9)


def test_order_is_temperature_then_top_k_then_top_p():
    """top_p counts the probability that is left after top_k, at the temperature asked for."""
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]])
    kept = log_distribution(logits, Distribution(2.0, 3, 0.8))[0].isfinite()
    # softmax([2, 1.5, 1]) = 0.51, 0.31, 0.19: two tokens hold 0.8; without top_k it takes three.
    assert kept.tolist() == [True, True, False, False, False]


def test_ties_with_the_kth_token_are_kept():
    logits = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert log_distribution(logits, Distribution(top_k=2))[0].isfinite().tolist() == [
        *[True] * 3,
        False,
    ]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.8, 6, 0.9)])
def test_frequencies(temperature, top_k, top_p):
    """With 200 000 draws every frequency lies within 4 standard errors of its probability."""
    draws = 200_000
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(12, generator=generator) * 1.5
    uniform = torch.rand(draws, generator=generator, dtype=torch.float64)
    rules = Distribution(temperature, top_k, top_p)
    token, logprob = sample_token(logits.expand(draws, -1), rules, uniform)
    probability = torch.tensor(
        oracle(logits.double().tolist(), temperature, top_k, top_p), dtype=torch.float64
    )
    frequency = token.bincount(minlength=12).double() / draws
    error = (probability * (1 - probability) / draws).sqrt()
    assert ((frequency - probability).abs() <= 4 * error).all()
    torch.testing.assert_close(logprob.double().exp(), probability[token], rtol=2e-6, atol=0)


def test_the_ends_of_the_unit_interval_are_possible_tokens():
    """Neither 0 nor the last number below 1 picks a token of probability 0."""
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]]).repeat(2, 1)
    uniform = torch.tensor([0.0, 1.0], dtype=torch.float64)
    uniform[1] = uniform[1].nextafter(uniform[0])
    token, logprob = sample_token(logits, Distribution(), uniform)
    assert token.tolist() == [1, 2]
    assert logprob.isfinite().all()


def test_greedy_takes_the_largest_logit_and_reports_its_probability():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 3.0]])
    token, logprob = sample_token(logits, Distribution(greedy=True, temperature=2.0), None)
    assert token.tolist() == [1, 0]
    expected = (logits.double() / 2).log_softmax(-1)[[0, 1], [1, 0]]
    torch.testing.assert_close(logprob.double(), expected, rtol=1e-6, atol=0)


def test_a_row_of_nan_stays_in_its_row():
    logits = torch.tensor([[0.0, torch.nan, 1.0], [0.0, 0.0, 9.0]])
    token, logprob = sample_token(
        logits, Distribution(), torch.full((2,), 0.5, dtype=torch.float64)
    )
    assert 0 <= token[0] < 3
    assert logprob[0].isnan()
    assert token[1] == 2
    assert logprob[1].isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: takes a finite number above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature: takes a finite number above 0"),
        ({"temperature": float("inf")}, "temperature: takes a finite number above 0"),
        ({"top_k": -1}, "got top_k=-1"),
        ({"top_p": 0.0}, r"top_p numbers in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_impossible_rules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Distribution(**options)
