"""What `suder sample` drew as a table of rollouts, which have no rewards yet."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from suder.inputs.files import read_file
from suder.inputs.pictures import MAX_BYTES, digest_of
from suder.method.rollouts import Rollouts
from suder.method.selection import select
from suder.models.base import UnifiedModel
from suder.rollouts.files import write_table
from suder.rollouts.rows import candidate_rows, to_table
from suder.run.exported import digest_of_model
from suder.run.origin import fingerprint
from suder.settings.candidates import Sampling


def write_samples(
    path: Path,
    samples: Sequence[tuple[dict[str, Any], torch.Tensor]],
    model: UnifiedModel,
    args: argparse.Namespace,
) -> None:
    """Writes rows of samples.jsonl, with the log-probabilities of their tokens, as rollouts."""
    drawn = "prompt" in samples[0][0]
    lengths = torch.tensor([len(row["tokens"]) for row, _ in samples])
    one = Rollouts(
        direction="generation" if drawn else "understanding",
        inputs=tuple(row["prompt" if drawn else "image"] for row, _ in samples[:: args.n]),
        group=args.n,
        tokens=torch.tensor([token for row, _ in samples for token in row["tokens"]]),
        cu_seqlens=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        logprob=torch.cat([logprob for _, logprob in samples]),
        finished=torch.tensor([row.get("finished", True) for row, _ in samples]),
    )
    reward = torch.full((len(samples),), torch.nan)
    rows = candidate_rows(
        one,
        reward,
        select(reward, args.n),
        [] if drawn else [row["caption"] for row, _ in samples],
        {} if drawn else {name: digest_of(read_file(name, MAX_BYTES)) for name in one.inputs},
        Sampling(
            temperature=args.temperature,
            top_k=1 if args.greedy else args.top_k,
            top_p=args.top_p,
            guidance=args.guidance,
        ),
        run=secrets.token_hex(8),
        round=0,
        question=model.asks.get("question"),
        system_prompt=model.asks.get("system_prompt"),
        scorer=None,
        seed=args.seed,
        model=args.model,
        model_digest=digest_of_model(fingerprint(model)),
    )
    write_table(path, to_table(rows))
