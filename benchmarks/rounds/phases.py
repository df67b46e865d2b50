"""The phases of a round, by the trainer's own functions, and what each has to do at least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from suder.engine.sampling import Samples, sample
from suder.method.directions import active
from suder.method.rollouts import Rollouts
from suder.method.sampling import sample_rollouts
from suder.method.scoring import reward_of
from suder.method.selection import select
from suder.models import Janus
from suder.models.base import Condition, Direction
from suder.run import learner as learner_module
from suder.run.learner import Learner
from suder.run.rounds import Scored
from suder.settings.config import TrainConfig

from . import counts
from .shapes import prompts
from .work import Work


@dataclass(frozen=True)
class Phase:
    """Something to time.

    Attributes:
        name: pictures: how many it draws, decodes or scores.
        run: does it; least: what that has to move and to multiply, known once it has run.
        in_round: whether a round of the trainer does it.
    """

    name: str
    pictures: int
    run: Callable[[], object]
    least: Callable[[], list[Work]]
    in_round: bool = True


@dataclass
class Round:
    """One round on a model that is here already.

    Attributes:
        learner: the trainer's own, which holds what training holds.
        given: by direction, the conditions; drawn, scored: by direction, what phases left.
    """

    model: Janus
    config: TrainConfig
    words: list[str]
    shape: str
    drawn: dict[str, Rollouts] = field(default_factory=dict)
    scored: dict[str, Scored] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with (
            mock.patch.object(learner_module, "load_model", return_value=self.model),
            mock.patch.object(learner_module, "fingerprint", return_value={}),
        ):
            self.learner = Learner(self.config)
        core = self.model.core.config
        count, size = self.config.inputs_per_round, self.model.image_size
        make = torch.Generator().manual_seed(0)
        pixels = torch.rand(count, 3, size, size, generator=make) * 2 - 1
        self.given: dict[str, Condition] = {
            "understanding": pixels.to(self.model.device, self.model.dtype),
            "generation": prompts(self.shape, self.words, count),
        }
        self.core = core
        self.dtype = self.model.compute or self.model.dtype
        self.question = len(self.model.prompts.question_ids)
        self.prompt = max(
            len(self.model.prompts.prompt_ids(one)) for one in self.given["generation"]
        )
        self.text = max(len(ids) for ids in self.model.tokenize(self.given["generation"]))

    def phases(self) -> list[Phase]:
        """In the order of a round; the sampler alone, as engines are compared, goes first."""
        config = self.config
        both = config.inputs_per_round * config.candidates
        directions = active(config, 1)
        found = [Phase("sample 32 pictures", 32, self._engine, self._least_of_engine, False)]
        for one in directions:
            name = "captions" if one == "understanding" else "pictures"
            found.append(self._phase(f"sample {name}", both, self._sample, self._sampled, one))
        if "generation" in directions:
            found.append(Phase("decode", both, self._decode, self._decoded, False))
        for one in directions:
            name = "captions" if one == "understanding" else "pictures"
            found.append(self._phase(f"score {name}", both, self._score, self._least_score, one))
        optimise = Phase("optimise", both * len(directions), self._optimise, self._least_optimise)
        return [*found, optimise]

    @staticmethod
    def _phase(name: str, pictures: int, run: Any, least: Any, direction: Direction) -> Phase:
        return Phase(name, pictures, lambda: run(direction), lambda: least(direction))

    # ---- sample

    def _engine(self) -> Samples:
        given = prompts(self.shape, self.words, 4)
        return sample(self.model, "generation", given, 8, guidance=self.config.sampling.guidance)

    def _least_of_engine(self) -> list[Work]:
        return self._sampling("generation", 4, 8)

    def _sample(self, direction: Direction) -> None:
        names = [str(number) for number in range(self.config.inputs_per_round)]

        def drawn() -> Rollouts:
            return sample_rollouts(
                self.model, direction, names, self.config.candidates, self.config.sampling, 0,
                self.given[direction], (), self.learner.batches.rows,
            )  # fmt: skip

        with torch.no_grad():
            batches = self.learner.batches
            self.drawn[direction] = batches.within_memory(drawn, print, f"sample ({direction})")

    def _sampled(self, direction: Direction) -> list[Work]:
        return self._sampling(direction, self.config.inputs_per_round, self.config.candidates)

    def _sampling(self, direction: Direction, inputs: int, candidates: int) -> list[Work]:
        generation = direction == "generation"
        return counts.sample(
            self.core, direction, self.dtype, inputs, candidates,
            self.model.num_image_tokens if generation else round(self._mean_length()),
            self.prompt if generation else self.question,
            generation and self.config.sampling.guidance != 1.0,
        )  # fmt: skip

    # ---- decode, score

    def _decode(self) -> None:
        self.model.decode(self.drawn["generation"].pictures())

    def _decoded(self) -> list[Work]:
        return counts.decode(self.core, len(self.drawn["generation"]))

    def _score(self, direction: Direction) -> None:
        drawn, config = self.drawn[direction], self.config
        learner, batches = self.learner, self.learner.batches

        def scored() -> torch.Tensor:
            learner.scorer.tokens_per_batch = batches.tokens
            return reward_of(drawn, learner.scorer, self.model, self.given[direction])

        with torch.no_grad():
            reward = batches.within_memory(scored, print, f"score ({direction})")
        chosen = select(reward, config.candidates, config.objective.normalize)
        self.scored[direction] = Scored(drawn, self.given[direction], reward, chosen)

    def _least_score(self, direction: Direction) -> list[Work]:
        texts = self._mean_length() if direction == "understanding" else self.text
        image = self.model.num_image_tokens
        frame = self.prompt - self.text if direction == "understanding" else self.question - image
        inputs, candidates = self.config.inputs_per_round, self.config.candidates
        length = texts + frame + image
        passes = -(-inputs * candidates * length // self.config.optimizer.tokens_per_batch)
        return counts.score(
            self.core, direction, self.dtype, inputs, candidates, texts, frame, int(passes)
        )

    def _mean_length(self) -> float:
        return float(self.drawn["understanding"].cu_seqlens.diff().double().mean())

    # ---- optimise

    def _optimise(self) -> None:
        self.learner.optimise([self.scored[one] for one in self.scored])

    def _least_optimise(self) -> list[Work]:
        config, works = self.config, []
        image, limit = self.model.num_image_tokens, config.optimizer.tokens_per_batch
        for one in self.scored:
            generation = one == "generation"
            target = image if generation else self._mean_length()
            prefix = self.prompt if generation else self.question
            tokens = config.inputs_per_round * config.candidates * (target + prefix)
            works += counts.optimise(
                self.core, one, self.dtype, config.inputs_per_round, config.candidates, target,
                prefix, lora=bool(config.lora.rank), passes=int(-(-tokens // limit)),
                again=config.optimizer.checkpoint_activations,
                with_start=config.objective.kl > 0,
            )  # fmt: skip
        trained = sum(one.numel() for one in self.model.trainable_parameters())
        copied = counts.Language(self.core, self.dtype).matrices if self.model.compute else 0
        return works + counts.update(trained, len(self.scored), copied)
