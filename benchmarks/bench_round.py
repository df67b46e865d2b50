"""Seconds of a round of the trainer, phase by phase, and how far each is from the machine's limit.

    python benchmarks/bench_round.py --shape tiny --device cpu
    python benchmarks/bench_round.py --shape 1b --device cuda                 full fine-tuning
    python benchmarks/bench_round.py --shape 7b --device cuda --lora 32 --checkpoint-activations
    python benchmarks/bench_round.py --shape 1b --device cuda --only sample,score --inputs 4

"1b" and "7b" have random weights of Janus-Pro's published sizes, made on the device; "tiny" is the
embedded model. Phases are the trainer's own functions. The first round warms up and is not counted
(recorded steps, libraries), except with --rounds 0. "limit" is what the phase's bytes and products,
counted from the config (rounds/counts.py), take at the bandwidth of a copy and at the rate of a
large product, both measured here and now; a phase at 60% takes 1.67 times its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
from typing import Any

import torch
import transformers
from rounds.generate import beside
from rounds.machine import measured, peak_memory, wait
from rounds.phases import Phase, Round
from rounds.shapes import SHAPES, build
from rounds.work import Machine, totals
from timing import add_arguments, clock_of, processor, write_record

from suder.models.usable import check_device
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config

PARTS = ("sample", "decode", "score", "optimise", "generate")


def settings(args: argparse.Namespace) -> TrainConfig:
    tree: dict[str, Any] = {
        "output": "nowhere",
        "data": {"images": "nowhere", "prompts": "nowhere"},
        "inputs_per_round": args.inputs,
        "candidates": args.candidates,
        "directions": args.directions,
        "sampling": {"guidance": args.guidance, "max_new_tokens": args.max_new_tokens},
        "optimizer": {
            "tokens_per_batch": args.tokens_per_batch,
            "checkpoint_activations": args.checkpoint_activations,
            "offload": args.offload,
        },
        "lora": {"rank": args.lora},
        "dtype": args.dtype,
        "device": args.device,
    }
    return load_config(tree, args.set)


def timed(
    phase: Phase, machine: Machine, device: torch.device, args: argparse.Namespace
) -> dict[str, Any]:
    """Medians over the rounds, after one that is not counted."""
    clock, seconds = clock_of(args), []
    for number in range(args.rounds + 1):
        with peak_memory(device) as peak:
            wait(device)
            begin = clock()
            phase.run()
            wait(device)
            took = clock() - begin
        if number or not args.rounds:
            seconds.append(took)
    least = phase.least()
    moved, operations = totals(least)
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "phase": phase.name,
        "seconds": median,
        "limit": machine.seconds(least),
        "bytes": moved,
        "operations": operations,
        "peak_bytes": peak[0] if peak else None,
        "pictures": phase.pictures,
        "in_round": phase.in_round,
    }


def line(row: dict[str, Any]) -> str:
    peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:9.2f} GiB"
    return (
        f"{row['phase']:20}{row['seconds']:10.3f} s{row['pictures'] / row['seconds']:10.2f} /s"
        f"{row['limit']:10.3f} s{100 * row['limit'] / row['seconds']:7.1f}%"
        f"{row['bytes'] / 1e9:10.1f} GB{row['operations'] / 1e12:9.2f} T{peak}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of products, as in a run")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--inputs", type=int, default=12, help="of each direction")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--directions", default="joint")
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--tokens-per-batch", type=int, default=16384)
    parser.add_argument("--lora", type=int, default=0, metavar="RANK")
    parser.add_argument("--checkpoint-activations", action="store_true")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], help="further settings, as of suder train")
    add_arguments(parser, rounds=1)
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only: no part is called {', '.join(sorted(unknown))}; {', '.join(PARTS)}")
    try:
        check_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    device = torch.device(args.device)
    args.dtype = args.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    torch.set_num_threads(args.threads)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    machine = measured(device, name, clock_of(args))
    rates = ", ".join(f"{rate / 1e12:.3g} {key}" for key, rate in machine.products.items())
    print(
        f"{name}, {args.threads} threads, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, python {platform.python_version()}\ncopy "
        f"{machine.copy / 1e9:.1f} GB/s, products {rates.replace('torch.', '')} TFLOP/s"
    )
    config = settings(args)
    compute = torch.bfloat16 if args.dtype == "bfloat16" else None
    model, words = build(args.shape, args.device, compute)
    one = Round(model, config, words, args.shape)
    print(
        f"{args.shape}, {args.dtype}: {args.inputs} inputs x {args.candidates} candidates, "
        f"guidance {args.guidance:g}, {'LoRA ' + str(args.lora) if args.lora else 'all weights'}"
    )
    print(f"{'':20}{'time':>12}{'pictures':>13}{'limit':>12}{'':8}{'bytes':>13}{'products':>11}")
    rows: list[dict[str, Any]] = []
    for phase in one.phases():
        # Later phases need what earlier ones have left.
        if phase.name.split()[0] in wanted:
            rows.append(timed(phase, machine, device, args))
            print(line(rows[-1]), flush=True)
        elif phase.in_round:
            with contextlib.suppress(KeyError):
                phase.run()
    counted = [row for row in rows if row["in_round"]]
    total = {key: sum(row[key] for row in counted) for key in ("seconds", "limit")}
    if counted:
        print(
            f"a round: {total['seconds']:.3f} s, limit {total['limit']:.3f} s "
            f"({', '.join(row['phase'] for row in counted)})"
        )
    if "generate" in wanted:
        print(*beside(model, one.given["understanding"][:2], one.given["generation"][:2],
                      args.guidance), sep="\n")  # fmt: skip
    write_record(args, rows)


if __name__ == "__main__":
    main()
