"""Every public function on small inputs that no tile divides, and its float64 oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

import suder_ext

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Of the largest value that is expected: ten times what rounding makes of such sums at most, and
# a tenth of what one wrong token among these would.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 3e-3}
TOKENS, FEATURES, VOCAB = 37, 70, 531
GROUPED = {"group_size": 2}


class Call(NamedTuple):
    """A function and its arguments; float tensors take the dtype that is asked for."""

    function: Callable[..., Any]
    tensors: dict[str, Tensor]
    settings: Mapping[str, Any] = MappingProxyType({})
    dtypes: tuple[torch.dtype, ...] = DTYPES[:1]

    @property
    def name(self) -> str:
        return self.function.__name__

    def run(self, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
        """Values, and the gradients of float arguments by a fixed upstream gradient of each."""
        leaves, given = {}, {}
        for key, tensor in self.tensors.items():
            given[key] = tensor.to(device)
            if tensor.is_floating_point() and key != "uniform":
                leaves[key] = given[key] = tensor.to(device, dtype).requires_grad_()
        found = self.function(**given, **self.settings)
        parts = [found] if isinstance(found, Tensor) else list(found)
        names = getattr(found, "_fields", range(len(parts)))
        values = {f"result {name}": part for name, part in zip(names, parts, strict=True)}
        through = [part for part in parts if part.requires_grad]
        if through:
            upstream = [_numbers(part.shape, i + 9).to(part) for i, part in enumerate(through)]
            gradients = torch.autograd.grad(
                through, [*leaves.values()], upstream, allow_unused=True
            )
            pairs = zip(leaves, gradients, strict=True)
            values |= {f"gradient of {key}": grad for key, grad in pairs if grad is not None}
        return {key: value.detach().cpu() for key, value in values.items()}

    def expected(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The same in float64, by the reference, of inputs that were rounded to the dtype."""
        rounded = {
            key: tensor.to(dtype).double() if tensor.is_floating_point() else tensor
            for key, tensor in self.tensors.items()
        }
        if "uniform" in self.tensors:
            rounded["uniform"] = self.tensors["uniform"]
        return self._replace(tensors=rounded).run(torch.float64, "cpu")


def problem_of(
    found: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype
) -> str | None:
    """In words what is not as expected, or None."""
    if found.keys() != expected.keys():
        return f"gives {', '.join(found)}, not {', '.join(expected)}"
    for key, right in expected.items():
        got, right = found[key].double(), right.double()
        if got.shape != right.shape:
            return f"{key} has shape {list(got.shape)}, not {list(right.shape)}"
        finite = right[right.isfinite()].abs()
        allowed = LIMITS[dtype] * max(float(finite.max()) if finite.numel() else 0.0, 1e-3)
        if not torch.allclose(got, right, rtol=0.0, atol=allowed, equal_nan=True):
            # NaN is the largest of all: a value that is missing comes first.
            off = float((got - right).abs().max())
            return f"{key} is {off:.3g} off, more than {allowed:.3g}"
    return None


def _numbers(shape: tuple[int, ...] | torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calls() -> Iterator[Call]:
    """One of each function, and more of those whose settings choose another kernel."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        _numbers(s, i) for i, s in enumerate(((TOKENS, FEATURES), (VOCAB, FEATURES), (VOCAB,)))
    )
    weight = weight * 2 / FEATURES**0.5
    target = torch.randint(VOCAB, (TOKENS,), generator=draw)
    target[5] = -100
    cu_seqlens = torch.tensor([0, 9, 10, 30, TOKENS])
    head = {"hidden": hidden, "weight": weight, "bias": bias}
    scored = head | {"target": target}
    packed = scored | {"cu_seqlens": cu_seqlens}
    logits = {"logits": hidden @ weight.T + bias, "target": target}
    uniform = torch.rand(TOKENS, dtype=torch.float64, generator=draw)
    pairs = {
        f"{which}_logprob": -20 - 3 * _numbers((6,), i)
        for i, which in enumerate(("chosen", "rejected", "ref_chosen", "ref_rejected"))
    }
    logprob = {"logprob": -_numbers((TOKENS,), 3).abs()}
    kept_near = {"ref_logprob": logprob["logprob"] + 0.3 * _numbers((TOKENS,), 5)}
    policy = logprob | {
        "old_logprob": logprob["logprob"] + 0.3 * _numbers((TOKENS,), 4),
        "advantage": _numbers((4,), 6),
        "cu_seqlens": cu_seqlens,
    }

    yield Call(suder_ext.linear_logprob, scored, {}, DTYPES)
    yield Call(suder_ext.linear_logprob_stats, scored, {"temperature": 0.7, "softcap": 9.0}, DTYPES)
    yield Call(suder_ext.logprob, logits, {}, DTYPES)
    yield Call(suder_ext.logprob_stats, logits, {"temperature": 0.7, "softcap": 9.0}, DTYPES)
    yield Call(
        suder_ext.selective_log_softmax, {"logits": logits["logits"], "index": target.clamp(min=0)}
    )
    yield Call(
        suder_ext.linear_cross_entropy,
        {"input": hidden, "linear_weight": weight, "linear_bias": bias, "target": target},
        {"label_smoothing": 0.1},
        DTYPES,
    )
    reference = {
        f"ref_{key}": value + 0.1 * _numbers(value.shape, 7) for key, value in head.items()
    }
    yield Call(suder_ext.linear_kl, head | reference, {}, DTYPES)
    yield Call(suder_ext.linear_sequence_logprob, packed, {}, DTYPES)
    yield Call(suder_ext.dual_reward, packed, GROUPED, DTYPES)
    yield Call(suder_ext.wpo_weight, packed)
    yield Call(suder_ext.linear_preference_loss, packed, {"reduction": "mean"}, DTYPES)
    yield Call(suder_ext.linear_preference_loss, packed)
    reduced = logprob | {"target": target, "cu_seqlens": cu_seqlens}
    yield Call(suder_ext.sequence_reduce, reduced, {"mean": True})
    yield Call(suder_ext.group_advantage, {"reward": _numbers((12,), 8)}, {"group_size": 4})
    for settings in ({}, {"top_k": 20, "top_p": 0.8}):
        drawn = {"logits": logits["logits"], "uniform": uniform}
        yield Call(suder_ext.sample_token, drawn, settings)
        yield Call(suder_ext.linear_sample_token, head | {"uniform": uniform}, settings)
    yield Call(suder_ext.preference_loss, pairs)
    yield Call(suder_ext.preference_loss, pairs, {"loss_type": "aot"})
    yield Call(suder_ext.policy_loss, policy | kept_near, {"kl_coef": 0.1})
    yield Call(suder_ext.policy_loss, policy, {"level": "sequence"})
    yield Call(suder_ext.kto_loss, logprob | {"desirable": target % 2})
    yield Call(_pack, {"mask": torch.tensor([[1, 1, 0], [0, 1, 1]]), "values": _numbers((2, 3), 2)})


def _pack(mask: Tensor, values: Tensor) -> Any:
    return suder_ext.pack_padded(mask, values)


_pack.__name__ = "pack_padded"
