"""Runs the cells of a plan as subprocesses, a few at a time; a finished cell is not run again."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from suder.experiment.plan import Cell, PlanError
from suder.experiment.starts import weights_of
from suder.run.stopping import ASKING, Stopped, Stopping
from suder.storage.files import read_object, write_json
from suder.storage.folders import make_folder
from suder.storage.shown import counted, shown

COMMAND = (sys.executable, "-m", "suder.experiment.cell")  # then the cell's folder and the inputs
_PAUSE = 0.5  # seconds between two looks at the running cells
_TAIL = 15  # lines of a failed cell's log that are shown


def run_cells(cells: Sequence[Cell], out: Path, *, jobs: int = 2, threads: int = 1) -> list[str]:
    """Run what is not finished yet and return the names of the cells that failed.

    Cell `name` writes under `out/cells/name`; its `result.json` appears last and whole, and is what
    counts as finished. A cell cut off half-way goes on where its training run stopped.

    Raises:
        PlanError: a finished cell was run with other settings.
        Stopped: SIGTERM, SIGINT or SIGHUP came; the cells were asked to end, once each, and have.
    """
    for cell in cells:
        if result_of(cell, out) and finished(cell, out) is None:
            print(
                shown(
                    f"cell {cell.name} is run again: it was finished with other weights than "
                    f"{cell.start} has now"
                ),
                file=sys.stderr,
            )
    waiting = [cell for cell in cells if finished(cell, out) is None]
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Stopping((*ASKING, signal.SIGHUP)) as stop, Progress(*columns) as bar:
        label = bar.add_task("cells", total=len(cells), completed=len(cells) - len(waiting))
        try:
            while waiting or running:
                stop.check()  # here alone: no cell is between its start and `running`
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    running[cell.name] = _start(cell, out, threads)
                time.sleep(_PAUSE)
                for name in [name for name, child in running.items() if child.poll() is not None]:
                    if running.pop(name).returncode:
                        failed.append(name)
                        bar.console.print(shown(_last_words(name, out)), markup=False)
                    elif not bar.console.is_terminal:
                        left = counted(len(waiting) + len(running), "cell")
                        bar.console.print(f"{name} is done; {left} to go", highlight=False)
                    bar.advance(label)
                at_work = ", ".join(f"{name} {_progress(out / 'cells' / name)}" for name in running)
                bar.update(label, description=at_work or "cells")
        except Stopped as stopped:
            stopped.words += "; what the cells have done is kept, the same command goes on"
            raise
        finally:
            for child in running.values():
                child.terminate()
            for child in running.values():
                child.wait()
    return failed


def finished(cell: Cell, out: Path) -> dict[str, Any] | None:
    """The cell's result, or None if it has none yet, or one of other weights of its start."""
    result = result_of(cell, out)
    if not result or "start" not in result:  # earlier ones do not say what they began with
        return result
    try:
        now = weights_of(cell.start)
    except OSError:  # a start that is gone has no others: the tables are still of this one
        return result
    return result if result["start"] == now else None


def result_of(cell: Cell, out: Path) -> dict[str, Any] | None:
    """What the cell has written at its end, of whatever weights.

    Raises:
        PlanError: it was run with other settings.
    """
    path = out / "cells" / cell.name / "result.json"
    if not path.is_file():
        return None
    result = read_object(path)
    if result.get("fingerprint") != cell.fingerprint():
        raise PlanError(
            f"{path} was made with other settings than asked for now; "
            "use another --output, or delete that cell's folder to run it again"
        )
    for direction, interval in result.get("reward_accuracy", {}).items():
        # Where all candidates of a group are right, or all wrong, there is none; null in JSON.
        known = [math.nan if number is None else number for number in interval]
        result["reward_accuracy"][direction] = known
    return result


def _start(cell: Cell, out: Path, threads: int) -> subprocess.Popen[bytes]:
    folder = out / "cells" / cell.name
    make_folder(out / "cells")
    make_folder(folder)
    write_json(folder / "cell.json", asdict(cell))
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [*COMMAND, str(folder), str(out / "inputs")]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **counts},
            start_new_session=True,  # ctrl-c is for this process, which passes it on
        )


def _progress(folder: Path) -> str:
    """Rounds done so far, from the run's metrics."""
    metrics = folder / "run" / "metrics.jsonl"
    if not metrics.is_file():
        return ""
    lines = metrics.read_bytes().splitlines()
    try:
        return f"round {json.loads(lines[-1])['round']}" if lines else ""
    except (ValueError, KeyError):  # the last line is being written
        return f"round {len(lines)}"


def _last_words(name: str, out: Path) -> str:
    log = out / "cells" / name / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    return "\n".join([f"cell {name} failed, the end of {log}:", *(f"  {line}" for line in lines)])
