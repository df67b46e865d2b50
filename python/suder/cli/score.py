"""`suder score`: dual rewards of captions and of drawn pictures, row by row."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suder.cli.common import add_command

SUMMARY = "Dual rewards: how likely the model finds the input again from the answer."
EXAMPLE = """\
  suder score drawn/samples.jsonl --model shapes
  suder score pairs.jsonl --model shapes --out scored.jsonl

  Rows of the file, one JSON object a line; other keys are kept:
    {"image": "a.png", "caption": "a red circle"}   scored as a caption of the picture,
                                                    mean log p(picture's tokens | caption)
    {"prompt": "a red circle", "image": "b.png"}    scored as a picture of the prompt,
                                                    mean log p(prompt's tokens | picture)
  A picture's path is taken from where you are, or else from the file's folder. Rewards compare
  answers to one input; between inputs they also say how likely the input is.
"""
AT_ONCE = 512  # rows between two moves of the bar


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "score", SUMMARY, EXAMPLE)
    parser.add_argument("rows", type=Path, help="a JSONL file of pictures and texts")
    parser.add_argument("--model", default="shapes", help="a folder, a hub id, or `shapes`")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: ROWS with .scored before its suffix"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="pairs in one pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser


def run(args: argparse.Namespace) -> int:
    rows = _read_rows(args.rows)
    import torch
    from rich.progress import Progress

    from suder.method.rewards import DualReward
    from suder.models import load_model
    from suder.storage.files import write_jsonl

    model = load_model(args.model, device=args.device, dtype=getattr(torch, args.dtype))
    scorer = DualReward(model, batch_size=args.batch_size)
    with Progress(transient=True) as bar:
        task = bar.add_task("scoring", total=len(rows))
        for first in range(0, len(rows), AT_ONCE):
            part = rows[first : first + AT_ONCE]
            _score(scorer, part, args.rows.parent)
            bar.advance(task, len(part))
    out = args.out or args.rows.with_suffix(".scored" + args.rows.suffix)
    write_jsonl(out, rows)
    _tell(rows, out)
    return 0


def _score(scorer: Any, rows: list[dict[str, Any]], folder: Path) -> None:
    """Gives every row its "reward"; null, with an "error", where there is none."""
    from suder.inputs.pictures import DataError, load_picture

    pictures: list[Any] = []
    for row in rows:
        row["reward"] = None
        try:
            pictures.append(load_picture(_found(row["image"], folder)))
        except DataError as error:
            pictures.append(None)
            row["error"] = str(error)
    for key, score in (
        ("caption", lambda texts, shown: scorer.understanding(shown, texts)),
        ("prompt", scorer.generation),
    ):
        asked = [i for i, row in enumerate(rows) if key in row and pictures[i] is not None]
        texts = [rows[i][key] for i in asked]
        if not asked:
            continue
        for i, reward in zip(
            asked, score(texts, [pictures[i] for i in asked]).tolist(), strict=True
        ):
            if reward == reward:
                rows[i]["reward"] = reward
            else:
                rows[i]["error"] = f"empty {key}" if not texts[asked.index(i)].strip() else "NaN"


def _found(image: str, folder: Path) -> Path:
    path = Path(image)
    return path if path.exists() else folder / image


def _read_rows(file: Path) -> list[dict[str, Any]]:
    from suder.inputs.texts import read_rows

    rows = []
    for number, row in read_rows(file):
        keys = row.keys() if isinstance(row, dict) else set()
        if "image" not in keys or len(keys & {"caption", "prompt"}) != 1:
            raise ValueError(
                f'{file}, line {number}: takes an object with "image" and one of "caption" and '
                f'"prompt"; got {json.dumps(row)[:80]}'
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{file}: no rows in it")
    return rows


def _tell(rows: Sequence[dict[str, Any]], out: Path) -> None:
    for key, name in (("caption", "understanding"), ("prompt", "generation")):
        rewards = [row["reward"] for row in rows if key in row and row["reward"] is not None]
        if rewards:
            mean = sum(rewards) / len(rewards)
            print(f"reward/{name}: mean {mean:.4f} of {len(rewards)}")
    unscored = [row for row in rows if row["reward"] is None]
    for row in unscored[:10]:
        print(f"no reward: {row['error']}", file=sys.stderr)
    if len(unscored) > 10:
        print(f"no reward: {len(unscored) - 10} rows more", file=sys.stderr)
    print(f"{len(rows)} rows: {out}")
