"""One optimiser step from the gradients of both directions, and the averaged weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from suder import ranks
from suder.method import moments
from suder.settings.learning import Optimizer

SMOOTHING = 0.9  # of the norms that balancing uses
LIMIT = 20.0  # largest factor by which a direction is scaled up or down
Gradient = list[torch.Tensor]


class Balance:
    """Makes each direction contribute the same norm to the sum of the gradients.

    Left alone the two differ by 11 to 14 times on Janus-Pro (arXiv 2603.17044). With s_d the
    smoothed norm of direction d (s = 0.9 s + 0.1 |g|, starting at the first |g|) and
    m = sqrt(mean of s_d^2), the combined gradient is sum over d of (m / s_d) g_d; m / s_d is kept
    within [1/20, 20]. As the directions are nearly orthogonal, the sum keeps the norm it had.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.smooth: dict[str, float] = {}

    def factors(self, norms: dict[str, float]) -> dict[str, float]:
        """What to scale each direction of this round by; `norms` also updates the smoothing."""
        for direction, norm in norms.items():
            if norm > 0 and math.isfinite(norm):
                before = self.smooth.get(direction, norm)
                self.smooth[direction] = SMOOTHING * before + (1 - SMOOTHING) * norm
        if not self.enabled or len(self.smooth) < 2:
            return dict.fromkeys(norms, 1.0)
        mean = math.sqrt(sum(s * s for s in self.smooth.values()) / len(self.smooth))
        return {
            direction: min(LIMIT, max(1 / LIMIT, mean / self.smooth[direction]))
            if direction in self.smooth
            else 1.0
            for direction in norms
        }


class Updater:
    """AdamW with linear warm-up, clipping and an exponential moving average of the weights.

    Attributes:
        names, sources: the trained parameters, which their gradients arrive at.
        params: the same, or, where they are divided among processes, the part of each that is here.
        average: the averaged weights, one tensor a parameter; decay min(ema, (1 + t) / (10 + t))
            after step t, so that the start model is soon forgotten. With `settings.offload` they
            are in the host's memory, and so are gradients until they are added up. Never in 16
            bits: at a rate of 1e-5 and a decay of 0.98, bfloat16 of weights of size 0.02 misses 80%
            of what 400 rounds move them by, and with stochastic rounding is off by 7% (34% at a
            decay of 0.998), where the one rounding of a saved model costs 3%.
        lr_scale: multiplies the rate; a roll-back halves it.
    """

    def __init__(self, named: Sequence[tuple[str, torch.Tensor]], settings: Optimizer) -> None:
        self.names = [name for name, _ in named]
        self.sources = [param for _, param in named]
        self.divided = any(map(ranks.divided, self.sources))
        self.params = [ranks.local(param) for param in self.sources]
        self.settings = settings
        self.balance = Balance(settings.balance)
        self.average = [self._away(param.detach().clone()) for param in self.params]
        self.lr_scale = 1.0
        self.rounds = 0
        if self.divided and settings.moments != "float32":
            raise ValueError(
                "optimizer.moments: those in 8 bits have scales of their own for each part of a "
                "weight; with weights divided among processes, take float32"
            )
        self._new_adam()

    def take_gradient(self) -> tuple[Gradient, float]:
        """The gradient in `.grad` and its norm; `.grad` is cleared.

        Each process has the gradient of its share, divided by the count of all: added up once a
        step. (DDP would do so at every micro-batch, divide by the processes, and look for the
        parameters that a direction does not use.) What is divided was added up by the backward.
        """
        gradient = [
            torch.zeros_like(param) if source.grad is None else ranks.local(source.grad)
            for param, source in zip(self.params, self.sources, strict=True)
        ]
        if not self.divided:
            ranks.add_up(gradient)
        norm = norm_of(gradient, self.divided)
        for index, source in enumerate(self.sources):
            source.grad = None
            gradient[index] = self._away(gradient[index])
        return gradient, norm

    def step(self, gradients: dict[str, Gradient], norms: dict[str, float]) -> dict[str, float]:
        """One step along the balanced, clipped sum; returns norms and rate for the log.

        A gradient that is not finite changes nothing and is reported as `skipped`. One that is
        zero everywhere changes nothing either, where Adam's momentum would.
        """
        if not all(math.isfinite(norm) for norm in norms.values()):
            return {"grad_norm/total": math.nan, "skipped": 1.0}
        if not any(norms.values()):
            return {"grad_norm/total": 0.0, "skipped": 0.0}
        factors = self.balance.factors(norms)
        total = self._sum(gradients, factors)
        norm = norm_of(total, self.divided)
        torch._foreach_mul_(total, min(1.0, self.settings.grad_clip / (norm + 1e-12)))
        lr = self.lr_scale * self.settings.lr
        lr *= min(1.0, (self.rounds + 1) / max(1, self.settings.warmup_rounds))
        for param, gradient_of in zip(self.params, total, strict=True):
            param.grad = gradient_of
        moments.step(self.adam, lr)
        log = {"grad_norm/total": norm, "lr": lr, "skipped": 0.0}
        return log | {f"balance/{name}": factor for name, factor in factors.items()}

    @torch.no_grad()
    def end_round(self) -> None:
        """Moves the averaged weights towards the present ones."""
        self.rounds += 1
        decay = min(self.settings.ema, (1 + self.rounds) / (10 + self.rounds))
        if not self.settings.offload:
            torch._foreach_lerp_(self.average, [param.data for param in self.params], 1.0 - decay)
            return
        for index, param in enumerate(self.params):
            mean = self.average[index].to(param.device).lerp_(param.data, 1.0 - decay)
            self.average[index] = self._away(mean)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the model holds the averaged weights (exchanged, not copied)."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def restart(self, weights: dict[str, torch.Tensor]) -> None:
        """Begins again from other weights: average equal to them, no momentum, half the rate."""
        with torch.no_grad():
            for index, name in enumerate(self.names):
                weight = ranks.part(weights[name], self.sources[index])
                self.params[index].copy_(weight)
                self.average[index].copy_(weight)
        self.lr_scale *= 0.5
        self.balance.smooth.clear()
        self._new_adam()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Everything a later `load_state` needs to go on with the same bits.

        The tensors are whole; where they are divided among processes, the first alone has them.
        """
        tensors: dict[str, torch.Tensor] = {}
        for index, (name, param) in enumerate(zip(self.names, self.params, strict=True)):
            found = {"weight/" + name: param, "average/" + name: self.average[index]}
            for key, tensor in (found | moments.saved(self.adam, param, name)).items():
                if self.divided and tensor.ndim:
                    tensor = ranks.whole(tensor, self.sources[index])
                    if not ranks.first():
                        continue
                    tensor = tensor.cpu()
                tensors[key] = tensor
        meta = {
            "rounds": self.rounds,
            "lr_scale": self.lr_scale,
            "smooth": self.balance.smooth,
        }
        return tensors, meta

    def load_state(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        """Takes up what `state` gave; of several processes the first has the tensors."""
        self.rounds, self.lr_scale = meta["rounds"], meta["lr_scale"]
        self.balance.smooth = dict(meta["smooth"])
        about = ranks.from_first(
            lambda: {key: (one.shape, one.dtype) for key, one in tensors.items()}
        )
        of: dict[str, list[str]] = {}
        for key in about:
            of.setdefault(key.rpartition("/")[2], []).append(key)
        with torch.no_grad():
            for index, (name, param) in enumerate(zip(self.names, self.params, strict=True)):
                ours = {
                    key: self._given(tensors.get(key), *about[key], index)
                    for key in of.get(name, [])
                }
                param.copy_(ours["weight/" + name])
                self.average[index].copy_(ours["average/" + name])
                moments.restore(self.adam, param, name, ours)

    def _given(
        self, tensor: torch.Tensor | None, shape: torch.Size, dtype: torch.dtype, index: int
    ) -> torch.Tensor:
        """What the first process has of a state, or the part of it that is this one's."""
        tensor = ranks.spread(tensor, shape, dtype, self.params[index].device)
        return ranks.part(tensor, self.sources[index]) if tensor.ndim else tensor

    def _new_adam(self) -> None:
        self.adam = moments.new_adam(self.params, self.settings)

    def _away(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to("cpu") if self.settings.offload else tensor

    def _sum(self, gradients: dict[str, Gradient], factors: dict[str, float]) -> Gradient:
        """What is away comes back a tensor at a time, so that one gradient is there at once."""
        total = []
        for index, param in enumerate(self.params):
            parts = [
                gradient[index].to(param.device).mul_(factors[direction])
                for direction, gradient in gradients.items()
            ]
            total.append(functools.reduce(torch.Tensor.add_, parts))
        return total

    @torch.no_grad()
    def _exchange(self) -> None:
        for index, param in enumerate(self.params):
            if self.divided:  # whoever divided it knows it by its memory
                now = param.clone()
                param.copy_(self.average[index])
                self.average[index] = self._away(now)
                continue
            now = param.data
            param.data = self.average[index].to(now.device)
            self.average[index] = self._away(now)


def norm_of(tensors: Gradient, divided: bool = False) -> float:
    """The Euclidean norm of all entries together, summed in float64.

    Args:
        divided: each of the run's processes has other entries.
    """
    norms = torch.stack([norm.double() for norm in torch._foreach_norm(tensors)])
    square = norms.square().sum()
    return math.sqrt(ranks.total([float(square)])[0]) if divided else float(square.sqrt())
