"""A run's numbers: one line of JSON a round, TensorBoard, and a progress bar for people."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from suder.run.board import Board
from suder.run.trackers import Trackers
from suder.settings.config import TrainConfig
from suder.storage.files import append_jsonl, read_jsonl_left, whole, write_jsonl
from suder.storage.shown import line_due, shown

LEGEND = (
    "R_G, R_U: mean rewards of pictures and of captions, log-likelihoods a token; KL_G, KL_U: how "
    "far the model is from its start while it draws and captions, nats a token"
)
DIGITS = 7  # significant ones, a float32's: a rate of 4e-7 is not 0
SHOWN = (
    ("reward/generation", "R_G"),
    ("reward/understanding", "R_U"),
    ("kl/generation", "KL_G"),
    ("kl/understanding", "KL_U"),
)


class RunLog:
    """Where a run reports to; a context manager.

    Args:
        run: the run's folder; `metrics.jsonl` and `tensorboard/` are written there.
        last: the last round whose lines stand; later ones are of work that will be done again.
        quiet: no progress bar and no messages.
        writes: False for the processes of a run that leave it to the first; they are quiet, too.
    """

    def __init__(
        self, run: Path, total: int, last: int = -1, quiet: bool = False, writes: bool = True
    ) -> None:
        self.run = run
        self.writes = writes
        self.quiet = quiet = quiet or not writes
        self.metrics = run / "metrics.jsonl"
        self.damaged: list[str] = []
        if writes:
            for path in (self.metrics, run / "data" / "dropped.jsonl"):
                self.damaged += _cut(path, last)
            self.board = Board(run / "tensorboard", max(0, last + 1))
        self.console = Console(stderr=True, quiet=quiet)
        self.progress = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=self.console,
            disable=quiet,
        )
        self.total = total
        self.trackers: Trackers | None = None
        self.task = self.progress.add_task("", total=total, completed=max(0, last), shown="")

    def __enter__(self) -> RunLog:
        self.say(LEGEND)
        self.progress.start()
        for sentence in self.damaged:
            self.say(sentence)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
        if self.trackers is not None:
            self.trackers.finish()

    def track(self, config: TrainConfig, identity: str) -> None:
        """Reports to the trackers of `log_with`, too."""
        if self.writes:
            self.trackers = Trackers(config, self.run, identity, self.say)

    def say(self, message: str) -> None:
        """A sentence that stays on the console."""
        self.console.print(shown(message), highlight=False, markup=False)

    def round(self, index: int, numbers: dict[str, float]) -> None:
        """Writes a round's numbers everywhere; NaN is null in JSON, where it is not a number."""
        if not self.writes:
            return
        row: dict[str, Any] = {"round": index}
        for name, value in numbers.items():
            row[name] = float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        append_jsonl(self.metrics, [row])
        self.board.round(index, numbers)
        if self.trackers is not None:
            self.trackers.round(index, numbers)
        shown = " ".join(f"{label} {numbers[name]:.3f}" for name, label in SHOWN if name in numbers)
        self.progress.update(self.task, completed=index, shown=shown)
        if not self.console.is_terminal and line_due(index, self.total):
            self.say(f"round {index} of {self.total} {shown}")

    def dropped(self, rows: list[dict[str, Any]]) -> None:
        """Appends what was left out in a round, named, to data/dropped.jsonl."""
        if rows and self.writes:
            append_jsonl(self.run / "data" / "dropped.jsonl", rows)


def _cut(path: Path, last: int) -> list[str]:
    """Leaves a file's rows up to the round `last`; says what it laid aside as damaged."""
    if not path.exists():
        return []
    rows, faults = read_jsonl_left(path)
    numbered = [row for row in rows if isinstance(row.get("round", -1), int)]
    if len(numbered) < len(rows):
        faults.append(f"{path}: `round` is not a number in {len(rows) - len(numbered)} rows")
    if faults:
        aside = path.with_name(path.name + ".damaged")
        with whole(aside, path.stat().st_size) as partial:  # not through a link of that name
            shutil.copyfile(path, partial)
        faults = [*faults[:3], f"the rows that are whole are used; the file as it was: {aside}"]
    write_jsonl(path, (row for row in numbered if row.get("round", -1) <= last))
    return faults


class Clock:
    """Seconds of each part of a round."""

    def __init__(self) -> None:
        self.begin = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"seconds/{name}"] = now - self.last
        self.last = now

    @property
    def total(self) -> float:
        return self.last - self.begin
