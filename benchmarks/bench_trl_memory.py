"""Memory of TRL's log-probability path, its own and ours (`suder_ext.integrations.trl.patch`).

A step is what GRPOTrainer and DPOTrainer do with a model: forward to log p of every token, and
backward. Each candidate is a process of its own, whose peak of resident memory over the step counts
above what model, gradients and inputs took before it; "logits" is the same without TRL's head.

    python benchmarks/bench_trl_memory.py --json benchmarks/results/trl_memory.json

prints, a vocabulary and dtype: MiB and seconds of each. Needs `pip install 'trl==1.16.*'`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings

import torch
from bench_linear_preference import extra_memory
from timing import add_arguments, write_record

CANDIDATES = ("logits", "TRL", "ours")


def measure(candidate: str, vocabulary: int, args: argparse.Namespace) -> dict[str, float]:
    """One candidate's step, in this process: it never did another."""
    warnings.simplefilter("ignore")
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from suder_ext.integrations.trl import patch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=args.width,
        intermediate_size=args.width,
        num_hidden_layers=1,
        num_attention_heads=8,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, args.dtypes[0]))
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    ids = torch.randint(vocabulary, tuple(args.batch))
    if candidate == "ours":
        patch()
    if candidate != "logits":
        add_fused_lm_head(model)

    def step() -> None:
        if candidate == "logits":
            logits = model(input_ids=ids[:, :-1]).logits
            logprob = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])
        else:
            logprob = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs
        logprob.sum().backward()

    started = time.perf_counter()
    extra = extra_memory(step)
    return {"extra_mib": extra / 2**20, "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[32_000, 152_064])
    parser.add_argument("--batch", nargs=2, type=int, default=[2, 512], help="sequences and tokens")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the process that measures
    add_arguments(parser, rounds=1)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.vocabularies[0], args)))
        return
    rows = []
    for vocabulary in args.vocabularies:
        for dtype in args.dtypes:
            print(
                f"{args.batch[0]} x {args.batch[1]} tokens, {args.width} wide, "
                f"{vocabulary} entries, {dtype}"
            )
            for name in CANDIDATES:
                command = [sys.executable, __file__, "--only", name, "--dtypes", dtype]
                command += ["--vocabularies", str(vocabulary), "--width", str(args.width)]
                command += ["--threads", str(args.threads), "--batch", *map(str, args.batch)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found = json.loads(done.stdout)
                print(f"    {name:<8}{found['extra_mib']:8.0f} MiB {found['seconds']:8.1f} s")
                shape = {"batch": args.batch, "width": args.width, "vocab": vocabulary}
                rows.append(shape | {"dtype": dtype, "name": name} | found)
    write_record(args, rows)


if __name__ == "__main__":
    main()
