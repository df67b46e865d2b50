"""`suder sample`: pictures of prompts as PNG files or captions of pictures, and a JSONL of them."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from suder.cli.common import add_command, add_device, add_output, add_prompt_options, prompts_of
from suder.storage.shown import counted

SUMMARY = "Draw pictures of prompts, or write captions of pictures."
EXAMPLE = """\
  suder sample --model shapes --prompts prompts.txt --n 4 --output drawn
  suder sample --model shapes --images photos/ --n 4 --output captions
  suder sample --model shapes --images photos/ --n 8 --parquet --output captions
  suder sample --model runs/demo/model --prompts prompts.txt --greedy --output drawn

  DIR/samples.jsonl has a row for each sample, with the log-probability of its tokens;
  `suder score DIR/samples.jsonl` adds the dual rewards. Pictures are DIR/00012_3.png: prompt 12
  (from 0), sample 3; their rows name them from DIR. Rows are written as they are made. Pictures
  that cannot be read and prompts that are too long are left out, and DIR/dropped.jsonl says why.
  With --parquet there is DIR/samples.parquet in the end: rollouts (docs/rollouts.md) without
  rewards, which `suder score` gives them.
"""
AT_ONCE = 256  # samples drawn between two writes, or one input's, and the most a kill can lose
ROWS, DROPPED, PARQUET = "samples.jsonl", "dropped.jsonl", "samples.parquet"
# Rows, each with the picture that it names or None, and the log-probabilities of its tokens.
Samples = list[tuple[dict[str, Any], Any, Any]]
DRAWN = re.compile(r"\d{5,}_\d+\.png(\.partial)?")


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "sample", SUMMARY, EXAMPLE)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--prompts", type=Path, metavar="FILE", help="one a line, - for standard input: draw them"
    )
    inputs.add_argument(
        "--images", type=Path, metavar="PATH", help="a picture or a folder of them: caption them"
    )
    parser.add_argument("--model", default="shapes", help="a folder, a hub id, or `shapes`")
    add_output(parser, required=True, metavar="DIR", help="what is written")
    parser.add_argument(
        "--overwrite", action="store_true", help="DIR holds earlier samples: replace them"
    )
    parser.add_argument(
        "--follow-links", action="store_true", help="also symbolic links out of a folder of images"
    )
    parser.add_argument("--n", type=int, default=1, help="samples of each prompt or picture")
    parser.add_argument(
        "--parquet", action="store_true",
        help=f"also DIR/{PARQUET}, rollouts to score, pair and learn from",
    )  # fmt: skip
    parser.add_argument("--greedy", action="store_true", help="always the most likely token")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=0, help="0: all tokens")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=1.0, help="of drawing; 1: none")
    add_prompt_options(parser)
    parser.add_argument("--seed", type=int, default=0)
    add_device(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    _check_out(args.out, args.overwrite)
    if args.parquet:
        from suder.rollouts.schema import arrow

        arrow("pyarrow.parquet")  # said before any work
    dropped: list[tuple[str, str]] = []
    prompts = _read_prompts(args.prompts, dropped) if args.prompts else []
    files = _find_pictures(args, dropped) if args.images else []
    import torch

    from suder.models import load_model
    from suder.models.unknown import not_known
    from suder.storage.files import append_jsonl, write_jsonl

    dtype = getattr(torch, args.dtype)
    model = load_model(args.model, device=args.device, dtype=dtype, **prompts_of(args))
    if warning := not_known(model, prompts):
        print(f"warning: {warning}", file=sys.stderr)
    drawn = (
        _draw(model, prompts, args, dropped) if prompts else _caption(model, files, args, dropped)
    )
    first = next(drawn, None)  # so that settings that cannot be used leave nothing behind
    if first is None:
        _tell_dropped(dropped)
        print("nothing was sampled: no input is left", file=sys.stderr)
        return 1
    count = 0
    kept: list[tuple[dict[str, Any], Any]] = []
    _begin(args.out)
    for rows in chain([first], drawn):
        for row, picture, logprob in rows:
            if args.parquet:
                kept.append((row, logprob.float().cpu()))
            if picture is not None:
                _save(picture, args.out / row["image"])
            append_jsonl(args.out / ROWS, [row])
        count += len(rows)
    if args.parquet:
        from suder.cli.sampled_rollouts import write_samples

        write_samples(args.out / PARQUET, kept, model, args)
    if dropped:
        write_jsonl(args.out / DROPPED, ({"input": name, "why": why} for name, why in dropped))
        _tell_dropped(dropped)
        print(f"all {len(dropped)} of them: {args.out / DROPPED}", file=sys.stderr)
    kind = "picture" if prompts else "caption"
    print(f"{counted(count, kind)} of {counted(count // args.n, 'input')}: {args.out / ROWS}")
    return 0


def _check_out(out: Path, overwrite: bool) -> None:
    """Before any work: nothing of the user's, and no earlier samples, are written over unasked."""
    if out.is_dir():
        ours = os.path.lexists(out / ROWS)
        if ours and not overwrite:
            raise ValueError(
                f"--output: {out} holds samples already; take another folder, or replace them by "
                "--overwrite"
            )
        if not ours and any(out.iterdir()):
            raise ValueError(f"--output: {out} holds other files; take a new or an empty folder")
    elif os.path.lexists(out):
        raise ValueError(f"--output: {out} is a file; it takes a folder")
    above = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(
            f"--output: {out} cannot be made: {above} is no folder that can be written"
        )


def _begin(out: Path) -> None:
    """The folder, without what an earlier `sample` made."""
    from suder.storage.files import told

    with told(out, 0):
        out.mkdir(parents=True, exist_ok=True)
    for path in out.iterdir():
        if path.name in (ROWS, DROPPED, PARQUET) or (
            DRAWN.fullmatch(path.name) and not path.is_dir()
        ):
            path.unlink()


def _draw(
    model: Any, prompts: list[str], args: argparse.Namespace, dropped: list[tuple[str, str]]
) -> Iterator[Samples]:
    from suder.engine.sampling import sample
    from suder.storage.shown import named

    long = {prompt: why for prompt in prompts if (why := model.too_long("generation", prompt))}
    dropped += [
        (named(prompt), f"too long: {long[prompt]}") for prompt in prompts if prompt in long
    ]
    prompts = [prompt for prompt in prompts if prompt not in long]
    at_once = max(1, AT_ONCE // max(1, args.n))
    for first in range(0, len(prompts), at_once):
        part = prompts[first : first + at_once]
        drawn = sample(model, "generation", part, **_how(args, first), guidance=args.guidance)
        for begin in range(0, len(drawn.tokens), AT_ONCE):
            rows = []
            pictures = model.decode(drawn.tokens[begin : begin + AT_ONCE]).cpu().numpy()
            for i, picture in enumerate(pictures, begin):
                number, which = first + i // args.n, i % args.n
                row = {
                    "prompt": prompts[number],
                    "image": f"{number:05d}_{which}.png",
                    "logprob": drawn.logprob[i].sum().item(),
                    "tokens": drawn.tokens[i].tolist(),
                }
                rows.append((row, picture, drawn.logprob[i]))
            yield rows


def _caption(
    model: Any, files: list[Path], args: argparse.Namespace, dropped: list[tuple[str, str]]
) -> Iterator[Samples]:
    from suder.engine.sampling import sample
    from suder.method.conditions import read_conditions

    at_once = max(1, AT_ONCE // max(1, args.n))
    first = 0  # of the pictures that can be read
    for start in range(0, len(files), at_once):
        part = [str(file) for file in files[start : start + at_once]]
        names, pixels, lost = read_conditions(model, "understanding", part)
        dropped += lost
        if not names:
            continue
        written = sample(
            model,
            "understanding",
            pixels,
            **_how(args, first),
            max_new_tokens=args.max_new_tokens,
        )
        first += len(names)
        captions = model.detokenize(written.tokens)
        rows = []
        for i, caption in enumerate(captions):
            row = {
                "image": os.path.abspath(names[i // args.n]),
                "caption": caption,
                "logprob": written.logprob[i].sum().item(),
                "tokens": written.tokens[i].tolist(),
                "finished": bool(written.finished[i]),
            }
            rows.append((row, None, written.logprob[i]))
        yield rows


def _how(args: argparse.Namespace, first: int) -> dict[str, Any]:
    return {
        "n": args.n,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "greedy": args.greedy,
        "seed": args.seed,
        "first": first,
        "progress": True,
    }


def _read_prompts(file: Path, dropped: list[tuple[str, str]]) -> list[str]:
    from suder.inputs.texts import read_prompts

    prompts, blank = read_prompts(file)
    if not prompts:
        raise ValueError(f"--prompts: {file} has no prompt in it; it takes one a line")
    dropped += [(f"{file}:{number}", why) for number, why in blank]
    return prompts


def _find_pictures(args: argparse.Namespace, dropped: list[tuple[str, str]]) -> list[Path]:
    from suder.inputs.pictures import PICTURE_ENDINGS, find_pictures
    from suder.storage.shown import named

    path: Path = args.images
    if not path.is_dir():
        if not path.exists():
            raise ValueError(f"--images: no picture or folder {named(path)}")
        return [path]
    files, skipped = find_pictures(path, args.follow_links)
    dropped += skipped
    if not files:
        raise ValueError(
            f"--images: no picture in {named(path)}; looked for {', '.join(PICTURE_ENDINGS)}"
            + "".join(f"; {name}: {why}" for name, why in skipped[:3])
        )
    return files


def _tell_dropped(dropped: list[tuple[str, str]]) -> None:
    from suder.storage.shown import named

    for name, why in dropped[:10]:
        # A reader's reason names the picture itself.
        told = why if named(name) in why else f"{named(name)}: {why}"
        print(f"left out: {told}", file=sys.stderr)
    if len(dropped) > 10:
        print(f"left out: {len(dropped) - 10} more", file=sys.stderr)


def _save(picture: Any, file: Path) -> None:
    from PIL import Image

    from suder.storage.files import whole

    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    with whole(file, data.tell(), durable=False) as partial:
        partial.write_bytes(data.getbuffer())
