"""Hidden states at the positions that predict given targets, in one pass over them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from suder.models.base import Direction
from suder.models.decoder.parts import Parts
from suder.models.decoder.prefix import Prefix
from suder.models.decoder.teacher_forcing import layout


def hidden_states(
    parts: Parts, direction: Direction, prefix: Prefix, rows: Sequence[Tensor], group: int
) -> Tensor:
    """`[T, D]` before the last linear layer, at the positions that predict the targets."""
    width = prefix.embeddings.shape[-1]
    rows, drawn = with_row_ends(parts, direction, rows)
    plan = layout(prefix.lengths, [len(row) for row in rows], group, width)
    device = prefix.embeddings.device
    inputs = parts.target_embedding(direction)(torch.cat([row[:-1] for row in rows]))
    source = torch.cat([prefix.embeddings.reshape(-1, width), inputs])
    output = parts.language_model(
        # As an embedding lookup: its backward adds up repeated rows in a fixed order.
        inputs_embeds=F.embedding(plan.source.to(device), source),
        attention_mask=plan.mask(source.dtype, device),
        position_ids=None if plan.position is None else plan.position.to(device),
        use_cache=False,
    )
    last = output.last_hidden_state.reshape(-1, width)
    predictor = plan.predictor if drawn is None else plan.predictor[drawn]
    return parts.before_head(direction)(last.index_select(0, predictor.to(device)))


def with_row_ends(
    parts: Parts, direction: Direction, rows: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Tensor | None]:
    """Targets as the model reads them, and where the drawn ones stand among all; None: all are.

    A picture's rows end in a token, but the last, after which nothing more is drawn.
    """
    if not parts.row or direction != "generation" or not rows:
        return rows, None
    lines = torch.stack(list(rows)).unflatten(1, (-1, parts.row))
    marked = F.pad(lines, (0, 1), value=parts.image_vocab_size).flatten(1)[:, :-1]
    place = torch.arange(lines[0].numel())
    place += place // parts.row
    drawn = torch.arange(len(rows)).unsqueeze(1) * marked.shape[1] + place
    return marked.unbind(0), drawn.flatten()


def row_ends(parts: Parts, direction: Direction, count: int) -> int:
    """Tokens that are read, and not drawn, before the last of `count` targets."""
    row = parts.row
    return (count - 1) // row if row and direction == "generation" else 0
