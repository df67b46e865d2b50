"""Losses and log-probabilities with the arguments of verl, OpenRLHF and ms-swift, beside float64.

Their packages need ray, vllm, deepspeed or older libraries than ours, so that stand-ins call; what
can be had of them without a GPU calls in tests/hosts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from suder_ext import selective_log_softmax
from suder_ext.integrations import openrlhf, swift, verl
from tests.tolerances import TOLERANCES

CLOSE = TOLERANCES[("trl", "cpu", torch.float32)]
SIZE, VOCABULARY = (4, 7), 11
LENGTHS = torch.tensor([7, 3, 0, 1])
MASK = torch.arange(7) < LENGTHS[:, None]


def numbers(seed: int, *, scale: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator) * scale - 2


NEW, OLD, ROLLOUT = (numbers(seed) for seed in range(3))
ADVANTAGES = numbers(3, scale=1.0) + 2
WEIGHTS = numbers(4).exp()


class Config(SimpleNamespace):
    """verl's actor config: fields, and get()."""

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def config(**fields: Any) -> Config:
    low = {"clip_ratio": 0.2, "clip_ratio_low": None, "clip_ratio_high": 0.3}
    return Config(**(low | {"clip_ratio_c": 1.5, "global_batch_info": {}} | fields))


def tokens(new: Tensor, old: Tensor, low: float, high: float, dual: float | None) -> Tensor:
    """Each token's loss: PPO's, by the textbook."""
    ratio, advantage = (new - old).exp(), ADVANTAGES.double()
    worst = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))
    if dual is None:
        return worst
    return torch.where(advantage < 0, torch.minimum(worst, -advantage * dual), worst)


def compare(ours: Callable[[Tensor], Tensor], oracle: Callable[[Tensor], Tensor]) -> None:
    """Value and gradient in the new log-probabilities."""
    one, other = NEW.clone().requires_grad_(), NEW.double().requires_grad_()
    got, expected = ours(one), oracle(other)
    torch.testing.assert_close(got, expected.float(), **CLOSE)
    got.backward()
    expected.backward()
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, other.grad.float(), **CLOSE)


# What verl divides by, of 11 tokens in 3 sequences that have any, in one process.
AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "token-mean": lambda x: x.sum() / 11,
    "token-sum": lambda x: x.sum(),
    "seq-mean-token-sum": lambda x: x.sum() / 3,
    "seq-mean-token-sum-norm": lambda x: x.sum() / 3 / 7,
    "seq-mean-token-mean": lambda x: (x.sum(1) / LENGTHS.clamp(min=1)).sum() / 3,
}


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_verl_vanilla(mode: str, weighted: bool) -> None:
    weights = WEIGHTS if weighted else None

    def oracle(new: Tensor) -> Tensor:
        loss = tokens(new, OLD.double(), 0.2, 0.3, 1.5) * (WEIGHTS.double() if weighted else 1)
        return AGGREGATIONS[mode](loss.masked_fill(~MASK, 0))

    loss = verl.policy_loss_fn()
    arguments = OLD, ADVANTAGES, MASK.long(), mode, config(), weights
    compare(lambda new: loss(arguments[0], new, *arguments[1:])[0], oracle)


def test_verl_global_counts() -> None:
    """On each of 2 processes, whose gradients are averaged, over the counts of all."""
    batch = {"dp_size": 2, "batch_num_tokens": 40, "global_batch_size": 9, "loss_scale_factor": 5}
    loss = verl.policy_loss_fn()
    each = tokens(NEW.double(), OLD.double(), 0.2, 0.3, 1.5).masked_fill(~MASK, 0)
    means = (each.sum(1) / LENGTHS.clamp(min=1)).sum()
    whole = each.sum() * 2
    wanted = (whole / 40, whole, whole / 9, whole / 9 / 5, means * 2 / 9)
    for mode, expected in zip(AGGREGATIONS, wanted, strict=True):
        chosen = config(global_batch_info=batch)
        got, _ = loss(OLD, NEW, ADVANTAGES, MASK, mode, chosen)
        torch.testing.assert_close(got, expected.float(), **CLOSE)
    with pytest.raises(ValueError, match=r"on 2 processes needs batch_num_tokens"):
        loss(OLD, NEW, ADVANTAGES, MASK, "token-mean", config(global_batch_info={"dp_size": 2}))


def test_verl_metrics() -> None:
    _, found = verl.policy_loss_fn()(OLD, NEW, ADVANTAGES, MASK, "token-mean", config())
    ratio, advantage = (NEW - OLD).double().exp()[MASK], ADVANTAGES.double()[MASK]
    clipped = ((ratio < 0.8) & (advantage < 0)) | ((ratio > 1.3) & (advantage > 0))
    beyond = (ratio > 1.5) & (advantage < 0)
    assert 0 < clipped.sum() < len(clipped)
    assert beyond.any()
    assert found == pytest.approx(
        {
            "actor/pg_clipfrac": clipped.double().mean().item(),
            "actor/ppo_kl": (OLD - NEW)[MASK].mean().item(),
            "actor/pg_clipfrac_lower": beyond.double().mean().item(),
        },
        rel=CLOSE["rtol"],
    )


def test_verl_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's registry: a decorator by name, which gives the function when a loss is asked for."""
    table: dict[str, Any] = {}
    core: Any = ModuleType("verl.trainer.ppo.core_algos")
    core.register_policy_loss = lambda name: lambda function: table.setdefault(name, function)
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, core.__name__, core)
    verl.register()
    verl.register("gspo-of-suder", level="sequence", delta=None)
    assert list(table) == ["suder", "gspo-of-suder"]
    advantage = ADVANTAGES[:, :1].expand(SIZE)

    def oracle(new: Tensor) -> Tensor:
        difference = (new - OLD.double()).masked_fill(~MASK, 0).sum(1) / LENGTHS.clamp(min=1)
        ratio, each = difference.exp(), advantage[:, 0].double()
        loss = torch.maximum(-each * ratio, -each * ratio.clamp(0.8, 1.3))
        return loss[LENGTHS > 0].sum() / 3

    loss = table["gspo-of-suder"]
    rest = advantage, MASK, "seq-mean-token-mean", config()
    compare(lambda new: loss(OLD, new, *rest)[0], oracle)


def test_verl_heads() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 5, 6), torch.randn(VOCABULARY, 6)
    labels = torch.randint(VOCABULARY, (2, 5))
    doubles = [x.double().requires_grad_() for x in (hidden, weight)]
    floats = [x.clone().requires_grad_() for x in (hidden, weight)]
    rows = (doubles[0] @ doubles[1].T / 0.7).log_softmax(-1)
    expected = rows.gather(-1, labels[..., None])[..., 0], -(rows.exp() * rows).sum(-1)
    module = verl.FusedLinearForPPO(chunk_size=3, impl_backend="liger")
    got = module(floats[0], floats[1], labels.int(), temperature=torch.tensor(0.7))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other.float(), **CLOSE)
    gradients = torch.autograd.grad((got[0] - 0.1 * got[1]).sum(), floats)
    wanted = torch.autograd.grad((expected[0] - 0.1 * expected[1]).sum(), doubles)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other.float(), **CLOSE)
    for reduction in ("none", "mean", "sum"):
        found = verl.linear_cross_entropy(hidden, weight, labels, 0.7, reduction)
        flat = expected[0].flatten()
        flat = flat if reduction == "none" else getattr(flat, reduction)()
        torch.testing.assert_close(found[0], flat.float().detach(), **CLOSE)
        torch.testing.assert_close(found[1], expected[1].flatten().float().detach(), **CLOSE)
    with pytest.raises(ValueError, match="takes none, mean or sum, got 'all'"):
        verl.linear_cross_entropy(hidden, weight, labels, 0.7, "all")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probs_from_logits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, VOCABULARY, dtype=dtype), torch.randint(VOCABULARY, (2, 5))
    before = logits.clone()
    for heat in (1.0, 0.7):
        rows = (logits.double() / heat).log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        got = openrlhf.log_probs_from_logits(logits, labels, temperature=heat)
        torch.testing.assert_close(got, rows.float(), **CLOSE)
    rows = logits.double().log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    torch.testing.assert_close(verl.logprobs_from_logits(logits, labels), rows.float(), **CLOSE)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("dual", [None, 1.5])
@pytest.mark.parametrize("by_token", [False, True])
def test_openrlhf_ppo(dual: float | None, by_token: bool) -> None:
    loss = openrlhf.PolicyLoss(0.2, 0.3, dual_clip=dual, token_level_loss=by_token)
    how = AGGREGATIONS["token-mean" if by_token else "seq-mean-token-mean"]

    def oracle(new: Tensor) -> Tensor:
        return how(tokens(new, OLD.double(), 0.2, 0.3, dual).masked_fill(~MASK, 0))

    compare(lambda new: loss(new, OLD, ADVANTAGES, MASK)[0], oracle)
    found = loss(NEW, OLD, ADVANTAGES, MASK, None, 2, 40, 9)
    scale = 2 * 11 / 40 if by_token else 2 * 3 / 9
    torch.testing.assert_close(found[0], oracle(NEW.double()).float() * scale, **CLOSE)
    ratio, advantage = (NEW - OLD).double().exp()[MASK], ADVANTAGES.double()[MASK]
    clipped = ((ratio < 0.8) & (advantage < 0)) | ((ratio > 1.3) & (advantage > 0))
    torch.testing.assert_close(found[1], clipped.float().mean(), **CLOSE)
    torch.testing.assert_close(found[2], (OLD - NEW)[MASK].mean(), **CLOSE)
    assert found[3:] == (None, None)


def test_openrlhf_gspo_and_no_mask() -> None:
    loss = openrlhf.PolicyLoss(0.2, 0.3, policy_loss_type="gspo")
    advantage = ADVANTAGES[:, :1].expand(SIZE)

    def oracle(new: Tensor) -> Tensor:
        ratio, each = (new - OLD.double()).mean(1).exp(), advantage[:, 0].double()
        return torch.maximum(-each * ratio, -each * ratio.clamp(0.8, 1.3)).mean()

    compare(lambda new: loss(new, OLD, advantage)[0], oracle)


# What is judged, and whether of a sequence.
GATES = {
    ("ratio", "token", "mask"): (0.8, 1.3),
    ("ratio", "token", "clip"): (0.8, 1.3),
    ("ratio", "seq", "mask"): (0.95, 1.3),
    ("binary_kl", "token", "mask"): (0.0, 0.02),
    ("tv", "token", "mask"): (0.0, 0.05),
    ("tv", "seq", "mask"): (0.0, 0.05),
}


@pytest.mark.parametrize("gate", GATES)
def test_openrlhf_correction(gate: tuple[str, str, str]) -> None:
    gating, level, mode = gate
    low, high = GATES[gate]
    loss = openrlhf.PolicyLoss(
        is_correction_level=level,
        is_correction_mode=mode,
        is_correction_gating=gating,
        is_correction_threshold=[low, high],
    )
    old, rollout = OLD.double(), ROLLOUT.double()
    ratio, p, q = (old - rollout).exp(), rollout.exp(), old.exp()
    judged = {
        "ratio": ratio.log(),
        "tv": (p - q).abs(),
        "binary_kl": p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log(),
    }[gating]
    if level == "seq":
        judged = judged.masked_fill(~MASK, 0).sum(1, keepdim=True) / LENGTHS.clamp(min=1)[:, None]
    judged = (judged.exp() if gating == "ratio" else judged).expand(SIZE)
    inside = (judged >= low) & (judged <= high)
    assert 0 < inside[MASK].sum() < 11
    factor = ratio.clamp(low, high) if mode == "clip" else ratio * inside

    def oracle(new: Tensor) -> Tensor:
        each = tokens(new, old, 0.2, 0.2, None) * factor
        return AGGREGATIONS["token-mean"](each.masked_fill(~MASK, 0))

    compare(lambda new: loss(new, OLD, ADVANTAGES, MASK, ROLLOUT)[0], oracle)
    found = loss(NEW, OLD, ADVANTAGES, MASK, ROLLOUT)
    torch.testing.assert_close(found[3], (ROLLOUT - OLD)[MASK].mean(), **CLOSE)
    out = ~inside[:, 0] if level == "seq" else ~inside[MASK]
    torch.testing.assert_close(found[4], out.float().mean(), **CLOSE)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ipo": True}])
def test_openrlhf_dpo(options: dict[str, Any]) -> None:
    values = [numbers(seed)[:, 0] for seed in range(4)]
    loss = openrlhf.DPOLoss(0.3, **options)
    ours = [x.clone().requires_grad_() for x in values]
    doubles = [x.double().requires_grad_() for x in values]
    found = loss(*ours)
    difference = doubles[0] - doubles[1] - doubles[2] + doubles[3]
    if options.get("ipo"):
        expected = (difference - 1 / 0.6) ** 2
    else:
        smooth, log = options.get("label_smoothing", 0.0), torch.nn.functional.logsigmoid
        expected = -(1 - smooth) * log(0.3 * difference) - smooth * log(-0.3 * difference)
    torch.testing.assert_close(found[0], expected.mean().float(), **CLOSE)
    torch.testing.assert_close(found[1], 0.3 * (values[0] - values[2]), **CLOSE)
    torch.testing.assert_close(found[2], 0.3 * (values[1] - values[3]), **CLOSE)
    assert not found[1].requires_grad
    gradients = torch.autograd.grad(found[0], ours)
    for one, other in zip(gradients, torch.autograd.grad(expected.mean(), doubles), strict=True):
        torch.testing.assert_close(one, other.float(), **CLOSE)


def test_extreme_log_ratios() -> None:
    """A token that the policy has all but forgotten, and one that it has learnt: numbers."""
    new = torch.tensor([[-100.0, -0.1]], requires_grad=True)
    old, advantage = torch.tensor([[-0.1, -100.0]]), torch.tensor([[-1.0, -1.0]])
    for loss in (
        lambda: openrlhf.PolicyLoss()(new, old, advantage)[0],
        lambda: verl.policy_loss_fn()(old, new, advantage, torch.ones(1, 2), config=config())[0],
    ):
        found = loss()
        (slope,) = torch.autograd.grad(found, new)
        assert math.isfinite(found.item())
        assert slope.isfinite().all()


@pytest.fixture
def swifts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The modules of ms-swift that the plug-in reaches, without ms-swift."""
    names = "swift", "swift.loss", "swift.rlhf_trainers"
    names += tuple(f"swift.rlhf_trainers.{name}" for name in ("rlhf_mixin", "grpo_trainer"))
    made: dict[str, Any] = {name: ModuleType(name) for name in names}
    made["swift.loss"].loss_map = {}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_swift(swifts: dict[str, Any]) -> None:
    swift.register("ours")
    trainer = SimpleNamespace(template=SimpleNamespace(sequence_parallel_size=1))
    loss = swifts["swift.loss"].loss_map["ours"](SimpleNamespace(), trainer)
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 6, VOCABULARY), torch.randint(VOCABULARY, (2, 6))
    labels[:, :2] = labels[1, 4:] = -100
    scale = torch.rand(2, 6)
    one, other = logits.clone().requires_grad_(), logits.double().requires_grad_()
    rows = torch.nn.functional.cross_entropy(
        other[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
    )
    for scaled, items in ((None, None), (None, 13), (scale, None), (scale, torch.tensor(13))):
        each = rows if scaled is None else rows * scaled[:, 1:].flatten()
        expected = each.sum() / (6 if items is None else items)
        flat = None if scaled is None else scaled.roll(-1, -1).view(-1)  # as ms-swift gives it
        outputs = SimpleNamespace(logits=one)
        got = loss(outputs, labels, num_items_in_batch=items, loss_scale=flat, trainer=trainer)
        torch.testing.assert_close(got, expected.float(), **CLOSE)
        (slope,) = torch.autograd.grad(got, one)
        (wanted,) = torch.autograd.grad(expected, other, retain_graph=True)
        torch.testing.assert_close(slope, wanted.float(), **CLOSE)
    trainer.template.sequence_parallel_size = 2
    with pytest.raises(NotImplementedError, match="takes whole sequences"):
        loss(SimpleNamespace(logits=one), labels)
    # Its trainers write zeros into the result, which the backward must not have kept.
    function = swifts["swift.rlhf_trainers.rlhf_mixin"].selective_log_softmax
    assert function is swifts["swift.rlhf_trainers.grpo_trainer"].selective_log_softmax
    assert function is selective_log_softmax
    found = function(one, labels.clamp(min=0))
    found[labels == -100] = 0
    (slope,) = torch.autograd.grad(found.sum(), one)
    picked = other.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    (wanted,) = torch.autograd.grad(picked[labels != -100].sum(), other)
    torch.testing.assert_close(slope, wanted.float(), **CLOSE)


def test_what_is_refused() -> None:
    loss = verl.policy_loss_fn()
    with pytest.raises(ValueError, match="config: takes verl's actor config"):
        loss(OLD, NEW, ADVANTAGES, MASK)
    with pytest.raises(ValueError, match=r"loss_agg_mode: takes token-mean, .* got 'mean'"):
        loss(OLD, NEW, ADVANTAGES, MASK, "mean", config())
    with pytest.raises(ValueError, match=r"above 1 \+ clip_ratio_high \(1.3\), got 1.2"):
        loss(OLD, NEW, ADVANTAGES, MASK, config=config(clip_ratio_c=1.2))
    for options, message in (
        ({"policy_loss_type": "cispo"}, "policy_loss_type: takes ppo, gspo, got 'cispo'"),
        ({"is_correction_level": "word"}, "is_correction_level: takes"),
        ({"dual_clip": 1.1}, r"dual_clip: takes a number above .* \(1.2\), got 1.1"),
        ({"is_correction_mode": "clip", "is_correction_level": "seq"}, "'clip' limits each token"),
        ({"is_correction_gating": "tv", "is_correction_level": "seq"}, r"takes \(0, limit\)"),
    ):
        with pytest.raises(ValueError, match=message):
            openrlhf.PolicyLoss(**options)
    with pytest.raises(ValueError, match="rollout_log_probs: is_correction_level needs them"):
        openrlhf.PolicyLoss(is_correction_level="token")(NEW, OLD, ADVANTAGES)
