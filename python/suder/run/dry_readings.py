"""Passes that only read what was drawn, run dry: the judge's, the entropies', the guard's."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from suder.method.anchor import everyone
from suder.method.answers import asked_at_once
from suder.method.cut import cut
from suder.method.judge import SelfJudge
from suder.models.base import DIRECTIONS, Direction
from suder.run.dry_round import DryRound
from suder.run.live_bytes import peak_of
from suder_ext import linear_logprob, linear_logprob_stats


def read(dry: DryRound, direction: Direction) -> int:
    """The most bytes of a pass that reads a direction's candidates and learns nothing of them."""
    config = dry.config
    found = [score(dry, direction)]
    with unset_fake_temporarily():  # ids are looked at
        judge = SelfJudge(dry.model, tokens_per_batch=config.optimizer.tokens_per_batch)
    if not judge.unavailable and (config.reward.judge != "off" or dry.watched):
        found += [asked(dry, judge, direction, *size) for size in dry.sizes(direction)]
    if config.objective.entropy_anchor and (config.inputs_per_round, config.candidates) in (
        dry.sizes(direction)
    ):
        found.append(entropy(dry, direction))
    if dry.watched:
        found.append(distance(dry, direction, *dry.sizes(direction)[-1]))
    return max(found)


@torch.no_grad()
def score(dry: DryRound, direction: Direction) -> int:
    """Of the pairs that are read at once, by the model running the other way."""
    (other,) = set(DIRECTIONS) - {direction}
    pairs = dry.pairs(direction)
    given = dry.condition(other, pairs), dry.targets(other, pairs, dry.text)
    return peak_of(lambda: dry.reader(other, *given))


@torch.no_grad()
def asked(dry: DryRound, judge: SelfJudge, direction: Direction, inputs: int, group: int) -> int:
    """Of the pairs of a picture and a text about which the model is asked at once."""
    seen = [i // group if direction == "understanding" else i for i in range(inputs * group)]
    question = judge.question(dry.longest if direction == "generation" else _caption(dry))
    assert judge.answers
    model, answer = dry.model, len(judge.answers.target)
    with unset_fake_temporarily():
        if model.too_long("understanding", "yes", question):
            return 0
        asked, limits = [question] * len(seen), (judge.batch_size, judge.tokens_per_batch)
        batch = next(asked_at_once(model, asked, seen, answer, *limits))
        count, rows = len(batch.pairs), len(batch.pairs) // batch.group
        whole = model.tokens_read(
            "understanding", rows, [answer] * count, batch.group, questions=[question] * count
        )
        # What is asked is read with the answer. Here a longer answer stands for both: a question's
        # ids are compared with the model's own, and of no memory there is nothing to compare.
        length = 1
        while model.tokens_read("understanding", rows, [length + 1] * count, batch.group) <= whole:
            length += 1
    targets = dry.targets("understanding", count, length)

    def read() -> object:  # pictures are made for each pass
        return dry.reader(
            "understanding", dry.condition("understanding", rows), targets, batch.group
        )

    return peak_of(read)


@torch.no_grad()
def entropy(dry: DryRound, direction: Direction) -> int:
    """Of objective.entropy_anchor, which reads a round's candidates by policy and start."""
    config = dry.config
    guided = direction == "generation" and config.sampling.policy == "cfg"
    guidance = config.sampling.guidance if guided else 1.0
    chosen = everyone(config.inputs_per_round, config.candidates)
    given, group = dry.block(direction, chosen, guidance)

    def read() -> object:
        hidden = dry.model(*given, group, guidance)
        return linear_logprob_stats(hidden.hidden, hidden.weight, hidden.target, hidden.bias)

    return peak_of(read)


@torch.no_grad()
def distance(dry: DryRound, direction: Direction, inputs: int, group: int) -> int:
    """Of the guard's log p by the start model of what another drew."""
    config, model = dry.config, dry.model
    guidance = config.sampling.guidance if direction == "generation" else 1.0
    length = dry.caption if direction == "understanding" else model.num_image_tokens

    def fits(rows: range, part: range) -> bool:
        count = len(rows) * len(part)
        asked = len(rows) if direction == "understanding" else [dry.longest] * len(rows)
        tokens = model.tokens_read(direction, asked, [length] * count, len(part), guidance)
        return count <= config.sampling.batch_size and tokens <= config.optimizer.tokens_per_batch

    rows, part = next(cut(inputs, group, fits))
    targets = dry.targets(direction, len(rows) * len(part), length)
    given = direction, dry.condition(direction, len(rows)), targets, len(part), guidance

    def read() -> object:
        hidden = dry.start(*given)
        return linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias)

    return peak_of(read)


def _caption(dry: DryRound) -> str:
    """A text of about as many tokens as the longest caption has."""
    words = (dry.longest or "a").split()
    return " ".join((words * (-(-dry.caption // max(1, dry.text - 1))))[: dry.caption])
