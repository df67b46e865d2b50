"""Runs that are killed at random moments, resumed, and must end with the bits of one that was not.

`make chaos` does it 200 times; `test_chaos.py` a few times. Each life of a run ends by one of:

- kill: SIGKILL at a random time; also inside a write, a rename, a sync or a deletion, half done;
- term: SIGTERM at a random time: exit code 0 and a state;
- full: a random write fails for want of space: an error that names it, and nothing left half;
- limit: the same from the system itself: no file may grow beyond a random size.

One process imports everything once and forks the lives.
"""

from __future__ import annotations

import argparse
import collections
import errno
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import suder.storage.files
from suder.guard.rule import Guard
from suder.models import load_model
from suder.pretrain.architecture import Sizes, build_janus
from suder.run.stopping import Stopped
from suder.run.trainer import Trainer
from suder.settings.config_file import load_config
from suder.storage.files import WriteError, read_jsonl
from tests.trainer.families import small_emu3, small_liquid

ENDS = ("kill", "kill inside a write", "term", "full", "limit")
FINISHED, NO_SPACE, FAULT = 42, 28, 70
WORDS = ("a", "red", "blue", "circle", "square", "and", "two")
SIZES = Sizes(
    image=16, patch=8, hidden=32, layers=1, heads=2, mlp=32, vision_hidden=32, vision_layers=1,
    vision_heads=2, codebook=32, vq_multiplier=(1, 1, 1, 1),
)  # fmt: skip
RUNS = (
    ("guard.kl_limit=1e-9", "guard.action=rollback", "guard.max_rollbacks=9"),
    ("guard.kl_limit=100.0", "guard.action=watch", "checkpoint.state_every=3", "seed=4"),
    ("guard.kl_limit=100.0", "guard.action=watch", "objective.name=simpo", "lora.rank=2"),
    ("guard.kl_limit=100.0", "guard.action=watch", "directions=generation"),
)


def make_janus(folder: Path) -> None:
    model, processor = build_janus(WORDS, seed=3, sizes=SIZES)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    lively = load_model(folder)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in lively.trainable_parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    lively.save(folder)


MAKE: dict[str, Callable[[Path], None]] = {
    "janus": make_janus,
    "emu3": lambda folder: small_emu3(image_size=16).save(folder),
    "liquid": lambda folder: small_liquid(image_size=16).save(folder),
}


def make_inputs(folder: Path, family: str) -> None:
    """A random model whose candidates differ in reward, pictures of noise, prompts."""
    MAKE[family](folder / "start")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(5)
    for number in range(12):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:02d}.png")
    prompts = [f"{a} {b} {c}" for a in ("a", "two") for b in WORDS[1:3] for c in WORDS[3:5]]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")


def settings(folder: Path, output: Path, kind: int) -> Any:
    tree = {
        "model": str(folder / "start"),
        "output": str(output),
        "data": {
            "images": str(folder / "pictures"),
            "prompts": str(folder / "prompts.txt"),
            "heldout": 0.25,
        },
        "rounds": 4,
        "inputs_per_round": 3,
        "candidates": 4,
        "sampling": {"max_new_tokens": 6},
        "reward": {"cut_captions": "keep"},  # an untrained model ends few
        "optimizer": {"lr": 0.003, "warmup_rounds": 0},
        "guard": {"every": 2, "samples": 8, "inputs": 4, "patience": 1},
        "checkpoint": {"every": 2},
    }
    return load_config(tree, RUNS[kind])


def result(run: Path) -> tuple[Any, ...]:
    """All that must be the same: weights, checkpoints, the log without its clock, what dropped."""
    names = sorted(str(path.relative_to(run)) for path in run.rglob("model.safetensors"))
    log = [
        {key: value for key, value in row.items() if not key.startswith("seconds")}
        for row in read_jsonl(run / "metrics.jsonl")
    ]
    summary = json.loads((run / "summary.json").read_bytes())
    told = {key: summary[key] for key in ("rounds", "kept_round", "guard", "candidates_dropped")}
    weights = [(run / name).read_bytes() for name in names]
    return names, weights, log, read_jsonl(run / "data" / "dropped.jsonl"), told


def hook_writes(at: int, strike: Callable[[Callable[[], Any]], Any]) -> list[str]:
    """Has `strike(act)` called in place of the write, rename, sync or deletion number `at`.

    Returns a list that grows by the name of each. `act` does half of it where that can be done.
    """
    names: list[str] = []
    files = suder.storage.files

    def hooked(name: str, whole: Callable[..., Any], half: Callable[..., Any]) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            names.append(name)
            if len(names) - 1 == at and (name != "delete" or strike is strike_dead):
                return strike(lambda: half(*arguments, **options))
            return whole(*arguments, **options)

        return call

    write, save, replace, sync, unlink = (
        os.write, files.save_file, os.replace, os.fsync, os.unlink
    )  # fmt: skip

    def half_saved(tensors: Any, path: Any, **options: Any) -> None:
        save(tensors, path, **options)
        os.truncate(path, os.path.getsize(path) // 2)

    def half_text(path: Path, data: bytes) -> int:
        return text(path, data[: len(data) // 2])

    text = Path.write_bytes
    nothing = lambda *_, **__: None  # noqa: E731
    os.write = hooked("append", write, lambda to, data: write(to, bytes(data)[: len(data) // 2]))
    files.save_file = hooked("tensors", save, half_saved)
    Path.write_bytes = hooked("text", text, half_text)  # type: ignore[method-assign]
    os.replace = hooked("rename", replace, nothing)
    os.fsync = hooked("sync", sync, nothing)
    os.unlink = hooked("delete", unlink, nothing)
    return names


def strike_full(act: Callable[[], Any]) -> None:
    act()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def strike_dead(act: Callable[[], Any]) -> None:
    act()
    os.kill(os.getpid(), signal.SIGKILL)


def live(folder: Path, run: Path, kind: int, end: str, chance: random.Random) -> int:
    """A life in this process; its exit code."""
    if end.startswith("make "):
        make_inputs(folder, end.removeprefix("make "))
        return FINISHED
    begun = (run / "config.yaml").exists()
    try:
        if end == "kill inside a write":
            hook_writes(chance.randrange(160), strike_dead)
        elif end == "full":
            hook_writes(chance.randrange(160), strike_full)
        elif end == "limit":
            # The log that this process writes to may be longer than the limit already.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (chance.randrange(100, 400_000), hard))
        config = settings(folder, run, kind)
        (Trainer.resume(run, quiet=True) if begun else Trainer(config, quiet=True)).run()
        return FINISHED
    except Stopped as stopped:
        return stopped.exit_code
    except WriteError as error:
        halves = [str(path) for path in run.rglob("*.partial")]
        if halves or "no space left for" not in str(error):
            raise RuntimeError(f"{halves} left by: {error}") from error
        return NO_SPACE


def fork(folder: Path, run: Path, kind: int, end: str, seed: int, seconds: float) -> int:
    """A life in a child; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code, told = FAULT, os.dup(2)
        faulthandler.dump_traceback_later(60, exit=True)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = live(folder, run, kind, end, random.Random(seed))
        except BaseException:
            import traceback

            os.dup2(told, 2)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            traceback.print_exc()
        finally:
            os._exit(code)
    if end in ("kill", "term"):
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL if end == "kill" else signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def chaos(kills: int, seed: int, folder: Path, family: str) -> dict[str, int]:
    """Runs until `kills` lives have ended before their time; how, and how many runs were equal."""
    chance = random.Random(seed)
    Guard._doubt = lambda *_: ""  # type: ignore[method-assign]  # such a model gives no evidence
    wanted, length = {}, 0.0
    # Not in this process: threads of the libraries' pools would be missing in its children.
    assert fork(folder, folder, 0, f"make {family}", 0, 0.0) == FINISHED
    tally: collections.Counter[str] = collections.Counter()
    number = dead = 0
    while dead < kills:
        kind = number % len(RUNS)
        if kind not in wanted:
            began = time.perf_counter()
            whole = folder / f"whole{kind}"
            assert fork(folder, whole, kind, "", 0, 0.0) == FINISHED
            length, wanted[kind] = time.perf_counter() - began, result(whole)
        run, lives = folder / f"run{number}", 0
        while True:
            end = chance.choice(ENDS) if dead < kills and lives < 12 else ""
            code = fork(folder, run, kind, end, chance.random(), chance.uniform(0, length))
            if code == FINISHED:
                break
            allowed = {
                "kill": (-signal.SIGKILL,),
                "kill inside a write": (-signal.SIGKILL,),
                "term": (0, -signal.SIGTERM),  # -SIGTERM: before the run began
                "full": (NO_SPACE,),
                "limit": (NO_SPACE,),
            }.get(end, ())
            if os.environ.get("CHAOS_SAY"):
                print(number, lives, end, code, flush=True)
            assert code in allowed, f"run {number}, life {lives}, {end}: ended with {code}"
            tally[end] += 1
            dead, lives = dead + 1, lives + 1
        same = result(run) == wanted[kind]
        assert same, f"run {number} ({RUNS[kind]}) ended otherwise; it is in {run}"
        tally["runs equal"] += 1
        shutil.rmtree(run)
        number += 1
    return dict(tally)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=MAKE, default="janus")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    began = time.perf_counter()
    place = Path(tempfile.mkdtemp(prefix="suder-chaos-"))
    told = chaos(args.kills, args.seed, place, args.family)
    shutil.rmtree(place)
    print(json.dumps(told | {"seconds": round(time.perf_counter() - began)}))
    sys.exit(0)
