"""Images a second of `suder.sample` and of transformers' `generate`, on the same model.

    python benchmarks/bench_sampling.py                      the embedded model, 8 images a prompt
    python benchmarks/bench_sampling.py --model PATH --n 16 --prompts 4 --threads 2
    python benchmarks/bench_sampling.py --random             an untrained model of the same sizes

Both draw `n` images for each prompt at temperature 1; `generate` is given all prompts left-padded
in one batch and `num_return_sequences`, which is how its users ask for several. It cannot draw
without guidance (it fails at scale 1), so the comparison at equal work is guidance 2; without
guidance only ours runs. Runs are interleaved, after one of each to warm up; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from timing import Question

from suder.engine.sampling import sample
from suder.models import Janus, load_model
from suder.models.janus.layout import generation_ids
from suder.pretrain.architecture import build_janus

PROMPTS = [
    "a red circle",
    "two blue squares",
    "a green triangle left of a red square",
    "a yellow circle and a blue triangle",
]


def theirs(model: Janus, prompts: list[str], n: int, guidance: float) -> torch.Tensor:
    """transformers' `generate` in image mode; the prompts left-padded, as its processor does."""
    ids = [generation_ids(model.processor, prompt) for prompt in prompts]
    longest = max(map(len, ids))
    pad = model.processor.tokenizer.pad_token_id
    rows = [torch.cat([torch.full((longest - len(row),), pad), row]) for row in ids]
    kept = [torch.arange(longest) >= longest - len(row) for row in ids]
    drawn: Any = model.core.generate(
        torch.stack(rows).to(model.device),
        attention_mask=torch.stack(kept).long().to(model.device),
        generation_mode="image",
        do_sample=True,
        guidance_scale=guidance,
        num_return_sequences=n,
    )
    return drawn


def timed(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def questions(quick: bool) -> Iterator[Question]:
    """The embedded model at guidance 2; see timing.py."""
    model, n = load_model("shapes"), 2 if quick else 8
    timed: dict[str, Callable[[], object]] = {
        "suder": lambda: sample(model, "generation", PROMPTS[:1], n, guidance=2.0),
        "transformers generate": lambda: theirs(model, PROMPTS[:1], n, 2.0),
    }
    yield Question(f"{n} pictures of a prompt, 2.2 M parameters, float32", timed, "suder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--random", action="store_true", help="an untrained model of those sizes")
    parser.add_argument("--n", type=int, default=8, help="images a prompt")
    parser.add_argument("--prompts", type=int, default=1, help="prompts in a batch")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    if args.random:
        words = sorted({word for prompt in PROMPTS for word in prompt.split()})
        model = Janus(*build_janus(words, seed=0)).to(args.device, getattr(torch, args.dtype))
    else:
        model = load_model(args.model, args.device, getattr(torch, args.dtype))
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(args.prompts)]
    runs: dict[str, Callable[[], object]] = {
        "generate": lambda: theirs(model, prompts, args.n, args.guidance),
        "suder": lambda: sample(model, "generation", prompts, args.n, guidance=args.guidance),
        "suder, no guidance": lambda: sample(model, "generation", prompts, args.n),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(args.repeats + 1):
        for name, run in runs.items():
            took = timed(run, model.device)
            if repeat:
                seconds[name].append(took)

    images = args.n * len(prompts)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{platform.processor() or platform.machine()}, {args.threads} threads, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, python "
        f"{sys.version.split()[0]}; {len(prompts)} prompts x {args.n}, guidance {args.guidance:g}, "
        f"{args.dtype}, median of {args.repeats}"
    )
    print(f"{'':20} {'ms':>8} {'images/s':>9} {'x':>6}")
    for name, median in medians.items():
        ratio = medians["generate"] / median
        print(f"{name:20} {1e3 * median:8.1f} {images / median:9.1f} {ratio:6.2f}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"seconds": seconds, "medians": medians, "images": images}, file, indent=1)


if __name__ == "__main__":
    main()
