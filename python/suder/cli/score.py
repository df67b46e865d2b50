"""`suder score`: dual rewards of captions and of drawn pictures, row by row."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from suder.cli.common import add_command, add_device, add_output, add_prompt_options, prompts_of
from suder.cli.score_rollouts import score_rollouts
from suder.storage.shown import counted

SUMMARY = "Dual rewards: how likely the model finds the input again from the answer."
EXAMPLE = """\
  suder score drawn/samples.jsonl --model shapes
  suder score pairs.jsonl --model shapes --output scored.jsonl
  suder score runs/mine/rollouts --model other/model --drawn-by shapes --output other.parquet

  Rows of the file, one JSON object a line; other keys are kept:
    {"image": "a.png", "caption": "a red circle"}   scored as a caption of the picture,
                                                    mean log p(picture's tokens | caption)
    {"prompt": "a red circle", "image": "b.png"}    scored as a picture of the prompt,
                                                    mean log p(prompt's tokens | picture)
  A picture's path is taken from the file's folder. One that the model drew itself, by a row of
  `suder sample`, is read as the row's "tokens" where the model reads those (Emu3, Liquid).
  A row that cannot be scored has "reward": null and an "error"; the exit code is 1 if there is no
  other. Rows are written as they are scored.
  Of rollouts (a Parquet file, or a folder of them; docs/rollouts.md) all rows are written again:
  `reward`, `advantage` and `valid` are new, the reward before is `earlier_reward`.
  Rewards compare answers to one input; between inputs they also say how likely the input is.
"""
AT_ONCE = 256  # rows scored between two writes, and the most that a kill can lose
MAX_HELD = 1 << 28  # bytes of pictures held at once
Row = dict[str, Any]


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "score", SUMMARY, EXAMPLE)
    parser.add_argument("rows", type=Path, help="a JSONL file of pictures and texts, or rollouts")
    parser.add_argument("--model", default="shapes", help="a folder, a hub id, or `shapes`")
    add_output(parser, metavar="FILE", help="default: ROWS with .scored before its suffix")
    parser.add_argument("--overwrite", action="store_true", help="FILE is there: replace it")
    parser.add_argument(
        "--drawn-by", metavar="M",
        help="of rollouts: the model that drew, where the scoring one has other picture tokens",
    )  # fmt: skip
    add_prompt_options(parser, drawing=False)
    parser.add_argument("--batch-size", type=int, default=128, help="pairs in one pass")
    add_device(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if args.rows.suffix == ".parquet" or args.rows.is_dir():
        return score_rollouts(args)
    if args.drawn_by:
        raise ValueError("--drawn-by is of rollouts (Parquet); rows of JSON name pictures")
    rows = _read_rows(args.rows)
    out = args.out or args.rows.with_suffix(".scored" + args.rows.suffix)
    _check_out(out, args.rows, args.overwrite)
    import torch
    from rich.progress import Progress

    from suder.method.rewards import DualReward
    from suder.models import load_model
    from suder.storage.files import append_jsonl

    dtype = getattr(torch, args.dtype)
    model = load_model(args.model, device=args.device, dtype=dtype, **prompts_of(args))
    scorer = DualReward(model, batch_size=args.batch_size)
    if os.path.lexists(out):
        out.unlink()  # a link, and not what it leads to
    append_jsonl(out, ())  # what cannot be written is said before any work
    with Progress(transient=True) as bar:
        task = bar.add_task("scoring", total=len(rows))
        for part, pictures in _with_pictures(rows, args.rows.parent, model.background):
            _score(scorer, part, pictures)
            append_jsonl(out, part)
            bar.advance(task, len(part))
    return _tell(rows, out)


def _read_rows(file: Path) -> list[Row]:
    """Every line as a row with a "reward", null for now, and an "error" if it is none."""
    from suder.inputs.texts import read_rows

    rows: list[Row] = []
    for number, value in read_rows(file):
        row = value if isinstance(value, dict) else {"line": number}
        row.pop("error", None)
        row["reward"] = None
        if isinstance(value, ValueError):
            row["error"] = f"{file}, {value}"
        elif why := _not_a_row(value):
            row["error"] = f"{file}, line {number}: {why}"
        rows.append(row)
    if not rows:
        raise ValueError(f"{file}: no rows in it")
    if all("error" in row for row in rows):
        raise ValueError(rows[0]["error"])
    return rows


def _not_a_row(value: Any) -> str:
    keys = value.keys() if isinstance(value, dict) else set()
    texts = keys & {"caption", "prompt"}
    if "image" not in keys or len(texts) != 1:
        got = json.dumps(value)[:80]
        return f'takes an object with "image" and one of "caption" and "prompt"; got {got}'
    for key in ("image", *texts):
        if not isinstance(value[key], str):
            return f'"{key}" takes a text, got {json.dumps(value[key])[:80]}'
    return ""


def _check_out(out: Path, rows: Path, overwrite: bool) -> None:
    """Before any work: what would fail at its end, and what must not be written over."""
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise ValueError(f"--output: {out.parent} is no folder that can be written")
    if not os.path.lexists(out):
        return
    if out.exists() and out.samefile(rows):
        raise ValueError(f"--output: {out} holds the rows to score; take another file")
    if not out.is_file():
        raise ValueError(f"--output: {out} is not a regular file")
    if not overwrite:
        raise ValueError(
            f"--output: {out} is there already; take another file, or replace it by --overwrite"
        )


def _with_pictures(
    rows: list[Row], folder: Path, background: tuple[int, int, int]
) -> Iterator[tuple[list[Row], list[Any]]]:
    """Rows and their pictures, None where there is none, so many as can be held at once."""
    from suder.inputs.files import DataError
    from suder.inputs.pictures import load_picture

    part: list[Row] = []
    pictures: list[Any] = []
    held = 0
    for row in rows:
        picture = None
        if "error" not in row:
            try:
                picture = load_picture(folder / row["image"], background)
                held += picture.nbytes
            except DataError as error:
                row["error"] = str(error)
        part.append(row)
        pictures.append(picture)
        if len(part) == AT_ONCE or held > MAX_HELD:
            yield part, pictures
            part, pictures, held = [], [], 0
    if part:
        yield part, pictures


def _score(scorer: Any, rows: list[Row], pictures: list[Any]) -> None:
    """Gives every row its "reward"; null, with an "error", where there is none."""
    from suder.cli.drawn import as_tokens

    for key, runs, score in (
        ("caption", "generation", lambda texts, seen: scorer.understanding(seen, texts)),
        ("prompt", "understanding", scorer.generation),
    ):
        asked = [i for i, seen in enumerate(pictures) if seen is not None and key in rows[i]]
        if not asked:
            continue
        seen: Any = [pictures[i] for i in asked]
        if key == "prompt" and scorer.model.reads_tokens:
            seen = as_tokens(scorer.model, seen, [rows[i].get("tokens") for i in asked])
        rewards = score([rows[i][key] for i in asked], seen)
        for i, reward in zip(asked, rewards.tolist(), strict=True):
            if math.isfinite(reward):
                rows[i]["reward"] = reward
            else:
                rows[i]["error"] = _why_none(scorer.model, key, runs, rows[i][key])


def _why_none(model: Any, key: str, runs: Any, text: str) -> str:
    from suder.models.base import name_of
    from suder.storage.shown import named

    if not text.strip():
        return f"empty {key}"
    if why := model.too_long(runs, text):
        return f"{key} {named(text)}: too long: {why}"
    return (
        f"{key} {named(text)}: a reward that is not finite, by {name_of(model)}; its weights hold "
        "NaN or infinity, or overflow in this dtype"
    )


def _tell(rows: Sequence[Row], out: Path) -> int:
    for key, name in (("caption", "understanding"), ("prompt", "generation")):
        rewards = [row["reward"] for row in rows if key in row and row["reward"] is not None]
        if rewards:
            mean = sum(rewards) / len(rewards)
            print(f"reward/{name}: mean {mean:.4f} of {len(rewards)}")
    unscored = [row for row in rows if row["reward"] is None]
    for row in unscored[:10]:
        print(f"no reward: {row['error']}", file=sys.stderr)
    if len(unscored) > 10:
        print(f"no reward: {counted(len(unscored) - 10, 'row')} more", file=sys.stderr)
    print(f"{counted(len(rows), 'row')}: {out}")
    return 0 if len(unscored) < len(rows) else 1
