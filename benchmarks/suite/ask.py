"""The questions of every script, answered: a row a candidate, beside ours in the same rounds."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
# In the order of the page. bench_round and bench_vocabulary have nothing beside them.
SCRIPTS = (
    "linear_logprob",
    "rewards",
    "linear_preference",
    "linear_kl",
    "logits",
    "sample_token",
    "small_ops",
    "sampling",
    "scoring",
)
GPU = "gpu"

# The scripts import one another by their plain names, as `python benchmarks/bench_x.py` finds them.
sys.path.insert(0, str(Path(__file__).parents[1]))


def title(script: str) -> str:
    """What a script measures, by the first sentence of its docstring."""
    said = importlib.import_module(_module(script)).__doc__ or script
    return said.strip().split("\n\n")[0].replace("\n", " ").replace("`", "").rstrip(".:")


def answers(script: str, quick: bool, rounds: int, clock: Callable[[], float]) -> Iterator[Row]:
    """Rows of one script; a candidate that fails has the reason in the place of a time."""
    if script == GPU:
        yield from _on_the_gpu(quick)
        return
    for question in importlib.import_module(_module(script)).questions(quick):
        for row in _answer(question, rounds, clock):
            yield {"script": script, **row}


def _module(script: str) -> str:
    return "benchmarks.gpu.compare" if script == GPU else f"bench_{script}"


def _answer(question: Any, rounds: int, clock: Callable[[], float]) -> Iterator[Row]:
    from bench_linear_preference import extra_memory
    from timing import interleaved

    runnable, failed = {}, {}
    for name, run in question.timed.items():
        try:
            run()
        except Exception as error:  # a peer's own; the others are compared all the same
            lines = str(error).splitlines() or [""]
            failed[name] = f"{type(error).__name__}: {lines[0]}"
        else:
            runnable[name] = _repeated(run, question.calls)
    if question.ours in failed:
        raise RuntimeError(f"{question.case}, {question.ours}: {failed[question.ours]}")
    seconds = interleaved(runnable, rounds, clock)
    for name in question.timed:
        row: Row = {"case": question.case, "name": name, "role": _role(name, question)}
        if name in failed:
            yield row | {"failed": failed[name]}
            continue
        took = seconds[name] / question.calls
        row |= {"ms": took * 1e3, "ratio": seconds[name] / seconds[question.ours]}
        if question.memory:
            try:
                row["mib"] = extra_memory(question.timed[name]) / 2**20
            except OSError:  # a system that does not let a process forget its peak
                row["mib"] = None
        yield row


def _repeated(run: Callable[[], object], calls: int) -> Callable[[], object]:
    return run if calls == 1 else lambda: [run() for _ in range(calls)]


def _role(name: str, question: Any) -> str:
    if name in (question.ours, *question.also_ours):
        return "ours"
    return "limit" if name in question.limits else "peer"


def _on_the_gpu(quick: bool) -> Iterator[Row]:
    """Rows of gpu/compare.py, with ratios to the fastest of our ways instead of a bare product."""
    from benchmarks.gpu import compare

    for n, d, v in ((1024, 2048, 16384),) if quick else compare.SHAPES:
        yield from to_ours(compare.forward(n, d, v))
        if not quick and n * v > 2**27:
            continue  # the textbook's gradients of such logits do not fit everywhere
        yield from to_ours(compare.both(n, d, v))
        yield from to_ours(compare.from_logits(n, v))
    torch.cuda.empty_cache()


def to_ours(found: list[Row]) -> Iterator[Row]:
    """Rows of one task of gpu/compare.py in the form of the others."""
    ours = [row for row in found if row["name"].startswith("ours") and not math.isnan(row["ms"])]
    if not ours:
        raise RuntimeError(f"{found[0]['task']}, {found[0]['shape']}: none of our ways ran")
    best = min(ours, key=lambda row: row["ms"])
    for row in found:
        mine, limit = row["name"].startswith("ours"), row["name"] in ("bare product", "copy")
        given: Row = {
            "script": GPU,
            "case": f"{row['shape']}, bfloat16, {row['task']}",
            "name": row["name"],
            "role": "ours" if mine else "limit" if limit else "peer",
        }
        if math.isnan(row["ms"]):
            yield given | {"failed": "it did not run; the terminal says why"}
        else:
            ratio = row["ms"] / best["ms"]
            yield given | {"ms": row["ms"], "ratio": ratio, "mib": row["memory_mib"]}
