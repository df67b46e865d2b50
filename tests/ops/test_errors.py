"""Every wrong argument raises an error that names it, what it got and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import suder_ext

HIDDEN, WEIGHT, BIAS = torch.randn(6, 4), torch.randn(9, 4), torch.randn(9)
TARGET = torch.tensor([0, 8, 3, -100, 5, 1])
LOGITS = torch.randn(6, 9)
CU = torch.tensor([0, 2, 4, 5, 6])
PAIRS = torch.randn(4)


def linear(**changes: Any) -> Tensor:
    arguments = {"hidden": HIDDEN, "weight": WEIGHT, "target": TARGET, "bias": BIAS}
    return suder_ext.linear_logprob(**{**arguments, **changes})


def from_logits(**changes: Any) -> Tensor:
    return suder_ext.logprob(**{"logits": LOGITS, "target": TARGET, **changes})


def sequence(**changes: Any) -> Tensor:
    arguments = {"hidden": HIDDEN, "weight": WEIGHT, "target": TARGET, "cu_seqlens": CU}
    return suder_ext.linear_sequence_logprob(**{**arguments, **changes})


def reward(**changes: Any) -> Any:
    arguments = {"hidden": HIDDEN, "weight": WEIGHT, "target": TARGET, "cu_seqlens": CU}
    return suder_ext.dual_reward(**{**arguments, "group_size": 2, **changes})


def preference(**changes: Any) -> Any:
    arguments = {"chosen_logprob": PAIRS, "rejected_logprob": PAIRS}
    return suder_ext.preference_loss(**{**arguments, **changes})


def linear_preference(**changes: Any) -> Any:
    arguments = {"hidden": HIDDEN, "weight": WEIGHT, "target": TARGET, "cu_seqlens": CU}
    return suder_ext.linear_preference_loss(**{**arguments, **changes})


def policy(**changes: Any) -> Tensor:
    token = torch.randn(6)
    arguments = {"logprob": token, "old_logprob": token, "advantage": PAIRS, "cu_seqlens": CU}
    return suder_ext.policy_loss(**{**arguments, **changes})


def cross_entropy(**changes: Any) -> Tensor:
    arguments = {"input": HIDDEN, "linear_weight": WEIGHT, "target": TARGET}
    return suder_ext.linear_cross_entropy(**{**arguments, **changes})


def selective(**changes: Any) -> Tensor:
    arguments = {"logits": LOGITS, "index": TARGET.clamp(min=0)}
    return suder_ext.selective_log_softmax(**{**arguments, **changes})


TYPE_ERRORS: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (linear, {"hidden": [1.0]}, "hidden takes a tensor, got list"),
    (linear, {"hidden": HIDDEN.long()}, "hidden takes dtype .*float32.*, got int64"),
    (linear, {"target": TARGET.float()}, r"target takes dtype int16, .* uint8, got float32"),
    (from_logits, {"logits": LOGITS.int()}, "logits takes dtype .*, got int32"),
    (sequence, {"cu_seqlens": CU.float()}, "cu_seqlens takes dtype int32, int64, got float32"),
    (sequence, {"cu_seqlens": [0, 6]}, "cu_seqlens takes a tensor, got list"),
    (preference, {"rejected_logprob": PAIRS.long()}, "rejected_logprob takes dtype .*, got int64"),
    (preference, {"chosen_length": PAIRS}, "chosen_length takes dtype int32, int64, got float32"),
    (policy, {"advantage": PAIRS.int()}, "advantage takes dtype .*, got int32"),
    (policy, {"ref_logprob": 0.0}, "ref_logprob takes a tensor, got float"),
    (selective, {"index": TARGET.bool()}, r"index takes dtype int16, .* uint8, got bool"),
]

VALUE_ERRORS: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (linear, {"weight": WEIGHT[:, :3]}, r"hidden takes shape \[..., D\].*\[6, 4\] and \[9, 3\]"),
    (linear, {"weight": WEIGHT[None]}, r"weight takes 2 dimension\(s\), got shape \[1, 9, 4\]"),
    (linear, {"weight": WEIGHT[:0]}, r"weight takes shape \[V, D\] with V >= 1, got \[0, 4\]"),
    (linear, {"hidden": torch.tensor(1.0)}, r"hidden takes shape \[..., D\]"),
    (linear, {"target": TARGET[:5]}, r"target takes shape \[6\] .*, got \[5\]"),
    (linear, {"bias": BIAS[:8]}, r"bias takes shape \[9\] \(the V of weight\), got \[8\]"),
    (linear, {"bias": BIAS[None]}, r"bias takes 1 dimension\(s\), got shape \[1, 9\]"),
    (linear, {"weight": WEIGHT.to("meta")}, r"weight takes the device of hidden \(cpu\), got meta"),
    (linear, {"target": TARGET.to("meta")}, "target takes the device of hidden"),
    (linear, {"temperature": 0.0}, r"temperature takes a number above 0, got 0\.0"),
    (linear, {"temperature": float("nan")}, "temperature takes a number above 0, got nan"),
    (linear, {"softcap": -1.0}, r"softcap takes a number above 0, got -1\.0"),
    (from_logits, {"logits": LOGITS[:, :0]}, r"logits takes shape \[..., V\] with V >= 1"),
    (from_logits, {"target": TARGET[None]}, r"target takes shape \[6\] .*, got \[1, 6\]"),
    (sequence, {"cu_seqlens": CU[:0]}, r"cu_seqlens takes shape \[B\+1\]"),
    (sequence, {"cu_seqlens": CU[None, None]}, r"cu_seqlens takes 1 dimension\(s\)"),
    (sequence, {"cu_seqlens": CU[None]}, r"hidden takes shape \[B, T, ...\] beside a mask"),
    (sequence, {"reduction": "max"}, "reduction takes one of 'mean', 'sum', got 'max'"),
    (
        sequence,
        {"hidden": HIDDEN.view(2, 3, 4), "target": TARGET.view(2, 3)},
        r"target takes shape \[T\] \(packed sequences\), got \[2, 3\]",
    ),
    (
        reward,
        {"group_size": 3},
        r"group_size takes .* divides the number of candidates \(4\), got 3",
    ),
    (reward, {"group_size": 0}, "group_size takes a number of at least 1"),
    (reward, {"normalize": "max"}, "normalize takes one of 'std', 'mean', None, got 'max'"),
    (preference, {"rejected_logprob": PAIRS[:3]}, r"rejected_logprob takes shape \[4\].*got \[3\]"),
    (preference, {"chosen_logprob": PAIRS[None]}, r"chosen_logprob takes 1 dimension"),
    (preference, {"loss_type": "dpo"}, "loss_type is 'dpo'; it must be one of sigmoid, "),
    (preference, {"beta": 0.0}, "beta is 0.0; it must be above 0"),
    (preference, {"loss_type": "exo_pair"}, "label_smoothing is 0"),
    (preference, {"loss_type": "simpo"}, "chosen_length and rejected_length are None"),
    (preference, {"ref_chosen_logprob": PAIRS}, "must be given together or not at all"),
    (linear_preference, {"cu_seqlens": CU[:4]}, r"cu_seqlens takes shape \[2P\+1\]"),
    (linear_preference, {"ref_logprob": PAIRS[:3]}, r"ref_logprob takes shape \[4\].*got \[3\]"),
    (policy, {"advantage": PAIRS[:3]}, r"advantage takes shape \[4\] \(the B of cu_seqlens"),
    (policy, {"old_logprob": PAIRS}, r"old_logprob takes shape \[6\] \(that of logprob\), got"),
    (policy, {"kl_coef": 0.1}, "ref_logprob is None"),
    (policy, {"clip": 1.5}, r"clip is 1\.5"),
    (policy, {"reduction": "mean"}, "reduction is 'mean'"),
    (policy, {"level": "word"}, "level is 'word'"),
    (selective, {"index": TARGET[:5]}, "target takes shape|index takes shape"),
    (selective, {"index": TARGET[None, None, None]}, "index takes shape"),
    (selective, {"row_mask": TARGET[:5]}, "row_mask takes shape"),
    (cross_entropy, {"reduction": "max"}, "reduction takes one of 'none', 'mean', 'sum'"),
    (cross_entropy, {"label_smoothing": 1.5}, r"label_smoothing takes a number in \[0, 1\], got"),
    (cross_entropy, {"linear_weight": WEIGHT[0]}, "linear_weight takes 2 dimension"),
]


@pytest.mark.parametrize(
    ("function", "changes", "message"), TYPE_ERRORS, ids=lambda v: getattr(v, "__name__", "")
)
def test_type_errors(
    backend: str, function: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    function()  # right without the change
    with pytest.raises(TypeError, match=message):
        function(**changes)


@pytest.mark.parametrize(
    ("function", "changes", "message"), VALUE_ERRORS, ids=lambda v: getattr(v, "__name__", "")
)
def test_value_errors(
    backend: str, function: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(**changes)


@pytest.mark.parametrize(
    ("function", "cu_seqlens"),
    [
        (sequence, CU + 1),
        (sequence, CU[:-1]),
        (sequence, torch.tensor([0, 4, 2, 6])),
        (policy, torch.tensor([0, 4, 2, 3, 6])),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_wrong_offsets(backend: str, function: Callable[..., Any], cu_seqlens: Tensor) -> None:
    with pytest.raises(ValueError, match="cu_seqlens"):
        function(cu_seqlens=cu_seqlens)


@pytest.mark.parametrize("wrong", [-1, 9, 2**40, -(2**63)])
@pytest.mark.parametrize("function", [linear, from_logits, sequence, linear_preference])
def test_a_target_outside_the_vocabulary_names_the_first_row(
    backend: str, function: Callable[..., Any], wrong: int
) -> None:
    target = TARGET.clone()
    target[4:] = wrong
    with pytest.raises(IndexError, match=rf"target\[4\] is {wrong}"):
        function(target=target)


def test_the_row_is_counted_in_the_flattened_batch(backend: str) -> None:
    target = torch.tensor([[0, 1, 2], [3, 99, 4]])
    with pytest.raises(IndexError, match=r"target\[4\] is 99"):
        suder_ext.linear_logprob(HIDDEN.view(2, 3, 4), WEIGHT, target)


def test_nothing_is_read_past_a_wrong_offset(backend: str) -> None:
    far = torch.tensor([0, 2**40, 2**40 + 1, 2**40 + 2, 6])
    for function in (sequence, reward, policy, linear_preference):
        with pytest.raises(ValueError, match="cu_seqlens"):
            function(cu_seqlens=far)
