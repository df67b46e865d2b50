"""Questions of a target's own about a picture, instead of the one that the model is set up with.

What follows the picture in a question is read in front of the answer, as part of the target, so
that many questions about one picture share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from suder.models.base import Direction
from suder.models.decoder.parts import Parts
from suder.models.decoder.prefix import Prefix, Prompts, of_ids


def after_picture(prompts: Prompts, question: str) -> Tensor:
    """int64 `[Q]`: what stands between a picture's last token and the answer.

    Raises:
        ValueError: the chat template says the question before it shows the picture.
    """
    ids, own = prompts.asked_ids(question.strip()), prompts.question_ids
    stop = prompts.picture.stop
    if not torch.equal(ids[:stop], own[:stop]):
        raise ValueError(
            "questions: the model's chat template says them before the picture, which several "
            "could then not share; suder asks questions of their own after it only"
        )
    return ids[stop:]


def asked(
    prompts: Prompts,
    direction: Direction,
    prefix: Prefix,
    rows: Sequence[Tensor],
    questions: Sequence[str],
) -> tuple[Prefix, list[Tensor], Tensor]:
    """The prefix up to the picture's end, the targets behind their questions, and where, among all
    tokens of those, the targets' own are: bool `[T']`.
    """
    if direction != "understanding":
        raise ValueError(f"questions: are asked about pictures (understanding), not in {direction}")
    if len(questions) != len(rows):
        raise ValueError(f"questions: {len(rows)} targets take as many, got {len(questions)}")
    stop = prompts.picture.stop
    before = [after_picture(prompts, question) for question in questions]
    whole = [torch.cat([q.to(row.device), row]) for q, row in zip(before, rows, strict=True)]
    scored = [torch.arange(len(both)) >= len(q) for q, both in zip(before, whole, strict=True)]
    nothing = torch.zeros(0, dtype=torch.bool)
    cut = Prefix(prefix.embeddings[:, :stop], [stop] * len(prefix.lengths))
    return cut, whole, torch.cat([nothing, *scored])


def asked_prefix(
    prompts: Prompts, parts: Parts, direction: Direction, prefix: Prefix, questions: Sequence[str]
) -> Prefix:
    """The same pictures, each followed by a question of its own."""
    if direction != "understanding":
        raise ValueError(f"questions: are asked about pictures (understanding), not in {direction}")
    if len(questions) != len(prefix.lengths):
        raise ValueError(
            f"questions: {len(prefix.lengths)} pictures take as many, got {len(questions)}"
        )
    stop = prompts.picture.stop
    rest = of_ids(parts, [after_picture(prompts, question) for question in questions])
    both = torch.cat([prefix.embeddings[:, :stop], rest.embeddings.to(prefix.embeddings.dtype)], 1)
    return Prefix(both, [stop + length for length in rest.lengths])
