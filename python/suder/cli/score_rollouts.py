"""`suder score FILE.parquet`: rewards of rollouts by another model or template."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from suder.cli.common import new_file, prompts_of
from suder.storage.shown import counted


def score_rollouts(args: argparse.Namespace) -> int:
    """Writes the rows again with the new rewards, the old ones beside, whole or not at all."""
    from suder.rollouts.files import find_files, read_table, write_table

    table = read_table(find_files(args.rows))
    out: Path = args.out or args.rows.with_name(f"{args.rows.stem}.scored.parquet")
    new_file(out, "--output", args.overwrite)
    import torch
    from rich.progress import Progress

    from suder.method.rewards import DualReward
    from suder.models import load_model
    from suder.rollouts.rescored import rescored

    dtype = getattr(torch, args.dtype)
    model = load_model(args.model, device=args.device, dtype=dtype, **prompts_of(args))
    drawer = None
    if args.drawn_by:
        drawer = load_model(args.drawn_by, device=args.device, dtype=dtype)
    scorer = DualReward(model, batch_size=args.batch_size)
    with Progress(transient=True) as bar:
        task = bar.add_task("scoring", total=len(table))
        found, lost = rescored(
            table, scorer, args.model, drawer, lambda rows: bar.advance(task, rows)
        )
    write_table(out, found)
    for path, why in lost[:10]:
        print(f"no reward: {why if path in why else f'{path}: {why}'}", file=sys.stderr)
    if len(lost) > 10:
        print(f"no reward: of {counted(len(lost) - 10, 'picture')} more", file=sys.stderr)
    rows = list(zip(*(found[name].to_pylist() for name in ("direction", "reward")), strict=True))
    for name in ("understanding", "generation"):
        known = [reward for direction, reward in rows if direction == name and reward is not None]
        if known:
            print(f"reward/{name}: mean {sum(known) / len(known):.4f} of {len(known)}")
    print(f"{counted(len(rows), 'row')}: {out}")
    return 0 if any(reward is not None for _, reward in rows) else 1
