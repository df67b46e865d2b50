"""`suder sample`: pictures of prompts as PNG files or captions of pictures, and a JSONL of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suder.cli.common import add_command

SUMMARY = "Draw pictures of prompts, or write captions of pictures."
EXAMPLE = """\
  suder sample --model shapes --prompts prompts.txt --n 4 --out drawn
  suder sample --model shapes --images photos/ --n 4 --out captions
  suder sample --model runs/demo/model --prompts prompts.txt --greedy --out drawn

  DIR/samples.jsonl has a row for each sample, with the log-probability of its tokens;
  `suder score DIR/samples.jsonl` adds the dual rewards. Pictures are DIR/00012_3.png: prompt 12
  (from 0), sample 3.
"""
# Conditions handled at once: bounds the memory, and how much a kill can lose.
AT_ONCE = 256


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "sample", SUMMARY, EXAMPLE)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt a line: draw them")
    inputs.add_argument(
        "--images", type=Path, metavar="PATH", help="a picture or a folder of them: caption them"
    )
    parser.add_argument("--model", default="shapes", help="a folder, a hub id, or `shapes`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="what is written")
    parser.add_argument("--n", type=int, default=1, help="samples of each prompt or picture")
    parser.add_argument("--greedy", action="store_true", help="always the most likely token")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=0, help="0: all tokens")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=1.0, help="of drawing; 1: none")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="longest caption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser


def run(args: argparse.Namespace) -> int:
    prompts = _read_prompts(args.prompts) if args.prompts else []
    files = _find_pictures(args.images) if args.images else []
    import torch

    from suder.models import load_model
    from suder.storage.files import write_jsonl

    model = load_model(args.model, device=args.device, dtype=getattr(torch, args.dtype))
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [*_draw(model, prompts, args), *_caption(model, files, args)]
    write_jsonl(args.out / "samples.jsonl", rows)
    kind = "pictures" if prompts else "captions"
    print(f"{len(rows)} {kind} of {len(prompts or files)} inputs: {args.out / 'samples.jsonl'}")
    return 0


def _draw(model: Any, prompts: list[str], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from suder.engine.sampling import sample

    for first in range(0, len(prompts), AT_ONCE):
        part = prompts[first : first + AT_ONCE]
        drawn = sample(model, "generation", part, **_how(args, first), guidance=args.guidance)
        pictures = model.decode(drawn.tokens).cpu().numpy()
        for i, picture in enumerate(pictures):
            number, which = first + i // args.n, i % args.n
            file = args.out / f"{number:05d}_{which}.png"
            _save(picture, file)
            yield {
                "prompt": prompts[number],
                "image": str(file),
                "logprob": drawn.logprob[i].sum().item(),
                "tokens": drawn.tokens[i].tolist(),
            }


def _caption(model: Any, files: list[Path], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from suder.engine.sampling import sample
    from suder.inputs.pictures import load_picture

    for first in range(0, len(files), AT_ONCE):
        part = files[first : first + AT_ONCE]
        pixels = model.pixels([load_picture(file) for file in part])
        written = sample(
            model,
            "understanding",
            pixels,
            **_how(args, first),
            max_new_tokens=args.max_new_tokens,
        )
        captions = model.detokenize(written.tokens)
        for i, caption in enumerate(captions):
            yield {
                "image": str(part[i // args.n]),
                "caption": caption,
                "logprob": written.logprob[i].sum().item(),
                "tokens": written.tokens[i].tolist(),
                "finished": bool(written.finished[i]),
            }


def _how(args: argparse.Namespace, first: int) -> dict[str, Any]:
    from suder.storage.files import seed_of

    return {
        "n": args.n,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "greedy": args.greedy,
        # The first inputs' samples are those of `suder.sample` with this seed.
        "seed": args.seed if first == 0 else seed_of(args.seed, first),
        "progress": True,
    }


def _read_prompts(file: Path) -> list[str]:
    from suder.inputs.texts import read_lines

    lines = read_lines(file)
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"--prompts: {file} has no prompt in it; it takes one a line")
    if len(prompts) < len(lines):
        print(f"{len(lines) - len(prompts)} blank lines of {file} left out")
    return prompts


def _find_pictures(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    from suder.inputs.pictures import PICTURE_ENDINGS, find_pictures

    files = find_pictures(path)
    if not files:
        raise ValueError(f"--images: no picture in {path}; looked for {', '.join(PICTURE_ENDINGS)}")
    return files


def _save(picture: Any, file: Path) -> None:
    from PIL import Image

    partial = file.with_name(file.name + ".partial")
    Image.fromarray(picture).save(partial, format="PNG")
    os.replace(partial, file)
