"""verl's own losses, registry and fused head beside ours, called as verl does."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from suder_ext.integrations import verl as ours
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES[("trl", "cpu", torch.float32)]
Host = Callable[[str], ModuleType]

generator = torch.Generator().manual_seed(0)
NEW, OLD = (torch.randn(4, 7, generator=generator) * 0.5 - 2 for _ in range(2))
ADVANTAGES = torch.randn(4, 7, generator=generator)
WEIGHTS = torch.rand(4, 7, generator=generator) * 2
MASK = (torch.arange(7) < torch.tensor([7, 3, 0, 1])[:, None]).long()


def actor(host: Host, **fields: Any) -> Any:
    made = host("verl.workers.config").ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_mini_batch_size=4, ppo_micro_batch_size_per_gpu=2,
        clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.3, clip_ratio_c=1.5,
    )  # fmt: skip
    made.global_batch_info.update(fields)
    return made


def compare(theirs: Any, found: Any, *arguments: Any) -> None:
    """Loss, gradient in the new log-probabilities, metrics."""
    results = []
    for loss in (theirs, found):
        new = NEW.clone().requires_grad_()
        value, metrics = loss(OLD, new, *arguments)
        value.backward()
        results.append((value.detach(), new.grad, metrics))
    (value, slope, metrics), (got, our_slope, our_metrics) = results
    torch.testing.assert_close(got, value, **CLOSE)
    torch.testing.assert_close(our_slope, slope, **CLOSE)
    for name in our_metrics:
        assert our_metrics[name] == pytest.approx(metrics[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("mode", ours.MODES)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    "batch",
    [{}, {"dp_size": 2, "batch_num_tokens": 40, "global_batch_size": 9}],
    ids=["one", "of two processes"],
)
def test_vanilla(host: Host, mode: str, weights: Tensor | None, batch: dict[str, int]) -> None:
    core: Any = host("verl.trainer.ppo.core_algos")
    ours.register("suder")
    arguments = ADVANTAGES, MASK, mode, actor(host, **batch), weights
    compare(core.get_policy_loss_fn("vanilla"), core.get_policy_loss_fn("suder"), *arguments)


def test_gspo(host: Host) -> None:
    core: Any = host("verl.trainer.ppo.core_algos")
    ours.register("gspo-of-suder", level="sequence", delta=None)
    each = ADVANTAGES[:, :1].expand(4, 7)
    # verl's GSPO counts a sequence without a token, ours does not: the rest of them here.
    rows = slice(0, 2)
    results = []
    for name in ("gspo", "gspo-of-suder"):
        new = NEW[rows].clone().requires_grad_()
        loss = core.get_policy_loss_fn(name)
        given = each[rows], MASK[rows], "seq-mean-token-mean", actor(host)
        value, _ = loss(OLD[rows], new, *given)
        value.backward()
        results.append((value.detach(), new.grad))
    torch.testing.assert_close(results[1][0], results[0][0], **CLOSE)
    torch.testing.assert_close(results[1][1], results[0][1], **CLOSE)


def test_fused_head(host: Host) -> None:
    theirs: Any = host("verl.utils.experimental.torch_functional")
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 6, 16), torch.randn(50, 16) * 0.3
    ids = torch.randint(50, (2, 6))
    results = []
    for head in (theirs.FusedLinearForPPO(), ours.FusedLinearForPPO()):
        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        logprob, entropy = head(*leaves, ids, temperature=0.7)
        (logprob.sum() + 0.1 * entropy.sum()).backward()
        results.append((logprob.detach(), entropy.detach(), leaves[0].grad, leaves[1].grad))
    for theirs_one, ours_one in zip(*results, strict=True):
        torch.testing.assert_close(ours_one.reshape(theirs_one.shape), theirs_one, **CLOSE)
