"""A run's numbers: one line of JSON a round, TensorBoard, and a progress bar for people."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from suder.storage.files import json_text, read_jsonl, write_jsonl
from suder.storage.shown import shown

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
    """

    def __init__(self, run: Path, total: int, last: int = -1, quiet: bool = False) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import

        self.run = run
        self.quiet = quiet
        for name in ("metrics.jsonl", "data/dropped.jsonl"):
            if (rows := read_jsonl(run / name)) or (run / name).exists():
                write_jsonl(run / name, (row for row in rows if row.get("round", -1) <= last))
        self.metrics = (run / "metrics.jsonl").open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=max(0, last + 1))
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
        self.task = self.progress.add_task("", total=total, completed=max(0, last), shown="")

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
        self.metrics.close()
        self.board.close()

    def say(self, message: str) -> None:
        """A sentence that stays on the console."""
        self.console.print(shown(message), highlight=False, markup=False)

    def round(self, index: int, numbers: dict[str, float]) -> None:
        """Writes a round's numbers everywhere; NaN is null in JSON, where it is not a number."""
        row: dict[str, Any] = {"round": index}
        for name, value in numbers.items():
            row[name] = round(value, 6) if math.isfinite(value) else None
            self.board.add_scalar(name, value, index)
        self.metrics.write(json_text(row) + "\n")
        self.metrics.flush()
        shown = " ".join(f"{label} {numbers[name]:.3f}" for name, label in SHOWN if name in numbers)
        self.progress.update(self.task, completed=index, shown=shown)

    def dropped(self, rows: list[dict[str, Any]]) -> None:
        """Appends what was left out in a round, named, to data/dropped.jsonl."""
        with (self.run / "data" / "dropped.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json_text(row) + "\n" for row in rows)


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
