"""The sampler's steps and a round of the trainer on two cards, as a table.

Predicted, not yet run on a GPU. "limit" is what has to be read at a copy's bandwidth, from the
config alone (benchmarks/rounds/counts.py); "predicted" every operator's bytes or products and
Card.launch between two of them, as in a replayed graph.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.model.cards import CARDS, Card
from benchmarks.model.rounds import TARGETS, dry_round, phases
from benchmarks.model.steps import CANDIDATES, PROMPT, Steps, steps
from benchmarks.rounds import counts
from benchmarks.rounds.shapes import processor_of, published_config
from benchmarks.rounds.work import Machine
from suder.models.janus.layout import generation_ids

NAMES = ("h100", "h200")
PICTURES = (32, 128)  # 64 and 256 rows, with guidance
WANTED = {"1b": 15.0, "7b": 4.5}  # pictures a second, of 32 at once


def lines() -> Iterator[str]:
    """One after another, for it takes minutes."""
    names = "card", "limit", "predicted", "kernels", "pictures/s", "target"
    yield "a step, guidance 5  " + "".join(f"{name:>12}" for name in names)
    for shape in WANTED:
        for pictures in PICTURES:
            made = steps(shape, pictures)
            for name in NAMES:
                yield _step(shape, pictures, made, name)
    yield ""
    for target in TARGETS:
        made_round = dry_round(target)
        how = f"LoRA {target.lora}" if target.lora else "all weights"
        yield f"a round of 12 inputs x 8 candidates x 2 directions, {target.shape}, {how}; seconds"
        for name in NAMES:
            seconds = phases(made_round, CARDS[name])
            parts = ", ".join(f"{phase} {time:.2f}" for phase, time in seconds.items())
            total = sum(seconds.values())
            yield f"  {name}: {total:.1f} (target {target.seconds:g}): {parts}"


def _step(shape: str, pictures: int, made: Steps, name: str) -> str:
    card = CARDS[name]
    seconds = made.seconds(card)
    rate = pictures / (seconds * made.count)
    values = name, f"{1e3 * limit(shape, pictures, card):.2f} ms", f"{1e3 * seconds:.2f} ms"
    values = *values, f"{made.kernels()}", f"{rate:.1f}"
    target = f"{WANTED[shape]:g}" if pictures == PICTURES[0] else ""
    row = f"{shape}, {2 * pictures} rows"
    return f"{row:20}" + "".join(f"{value:>12}" for value in (*values, target)).rstrip()


def limit(shape: str, pictures: int, card: Card) -> float:
    """Seconds of a step, on average, at a copy's bandwidth."""
    processor = processor_of(128)
    config = published_config(shape, 0)
    prompt = len(generation_ids(processor, PROMPT))
    steps_written = config.vision_config.num_image_tokens
    works = counts.sample(
        config, "generation", torch.bfloat16, pictures // CANDIDATES, CANDIDATES, steps_written,
        prompt, guided=True,
    )  # fmt: skip
    machine = Machine("", card.copy, {torch.bfloat16: card.product})
    return machine.seconds(works) / steps_written
