"""Where every token goes when many (condition, targets) pairs are read in one pass.

Two layouts, both right-padded, so that the causal mask alone keeps padding out of sight:

- one row a sequence: prefix, then the target's tokens but the last;
- one row a condition: the prefix once, then all its targets side by side. A mask hides the targets
  from one another and each counts its positions from the prefix's end, so the result is that of
  the first layout, while the prefix (576 tokens of picture in Janus-Pro) is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Indices of one teacher-forced pass of R rows and L columns.

    Attributes:
        source: int64 `[R, L]`, which embedding stands where: rows of the prefixes `[C * P]`
            followed by those of all targets' inputs (each target but its last token).
        position: int64 `[R, L]`, or None where columns are positions.
        segment: int64 `[R, L]`, or None: 0 in the prefix, 1.. in the targets, -1 in the padding.
        predictor: int64 `[T]`, the flat index `row * L + column` that predicts each target.
    """

    source: Tensor
    position: Tensor | None
    segment: Tensor | None
    predictor: Tensor

    def mask(self, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """`[R, 1, L, L]` to add to attention scores; None where plain causal attention is right."""
        if self.segment is None:
            return None
        segment = self.segment.to(device)
        columns = segment.shape[1]
        seen = segment[:, None, :] == segment[:, :, None]
        seen |= segment[:, None, :] == 0
        seen &= torch.ones(columns, columns, dtype=torch.bool, device=device).tril_()
        mask = torch.zeros(seen.shape, dtype=dtype, device=device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(1)


def layout(
    prefix: Sequence[int], target: Sequence[int], group: int, width: int, shared: bool | None = None
) -> Layout:
    """Lays out `len(prefix)` conditions with `group` targets each.

    Args:
        prefix: C lengths of the prefixes; they are padded to the longest in the source.
        target: C * group lengths of the targets.
        width: the model's hidden size, for the choice between the layouts.
        shared: one row a condition; None chooses the layout of less work.
    """
    if shared is None:
        shared = _is_less_shared(prefix, target, group, width)
    longest = max(prefix)
    ends = len(prefix) * longest + np.cumsum([max(length - 1, 0) for length in target])
    rows, positions, segments, predictors = [], [], [], []
    per_row = group if shared else 1
    for row in range(len(target) // per_row):
        condition = row if shared else row // group
        start = prefix[condition]
        source = [np.arange(condition * longest, condition * longest + start)]
        position, segment = [np.arange(start)], [np.zeros(start, dtype=np.int64)]
        for member in range(per_row):
            index = row * per_row + member
            inputs = max(target[index] - 1, 0)
            begin = sum(map(len, source))
            if target[index]:
                predictors.append((row, start - 1, begin, inputs))
            source.append(np.arange(ends[index] - inputs, ends[index]))
            position.append(np.arange(start, start + inputs))
            segment.append(np.full(inputs, member + 1))
        rows.append(np.concatenate(source))
        positions.append(np.concatenate(position))
        segments.append(np.concatenate(segment))
    columns = max(map(len, rows))
    predictor = [
        row * columns + np.concatenate([[last], np.arange(begin, begin + inputs)])
        for row, last, begin, inputs in predictors
    ]
    return Layout(
        source=_padded(rows, columns, 0),
        position=_padded(positions, columns, 0) if shared else None,
        segment=_padded(segments, columns, -1) if shared else None,
        predictor=torch.from_numpy(np.concatenate(predictor or [np.zeros(0)]).astype(np.int64)),
    )


def _padded(rows: Sequence[np.ndarray], columns: int, fill: int) -> Tensor:
    padded = np.full((len(rows), columns), fill, dtype=np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


def tokens_read(prefix: Sequence[int], target: Sequence[int], group: int, width: int) -> int:
    """Tokens, padding included, of the pass that `layout` chooses for these lengths."""
    if not prefix:
        return 0
    if _is_less_shared(prefix, target, group, width):
        return len(prefix) * _columns_shared(prefix, target, group)
    return len(target) * _columns_apart(prefix, target, group)


def _is_less_shared(prefix: Sequence[int], target: Sequence[int], group: int, width: int) -> bool:
    if group == 1 or not prefix:
        return False
    apart, shared = (of(prefix, target, group) for of in (_columns_apart, _columns_shared))
    # Its mask has a row of as many numbers for each token. 12 D is about what a layer keeps of one.
    if shared > 12 * width:
        return False
    # A causal kernel skips half of the pairs; one with a mask computes them all.
    return len(prefix) * _work(shared, width, 1.0) < len(target) * _work(apart, width, 0.5)


def _columns_apart(prefix: Sequence[int], target: Sequence[int], group: int) -> int:
    return max(prefix[i // group] + max(length - 1, 0) for i, length in enumerate(target))


def _columns_shared(prefix: Sequence[int], target: Sequence[int], group: int) -> int:
    return max(
        start + sum(max(length - 1, 0) for length in target[row * group : (row + 1) * group])
        for row, start in enumerate(prefix)
    )


def _work(columns: int, width: int, attended: float) -> float:
    """Multiplications of a Llama layer on one row: 12 D^2 a token, 2 D for each attended pair."""
    return columns * (12.0 * width * width + 2.0 * attended * columns * width)
