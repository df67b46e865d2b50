"""The main job from end to end, on inputs written and read back as a user's would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from suder.evaluation.side_by_side import judge_run
from suder.experiment.inputs import write_inputs
from suder.experiment.plan import merge
from suder.report import write_report
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config
from suder.storage.files import read_object
from suder.storage.folders import claim, sole_writer
from suder.storage.shown import counted

PICTURES = PROMPTS = 512
N = 1000
QUICK_ROUNDS, QUICK_N = 12, 120
# A look costs as much as a round, so a run of a few rounds takes small ones.
_QUICK: dict[str, Any] = {
    "guard": {"every": 4, "inputs": 32},
    "optimizer": {"warmup_rounds": 2, "ema": 0.8},
}


class DemoError(ValueError):
    """A folder that cannot be used for the demo asked for."""


def run_demo(
    out: Path,
    *,
    model: str = "shapes",
    rounds: int | None = None,
    quick: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write inputs, improve the model, judge base and tuned, report; returns the summary.

    Every step leaves its files under `out` and is not done again, so a demo that was cut off goes
    on where it stopped.

    Raises:
        DemoError: `out` holds a run of other settings.
        FolderError: `out` is not empty and not of a demo.
    """
    out = out.resolve()
    config = demo_config(out, model, rounds, quick, seed)
    claim(out)
    _check_same(out, config)
    say(f"inputs: {PICTURES} pictures and {PROMPTS} prompts, nothing relates them: {out}/inputs")
    with sole_writer(out):
        write_inputs(out / "inputs", pictures=PICTURES, prompt_count=PROMPTS)
    _train(out, config, say)
    n = QUICK_N if quick else N
    say(f"judging the start model and the result on {n} unseen prompts and {n} unseen pictures")
    summary = judge_run(out, n=n, reuse=True)
    write_report(out)
    return summary


def demo_config(out: Path, model: str, rounds: int | None, quick: bool, seed: int) -> TrainConfig:
    """The default settings of `suder train`, on the demo's inputs."""
    tree: dict[str, Any] = {
        "model": str(Path(model).resolve()) if Path(model).is_dir() else model,
        "output": str(out),
        "data": {
            "images": str(out / "inputs" / "images"),
            "prompts": str(out / "inputs" / "prompts.txt"),
        },
        "seed": seed,
    }
    if quick:
        tree = merge(tree, {**_QUICK, "rounds": QUICK_ROUNDS})
    return load_config(tree if rounds is None else {**tree, "rounds": rounds})


def _check_same(out: Path, config: TrainConfig) -> None:
    begun = out / "config.yaml"
    if begun.is_file() and load_config(begun) != config:
        raise DemoError(
            f"{out} holds a run of other settings than asked for; "
            "give another --output, or delete that folder"
        )


def _train(out: Path, config: TrainConfig, say: Callable[[str], None]) -> None:
    if not (out / "config.yaml").is_file():
        rounds = counted(config.rounds, "round")
        say(f"{rounds} of self-improvement: sample, score, select, optimise")
        Trainer(config).run()
        return
    if (out / "summary.json").is_file():
        done = read_object(out / "summary.json").get("rounds")
        say(f"the run is there already, rounds: {done}")
        return
    say("going on with the run that was interrupted")
    Trainer.resume(out).run()
