"""TRL's trainers on our log-probabilities: `patch()`, as a call or in a `with`."""

from __future__ import annotations

from importlib import import_module
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from suder_ext.functional import linear_logprob, linear_logprob_stats

# Releases whose trainers take log p from one function of `trl.trainer.utils`, as written here.
KNOWN = ("1.16",)
# A softcap stands between head and mean logit, which then needs the logits: so many at once.
LOGITS_AT_ONCE = 2**22

PerToken = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class _LinearLogprob:
    """What stands in the place of TRL 1.16's chunked function; `apply` has its arguments."""

    @staticmethod
    def apply(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        outputs: tuple[str, ...] = (),
    ) -> PerToken:
        """log p, entropy, log sum p^2, mean logit and `target is the arg max`, each `[N]`.

        The last four are None where `outputs` does not name them; the last three have no gradient.
        """
        if hasattr(weight, "ds_id"):
            raise NotImplementedError(
                "suder_ext.integrations.trl: the head is partitioned by DeepSpeed (ZeRO stage 3), "
                "which TRL gathers again in its backward and we do not; use stage 2, or train "
                "without patch()"
            )
        if not logit_scale > 0:
            raise NotImplementedError(
                f"suder_ext.integrations.trl: takes models whose logits are scaled by a number "
                f"above 0, this one's by {logit_scale}; train without patch()"
            )
        # cap * tanh(s * z / cap) / t is (cap / s) * tanh(z / (cap / s)) / (t / s): no factor of the
        # hidden states, which would round them.
        heat = temperature / logit_scale
        cap = softcap / logit_scale if softcap else None
        entropy = first = None
        if "is_top1" in outputs:
            found = linear_logprob_stats(
                hidden, weight, target, bias, temperature=heat, softcap=cap, argmax=True
            )
            logprob, first = found.logprob, found.top1
            entropy = found.entropy if "entropy" in outputs else None
        elif "entropy" in outputs:
            logprob, _, entropy = linear_logprob_stats(
                hidden, weight, target, bias, temperature=heat, softcap=cap
            )
        else:
            logprob = linear_logprob(hidden, weight, target, bias, temperature=heat, softcap=cap)
        squares = mean = None
        with torch.no_grad():
            if "log_sum_sq_probs" in outputs:
                # sum p^2 = sum exp(2 z) / (sum exp z)^2, and 2 z are the logits of half the heat.
                cold, warm = (
                    linear_logprob_stats(
                        hidden, weight, target, bias, temperature=at, softcap=cap
                    ).lse
                    for at in (heat / 2, heat)
                )
                squares = cold - 2 * warm
            if "mean_logits" in outputs:
                mean = _mean_logits(hidden, weight, bias, cap) / heat
        return logprob, entropy, squares, mean, first


def _mean_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None
) -> Tensor:
    """The mean over the vocabulary of each row's logits, `[N]`."""
    with torch.autocast(hidden.device.type, enabled=False):
        if softcap is None:
            mean = hidden.float() @ weight.mean(0, dtype=torch.float32)
            return mean if bias is None else mean + bias.float().mean()
        rows = max(1, LOGITS_AT_ONCE // len(weight))
        means = [hidden.new_zeros(0, dtype=torch.float32)]
        for some in hidden.split(rows):
            logits = torch.nn.functional.linear(some, weight.to(some.dtype)).float()
            if bias is not None:
                logits += bias.float()
            means.append((softcap * (logits / softcap).tanh()).mean(-1))
        return torch.cat(means)


_replaced: dict[str, Any] = {}
_in_force = 0


class patch:
    """From here on TRL's trainers take their log-probabilities from `linear_logprob`.

    patch()                     # until its undo() is called
    with patch(): trainer.train()

    GRPOTrainer and DPOTrainer, and those that share their path (SFT, KTO, RLOO), also those already
    made, whatever the loss: values and gradients are TRL's to float32's rounding; in 16 bits no
    logit is rounded, as TRL's are. Only positions with a label are scored, on a CPU as well, where
    TRL scores all. Of several in force the last to be undone puts TRL's functions back.

    Raises:
        ImportError: there is no TRL.
        RuntimeError: of a version that is not known.
    """

    def __init__(self) -> None:
        global _in_force
        trl = import_module("trl")
        version = str(trl.__version__)
        if ".".join(version.split(".")[:2]) not in KNOWN:
            raise RuntimeError(
                f"suder_ext.integrations.trl: knows TRL {', '.join(KNOWN)}, this is {version}: "
                f"pip install 'trl=={KNOWN[-1]}.*', or train without patch()"
            )
        utils = import_module("trl.trainer.utils")
        if not _in_force:
            ours = {"_ChunkedLogProbFunction": _LinearLogprob, "_use_triton": lambda device: True}
            for name, value in ours.items():
                _replaced[name] = getattr(utils, name)
                setattr(utils, name, value)
        _in_force += 1
        self._undone = False

    def undo(self) -> None:
        """Puts back what this call replaced; a second time nothing."""
        global _in_force
        if self._undone:
            return
        self._undone = True
        _in_force -= 1
        if not _in_force:
            utils = import_module("trl.trainer.utils")
            while _replaced:
                setattr(utils, *_replaced.popitem())

    def __enter__(self) -> patch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()
