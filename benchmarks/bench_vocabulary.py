"""Captions a second of `suder.sample` with a large vocabulary and a small model, and page faults.

    python benchmarks/bench_vocabulary.py                  129,000 tokens, 9 M parameters
    python benchmarks/bench_vocabulary.py --words 16000 --n 8 --threads 2

Logits of 129,000 tokens are 0.5 MB a candidate: a sampler that holds them allocates, writes and
scans tens of megabytes at every step, which the system maps anew each time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import torch

from suder.engine.sampling import sample
from suder.models import Janus
from suder.pretrain.architecture import Sizes, build_janus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=129_000)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--n", type=int, default=8, help="captions of each")
    parser.add_argument("--steps", type=int, default=16, help="longest caption")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    words = [f"w{number}" for number in range(args.words)]
    sizes = Sizes(hidden=args.hidden, heads=2, layers=2, mlp=64, vision_hidden=32, vision_heads=2)
    model = Janus(*build_janus(words, seed=0, sizes=sizes))
    rng = np.random.default_rng(0)
    pixels = model.pixels(rng.integers(0, 256, (args.pictures, 32, 32, 3), dtype=np.uint8))
    seconds, system, faults = [], [], []
    for repeat in range(args.repeats + 1):
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        sample(
            model, "understanding", pixels, args.n, max_new_tokens=args.steps, seed=repeat,
            top_k=args.top_k, top_p=args.top_p,
        )  # fmt: skip
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        if repeat:
            seconds.append(took)
            system.append(after.ru_stime - before.ru_stime)
            faults.append(after.ru_minflt - before.ru_minflt)
    count = sum(weight.numel() for weight in model.parameters())
    print(
        f"{args.words} words, {count / 1e6:.1f} M parameters, {args.pictures} pictures x {args.n}, "
        f"{args.steps} tokens, {args.threads} threads, median of {args.repeats}:"
    )
    median = statistics.median(seconds)
    print(
        f"{median:.3f} s ({args.pictures * args.n / median:.1f} captions a second), of the system "
        f"{statistics.median(system):.3f} s, {statistics.median(faults):.0f} page faults"
    )


if __name__ == "__main__":
    main()
