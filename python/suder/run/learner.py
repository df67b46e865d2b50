"""The model being trained, its frozen start, and the optimise phase of a round."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from suder import ranks
from suder.method.anchor import add_anchor
from suder.method.balance import Gradient, Updater
from suder.method.external import load_external
from suder.method.gradients import Sums, add_gradient
from suder.method.judge import SelfJudge
from suder.method.moments import check_moments
from suder.method.rewards import DualReward
from suder.models import load_model
from suder.models.away import moved
from suder.models.base import UnifiedModel
from suder.models.lora import saved_adapters
from suder.run.batches import Batches
from suder.run.origin import fingerprint
from suder.run.reward_model import load_reward_model
from suder.run.rounds import Scored
from suder.run.sampled import Anchor
from suder.settings.config import TrainConfig
from suder.storage.files import seed_of

if TYPE_CHECKING:
    from suder.run.dividing import Divided


class Learner:
    """Policy, start model and optimiser.

    Attributes:
        policy: the model that samples and is trained.
        start: the same model as it was, frozen; weights never trained (the VQ model's; with
            LoRA, all but the adapters) are shared. With optimizer.start_dtype bfloat16 it holds
            the matrices that autocast would make of its own.
        reward_model: another model that gives the rewards, frozen, or None.
        scorer: gives the rewards, by that, by the policy or by the start model.
        judge: the same model, asked; external: a function of the user's; None without.
        fingerprint: of the start model, part by part; size: bytes of its weights.
        asked: what its prompts say, and how long its captions may be, where null left that open.
        saved: dtype of checkpoints and of the finished model.
        batches: how much goes through the model at once.
        skips: rounds in a row whose gradient was not finite and changed nothing.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        check_moments(config.optimizer)
        named_one = config.reward.external
        self.external = load_external(named_one) if named_one else None
        # The trained weights are float32 all the same.
        compute = torch.bfloat16 if config.dtype == "bfloat16" else None
        shard = ranks.asked_to_divide(config.optimizer.shard)
        self.device = "cpu" if shard else config.device  # where a model is whole
        asked = config.prompts.model_dump()
        frozen = getattr(torch, config.lora.frozen_dtype)
        model = load_model(config.model, self.device, frozen, compute=compute, **asked)
        self.fingerprint = ranks.from_first(lambda: fingerprint(model))
        longest = config.sampling.max_new_tokens or model.max_new_tokens
        self.asked: dict[str, Any] = model.asks | {"max_new_tokens": longest}
        self.size = sum(tensor.nbytes for tensor in model.state_dict().values())
        if config.checkpoint.dtype:
            model.saved = getattr(torch, config.checkpoint.dtype)
        if config.lora.rank:
            model.add_lora(config.lora, seed_of(config.seed, "lora"))
        model.checkpoint_activations = config.optimizer.checkpoint_activations
        model.eval()  # dropout would make the ratio of fresh samples differ from 1
        self.saved = model.saved
        self.policy: UnifiedModel = model
        self.divided: Divided | None = None
        if shard:
            from suder.run.dividing import Divided  # of one process it would only take time

            self.divided = Divided(model, config.device, config.sampling.offload)
        else:
            model.copies_away = config.sampling.offload
        self.start = self.divided.start if self.divided else self.policy.frozen_copy()
        if config.optimizer.start_dtype == "bfloat16" and not (shard or config.lora.rank):
            self.start, fill = self.start.inference_copy(torch.bfloat16)
            fill()
        elif model.copies_away and not (compute or config.lora.rank):
            moved(self.start, config.device)
        reader = self.divided.reader if self.divided else self.policy
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.updater = Updater(named, config.optimizer)
        self.batches = Batches(config)
        self.reward_model: UnifiedModel | None = None
        if config.reward.model:
            scoring = load_reward_model(config.reward.model, reader, compute, asked)
            found = ranks.from_first(lambda: fingerprint(scoring))
            self.reward_model = scoring
            self.fingerprint |= {f"reward.model: {part}": digest for part, digest in found.items()}
        frozen = self.start if config.reward.scorer == "frozen" else reader
        settings = config.reward
        self.scorer = DualReward(
            self.reward_model or frozen,
            include_eos=settings.include_eos,
            reduction=settings.reduction,
        )
        self.judge: SelfJudge | None = None
        if settings.judge != "off":
            self.judge = SelfJudge(self.scorer.model)
            if why := self.judge.unavailable:
                raise ValueError(f"reward.judge {settings.judge}: {why}")
        self.skips = 0

    def optimise(
        self,
        scored: list[Scored],
        say: Callable[[str], None] = lambda words: None,
        anchor: Anchor | None = None,
    ) -> dict[str, float]:
        """Learns from a round's candidates; returns losses, norms and KL for the log.

        Args:
            anchor: of the direction that is held while the other, which `scored` is of, learns.
        """
        numbers: dict[str, float] = {}
        first: dict[str, Sums] = {}
        for _ in range(self.config.optimizer.steps):
            gradients: dict[str, Gradient] = {}
            norms: dict[str, float] = {}
            for one in scored:
                name = one.rollouts.direction
                sums, drift = self.batches.within_memory(
                    partial(self._gradient, one, first.get(name), anchor), say, f"optimise ({name})"
                )
                if name not in first:
                    first[name] = sums
                    numbers |= sums.log(name) | drift
                gradients[name], norms[name] = self.updater.take_gradient()
            step = self.updater.step(gradients, norms)
            numbers |= {f"grad_norm/{name}": norm for name, norm in norms.items()} | step
        self.updater.end_round()
        self.skips = self.skips + 1 if numbers["skipped"] else 0
        return numbers

    def _gradient(
        self, one: Scored, first: Sums | None, anchor: Anchor | None
    ) -> tuple[Sums, dict[str, float]]:
        """Of one direction, into `.grad`, whatever an attempt before has left there."""
        for param in self.updater.sources:
            param.grad = None
        models, tokens = (self.policy, self.start), self.batches.tokens
        sums = add_gradient(
            *models, one.rollouts, one.selection, one.condition, self.config, first, tokens
        )
        if anchor is None:
            return sums, {}
        kl = add_anchor(*models, anchor.rollouts, anchor.condition, self.config, tokens)
        return sums, {f"anchor_kl/{anchor.rollouts.direction}": kl}

    def current(self) -> UnifiedModel:
        """What draws and scores as the policy would by its present weights."""
        if self.divided is None:
            return self.policy
        self.divided.refresh()
        reader: UnifiedModel = self.divided.reader
        return reader

    def plain(self, model: UnifiedModel) -> UnifiedModel:
        """The policy, or the start model before any training, to be saved by the first process."""
        return model if self.divided is None else self.divided.plain()

    def save_best(self, folder: Path, model: Any) -> None:
        """Writes the policy so that `restart` finds every bit of it.

        With LoRA the adapters, which are what is trained, are never rounded.
        """
        try:
            model.saved = self.saved if self.config.lora.rank else None
            model.save(folder)
        finally:
            model.saved = self.saved

    def save_final(self, best: Path, folder: Path) -> None:
        """Writes what `save_best` wrote in the dtype that the finished model has."""
        if self.config.lora.rank or self.saved in (None, torch.float32):
            shutil.copytree(best, folder, dirs_exist_ok=True)
        else:
            load_model(best, saved=self.saved).save(folder)

    def restart(self, folder: Path) -> None:
        """Goes on from the weights saved in `folder` (HF format), at half the rate."""
        if self.config.lora.rank:
            weights = saved_adapters(folder)
        else:
            weights = dict(load_model(folder, device=self.device).named_parameters())
        self.updater.restart(weights)
        self.skips = 0

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors, meta = self.updater.state()
        return tensors, meta | {"skips": self.skips}

    def load_state(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        self.updater.load_state(tensors, meta)
        self.skips = meta["skips"]
