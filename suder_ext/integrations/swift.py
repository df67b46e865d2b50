"""ms-swift's losses by ours, as a plug-in of its 4.6; see `register`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from suder_ext.functional import logprob, selective_log_softmax


class CrossEntropyLoss:
    """Next-token cross entropy with the arguments of ms-swift's `BaseLoss`; no float32 copy of the
    logits is made.

    Args:
        args, trainer: as ms-swift gives them; the trainer's template is looked at.
    """

    def __init__(self, args: Any, trainer: Any) -> None:
        self.args, self.trainer = args, trainer

    def __call__(
        self,
        outputs: Any,
        labels: Tensor,
        *,
        num_items_in_batch: float | Tensor | None = None,
        loss_scale: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The sum of the tokens' losses over their number, a float32 scalar.

        Args:
            outputs: the model's, with logits `[B, T, V]`, which predict the next position's label.
            labels: `[B, T]`, -100 where there is none.
            num_items_in_batch: what to divide by; None: this batch's labels.
            loss_scale: float `[B * T]`, of each position's next label, as ms-swift shifts it.

        Raises:
            NotImplementedError: the sequence is divided over processes.
        """
        template = getattr(self.trainer, "template", None)
        if getattr(template, "sequence_parallel_size", 1) > 1:
            raise NotImplementedError(
                "suder_ext.integrations.swift: takes whole sequences; train with "
                "--sequence_parallel_size 1, or without this --loss_type"
            )
        target = labels[:, 1:]
        loss = -logprob(outputs.logits[:, :-1], target)
        if loss_scale is not None:
            loss = loss * loss_scale.view(labels.shape)[:, :-1]
        if num_items_in_batch is None:
            num_items_in_batch = (target != -100).sum()
        return loss.sum() / num_items_in_batch


def register(name: str = "suder") -> None:
    """`--loss_type <name>` of ms-swift is `CrossEntropyLoss` from here on, and log p of its GRPO,
    DPO and KTO is `suder_ext.selective_log_softmax`; `--external_plugins` takes a file that calls
    it.

    Raises:
        ImportError: there is no ms-swift.
    """
    import_module("swift.loss").loss_map[name] = CrossEntropyLoss
    for module in ("rlhf_mixin", "grpo_trainer"):
        trainers = import_module(f"swift.rlhf_trainers.{module}")
        setattr(trainers, selective_log_softmax.__name__, selective_log_softmax)
