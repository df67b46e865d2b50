"""From what a round sampled and scored to the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from suder.method.rollouts import Rollouts
from suder.method.selection import Selection
from suder.rollouts.schema import COLUMNS, arrow, schema
from suder.settings.candidates import Sampling


def to_table(rows: Mapping[str, Sequence[Any]]) -> Any:
    """A `pyarrow.Table` of columns that all have as many values."""
    return arrow().table({name: rows[name] for name, _, _ in COLUMNS}, schema=schema())


def candidate_rows(
    rollouts: Rollouts,
    reward: Tensor,
    selection: Selection,
    texts: Sequence[str],
    digests: Mapping[str, str],
    sampling: Sampling,
    **about: Any,
) -> dict[str, list[Any]]:
    """The columns of one direction's candidates, in their order.

    Args:
        texts: C * N captions; of drawings nothing is taken from it, for their text is the prompt.
        digests: of the pictures, by their paths.
        about: what is the same in every row: run, round, question, system_prompt, scorer, seed,
            model, model_digest.
    """
    count, group = len(rollouts), rollouts.group
    drawn = rollouts.direction == "generation"
    lengths = rollouts.cu_seqlens.diff().tolist()
    inputs = [one for one in rollouts.inputs for _ in range(group)]
    varying: dict[str, list[Any]] = {
        "group": [i // group for i in range(count)],
        "candidate": [i % group for i in range(count)],
        "input": inputs,
        "digest": [None if drawn else digests.get(one) for one in inputs],
        "text": inputs if drawn else list(texts),
        "tokens": [row.tolist() for row in rollouts.tokens.split(lengths)],
        "logprob": [row.tolist() for row in rollouts.logprob.split(lengths)],
        "finished": rollouts.finished.tolist(),
        "reward": [one if math.isfinite(one) else None for one in reward.tolist()],
        "advantage": selection.advantage.tolist(),
        "valid": selection.valid.tolist(),
    }
    if drawn:
        about |= {"question": None, "system_prompt": None}
    about |= {
        "direction": rollouts.direction,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "guidance": sampling.guidance if drawn else 1.0,
    }
    return varying | {name: [value] * count for name, value in about.items()}
