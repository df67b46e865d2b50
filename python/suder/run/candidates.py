"""What a round learns from: its three phases one after the other, each within the memory."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from suder.inputs.data import Inputs
from suder.rollouts.offline import Offline
from suder.run.learner import Learner
from suder.run.logs import Clock, RunLog
from suder.run.replay import Replay
from suder.run.rounds import Scored, Scorers, parts_of, score_phase, select_phase
from suder.run.sampled import Anchor, Sampled, sample_phase
from suder.run.taken import taken_phase


def candidates_of(
    folder: Path,
    index: int,
    learner: Learner,
    inputs: Inputs,
    replay: Replay,
    source: Offline | None,
    clock: Clock,
    log: RunLog,
) -> tuple[list[Scored], Anchor | None]:
    """The round's candidates, with rewards and selection; and samples of what it holds.

    Args:
        source: the files that they are taken from; None: they are sampled.

    Raises:
        NotFinite: the model's numbers are of no use.
    """
    batches, config = learner.batches, learner.config
    policy = learner.current()

    def sample() -> Sampled:
        given = folder, policy, inputs, config, index, batches.rows
        return taken_phase(*given, source) if source else sample_phase(*given, replay.again)

    sampled = batches.within_memory(sample, log.say, "sample")
    rollouts, conditions = sampled.rollouts, sampled.conditions
    clock.lap("sample")

    def score() -> dict[str, Tensor]:
        learner.scorer.tokens_per_batch = batches.tokens
        if learner.judge is not None:
            learner.judge.tokens_per_batch = batches.tokens
        scorers = Scorers(learner.scorer, learner.judge, learner.external, learner.start)
        return score_phase(
            folder, scorers, policy, rollouts, conditions, config, index, inputs.digests, source
        )

    rewards = batches.within_memory(score, log.say, "score")
    clock.lap("score")
    finished: dict[str, Tensor] = {one.direction: one.finished for one in rollouts}
    chosen = select_phase(folder, rewards, finished, config)
    clock.lap("select")
    names = [one.direction for one in rollouts]
    scored = [
        Scored(one, conditions[name], rewards[name], chosen[name], parts_of(rewards, name))
        for name, one in zip(names, rollouts, strict=True)
    ]
    return scored, sampled.anchor()
