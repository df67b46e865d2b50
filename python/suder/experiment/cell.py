"""One cell of the grid, in a process of its own: `python -m suder.experiment.cell FOLDER INPUTS`.

Every step leaves a file and is not done again; `result.json` is written last.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import suder
from suder.evaluation.controls import candidate_groups
from suder.evaluation.evaluate import about_model, evaluate, settings_of
from suder.evaluation.result import Evaluation, kept_evaluation
from suder.evaluation.worlds import task_of
from suder.experiment.plan import CONTROL, Cell, Measures
from suder.experiment.starts import weights_of
from suder.run.folder import has_begun
from suder.run.leftovers import drop_spent, forget
from suder.run.stopping import Stopped
from suder.run.trainer import Trainer
from suder.settings.config_file import load_config
from suder.storage.files import finite, read_json, read_object, write_json
from suder.storage.folders import refuse_links, sole_writer


def run_cell(folder: Path, inputs: Path) -> None:
    """Run the cell that `folder/cell.json` describes, or the rest of it.

    Raises:
        FolderError: another process works on it, such as a cell whose experiment was killed.
    """
    refuse_links((folder, folder / "run"))
    with sole_writer(folder):
        tree = read_object(folder / "cell.json")
        cell = Cell(**{**tree, "measures": Measures(**tree["measures"])})
        start = weights_of(cell.start)
        _forget_others(cell, folder, start)
        began = time.perf_counter()
        result = _control(cell, folder) if cell.arm == CONTROL else _trained(cell, folder, inputs)
        result |= {"fingerprint": cell.fingerprint(), "cell": tree, "start": start}
        result["seconds"] = round(time.perf_counter() - began, 1)
        write_json(folder / "result.json", finite(result))
        run = folder / "run"
        if (run / "config.yaml").is_file():
            # Of a finished run only the result is of use; weights of 50 cells would fill a disk.
            with sole_writer(run):
                drop_spent(run, load_config(run / "config.yaml"))


def _forget_others(cell: Cell, folder: Path, start: str) -> None:
    """Deletes what a cell of other settings, or of other weights of its start, left here."""
    mark, run = folder / "fingerprint.json", folder / "run"
    # Earlier cells did not say what they began with.
    ours = ({"cell": cell.fingerprint(), "start": start}, cell.fingerprint())
    if mark.is_file() and read_json(mark) not in ours:
        _say("work of other settings, or of another start model, is here: starting again")
        (folder / "result.json").unlink(missing_ok=True)
        if (run / "config.yaml").is_file():
            with sole_writer(run):
                forget(run, load_config(run / "config.yaml"))
        judged = [folder / f"{name}.npz" for name in ("greedy", "sampled")]
        judged += [*folder.glob("t[0-9]*.npz"), *folder.glob("checkpoints/[0-9]*.npz")]
        for path in judged:
            path.unlink(missing_ok=True)
    write_json(mark, ours[0])


def _control(cell: Cell, folder: Path) -> dict[str, Any]:
    """The start model: greedy, sampled at each temperature, best of N by the dual reward."""
    model = _load(cell, cell.start)
    measures = cell.measures
    _judged(folder / "greedy.npz", model, cell, measures.n)
    for temperature in measures.temperatures:
        _judged(folder / f"t{temperature:g}.npz", model, cell, measures.n, temperature)
    _say("best of N")
    task = task_of(measures.world, cell.split, measures.n, 0)
    groups = candidate_groups(model, task, candidates=measures.candidates, progress=False)
    return {
        "reward_accuracy": {name: group.reward_accuracy() for name, group in groups.items()},
        "best_of": {name: group.best().tolist() for name, group in groups.items()},
        "any_of": {name: float(group.any_right().mean()) for name, group in groups.items()},
    }


def _trained(cell: Cell, folder: Path, inputs: Path) -> dict[str, Any]:
    run, measures = folder / "run", cell.measures
    summary = _train(cell, folder, inputs)
    model = _load(cell, run / "model")
    greedy = _judged(folder / "greedy.npz", model, cell, measures.n)
    _judged(folder / "sampled.npz", model, cell, measures.n, 1.0)
    _say("reward accuracy")
    task = task_of(measures.world, cell.split, measures.checkpoint_n, 0)
    groups = candidate_groups(model, task, candidates=measures.candidates, progress=False)
    kept = summary["kept_round"]
    return {
        "accuracy": greedy.accuracy(),
        "summary": {key: value for key, value in summary.items() if key != "guard"},
        "reward_accuracy": {name: group.reward_accuracy() for name, group in groups.items()},
        "checkpoints": _checkpoints(cell, folder, kept),
    }


def _train(cell: Cell, folder: Path, inputs: Path) -> dict[str, Any]:
    run = folder / "run"
    if (run / "summary.json").is_file():
        return read_object(run / "summary.json")
    if has_begun(run):
        _say("resuming")
        return Trainer.resume(run, quiet=True).run()
    _say("training")
    return Trainer(load_config(cell.tree(run, inputs)), quiet=True).run()


def _checkpoints(cell: Cell, folder: Path, kept: int) -> list[dict[str, Any]]:
    """Greedy accuracy of the start, of every checkpoint and of what the guard kept, by round."""
    run, n = folder / "run", cell.measures.checkpoint_n
    paths = {0: cell.start, kept: str(run / "model")}
    paths |= {int(path.name): str(path) for path in sorted((run / "checkpoints").glob("[0-9]*"))}
    rows = []
    for at, path in sorted(paths.items()):
        found = _judged(folder / "checkpoints" / f"{at:06d}.npz", _load(cell, path), cell, n)
        rows.append({"round": at, "kept": at == kept, **found.accuracy()})
    return rows


def _load(cell: Cell, path: str | Path) -> Any:
    """Asked as the arm asks it while it trains."""
    return suder.load_model(path, **cell.settings.get("prompts", {}))


def _judged(
    file: Path, model: Any, cell: Cell, n: int, temperature: float | None = None
) -> Evaluation:
    """The evaluation in `file`, made if it is not there or of others; greedy: no temperature."""
    task = task_of(cell.measures.world, cell.split, n, 0)
    how: dict[str, Any] = {
        "greedy": temperature is None,
        "temperature": temperature or 1.0,
        "max_new_tokens": cell.settings.get("sampling", {}).get("max_new_tokens"),
        "about": about_model(model),
    }
    kept = kept_evaluation(file, settings_of(model, task, **how))
    if kept is None:
        _say(f"evaluating {file.name}")
        kept = evaluate(model, task=task, progress=False, **how)
        kept.save(file)
    return kept


def _say(message: str) -> None:
    print(time.strftime("%H:%M:%S"), message, flush=True)


if __name__ == "__main__":
    try:
        run_cell(Path(sys.argv[1]), Path(sys.argv[2]))
    except Stopped as stopped:
        _say(str(stopped))
        sys.exit(1)  # the cell has not ended well
