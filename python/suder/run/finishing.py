"""The end of a run: the finished model, and its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suder import ranks
from suder.run.logs import RunLog
from suder.run.states import States
from suder.storage.files import DamagedFile, read_object, write_json
from suder.storage.shown import counted

JUDGED = "evaluation"  # a key of summary.json that `suder evaluate` writes


def finish(states: States, inputs_dropped: int, log: RunLog) -> dict[str, Any]:
    """Writes model/ and summary.json: the guard's best weights, or the averaged last ones."""
    folder, config, oversight = states.folder, states.config, states.oversight
    guard, model = oversight.guard, folder / "model"
    guarded = config.guard.enabled
    if guarded:
        best = folder / "best"
        states.write_model(model, lambda to: states.learner.save_final(best, to))
    else:
        states.save_averaged(model)
    kept = guard.best if guarded else states.done
    summary = {
        "rounds": states.done,
        "rounds_asked": config.rounds,
        "kept_round": kept,
        "stopped": oversight.stopped or None,
        "seconds": round(states.seconds, 3),
        "inputs_dropped": inputs_dropped,
        "candidates_dropped": states.dropped,
        "guard": guard.state() if guarded else None,
        "model": str(model),
    }

    def write() -> dict[str, Any]:
        told = summary | _judged(folder / "summary.json", kept)
        write_json(folder / "summary.json", told)
        return told

    summary = ranks.from_first(write)
    which = f"weights of round {kept}" if kept else "start model's own weights, unchanged,"
    log.say(f"{counted(states.done, 'round')}; the {which} are in {model}")
    return summary


def _judged(path: Path, kept: int) -> dict[str, Any]:
    """The evaluation that a finished run's summary has got, if it is of the weights kept."""
    try:
        before = read_object(path)
    except (OSError, DamagedFile):
        return {}
    same = before.get("kept_round") == kept
    return {JUDGED: before[JUDGED]} if same and JUDGED in before else {}
