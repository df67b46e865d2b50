"""Seconds of a round of the trainer on a card: sampling by its steps, the rest by its forwards.

Forwards and backwards are run dry, a block of TOKENS tokens each, and count as often as a round has
such blocks; heads are the kernels'. Python's own time counts nowhere: with graphs it takes no part
in steps, and elsewhere kernels are long enough to hide it on a host that is not slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks.model.backward import fused_both
from benchmarks.model.cards import Card
from benchmarks.model.code import NOW
from benchmarks.model.dry import Operators, operators_of, weightless
from benchmarks.model.fused import fused_forward
from benchmarks.model.steps import PROMPT, Steps, steps
from benchmarks.rounds import counts
from suder.models import Janus

TOKENS = 16384  # of a block: optimizer.tokens_per_batch
INPUTS, CANDIDATES, CAPTION = 12, 8, 32
PICTURES = 4  # decoded in a dry run


class Target(NamedTuple):
    """What a round is asked to take, and how it is trained."""

    shape: str
    lora: int
    checkpointing: bool
    seconds: float


TARGETS = (Target("1b", 0, True, 15.0), Target("7b", 32, True, 60.0))


class Block(NamedTuple):
    """Operators of a forward, or of one with its backward; and of the head: tokens, D, V."""

    operators: Operators
    head: tuple[int, int, int]
    count: float  # of such blocks in a round

    def seconds(self, card: Card, backward: bool = False) -> float:
        wgmma = bool(card.tma)
        head = (fused_both if backward else fused_forward)(card, NOW, *self.head, wgmma=wgmma)
        return self.count * (self.operators.seconds(card) + head.seconds)


class Round(NamedTuple):
    """Everything of a round that has been run dry."""

    pictures: Steps
    captions: float  # kernels of a step, which are as many as of a picture's
    caption_work: list[Any]
    decode: Operators
    score: list[Block]
    optimise: list[Block]
    start: list[Block]
    update: list[Any]


def dry_round(target: Target) -> Round:
    drawn = steps(target.shape, INPUTS * CANDIDATES)
    with weightless(target.shape, target.lora) as model:
        core, image = model.core.config, model.num_image_tokens
        caption_work = counts.sample(
            core, "understanding", torch.bfloat16, INPUTS, CANDIDATES, CAPTION,
            len(model.prompts.question_ids),
        )  # fmt: skip
        codes = torch.zeros(PICTURES, image, dtype=torch.int64)
        with torch.no_grad():
            decode = operators_of(lambda: model.parts.vqmodel.decode(codes))
            score = [
                _block(model, direction, 1, _nothing)
                for direction in ("generation", "understanding")
            ]
        model.checkpoint_activations = target.checkpointing
        optimise = [
            _block(model, direction, CANDIDATES, _backward)
            for direction in ("generation", "understanding")
        ]
        with torch.no_grad():
            start = [
                _block(model, direction, CANDIDATES, _nothing)
                for direction in ("generation", "understanding")
            ]
        trained = sum(one.numel() for one in model.trainable_parameters())
        update = counts.update(trained, 2, counts.Language(core, torch.bfloat16).matrices)
    return Round(drawn, drawn.kernels(), caption_work, decode, score, optimise, start, update)


def phases(made: Round, card: Card) -> dict[str, float]:
    """Seconds of each phase."""
    decoded = made.decode.seconds(card) * INPUTS * CANDIDATES / PICTURES
    moved = sum(
        max(one.moved / card.copy, one.operations / card.product) for one in made.caption_work
    )
    return {
        "sample pictures": made.pictures.seconds(card) * made.pictures.count,
        "sample captions": moved + CAPTION * made.captions * card.launch,
        "decode": decoded,
        "score": sum(one.seconds(card) for one in made.score),
        "optimise": sum(one.seconds(card, backward=True) for one in made.optimise)
        + sum(one.seconds(card) for one in made.start),
        "update": sum(one.moved for one in made.update) / card.copy,
    }


def _nothing(hidden: torch.Tensor) -> None:
    pass


def _backward(hidden: torch.Tensor) -> None:
    hidden.float().sum().backward()


def _block(model: Janus, direction: Any, group: int, then: Callable[[torch.Tensor], None]) -> Block:
    """Of `group` candidates an input: a block of whole groups, and how many a round has."""
    image, text = model.num_image_tokens, len(model.tokenize([PROMPT])[0])
    generation = direction == "generation"
    target = image if generation else CAPTION if group > 1 else text
    prefix = (
        len(model.prompts.prompt_ids(PROMPT)) if generation else len(model.prompts.question_ids)
    )
    rows = max(1, TOKENS // (group * (prefix + target)))
    if rows * group * (prefix + target) > TOKENS:
        group = max(1, TOKENS // (prefix + target))
    size = model.image_size
    condition = [PROMPT] * rows if generation else torch.zeros(rows, 3, size, size)
    count = rows * group
    targets = (
        torch.zeros(count, image, dtype=torch.int64)
        if generation
        else [torch.zeros(target, dtype=torch.int64)] * count
    )

    def run() -> None:
        then(model(direction, condition, targets, group).hidden)

    hidden, vocabulary = model.parts.last_layer(direction)[0].shape[::-1]
    blocks = INPUTS * CANDIDATES / count
    return Block(operators_of(run), (count * target, hidden, vocabulary), blocks)
