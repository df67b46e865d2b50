"""What pretraining tells: a progress bar for people, and rows for `log.jsonl`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from suder.storage.shown import line_due

EVERY = 20  # steps between two rows

Log = Callable[[dict[str, float]], None]


class Journal:
    """A context manager; `rows` are the log so far."""

    def __init__(self, quiet: bool = False) -> None:
        self.rows: list[dict[str, Any]] = []
        console = Console(stderr=True)
        self.speaks = not quiet and not console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=quiet,
        )

    def __enter__(self) -> Journal:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    @contextmanager
    def stage(self, name: str, steps: int) -> Iterator[Log]:
        """Gives the function to call after each of the stage's steps."""
        task = self.bar.add_task(name, total=steps, numbers="")
        began = time.monotonic()

        def log(row: dict[str, float]) -> None:
            step = int(row["step"])
            if broken := [key for key, value in row.items() if not math.isfinite(value)]:
                raise ValueError(f"{name}, step {step}: {broken[0]} is not finite; a lower rate?")
            numbers = {key: float(f"{value:.6g}") for key, value in row.items() if key != "step"}
            if step % EVERY == 0 or step == steps:
                seconds = round(time.monotonic() - began, 1)
                self.rows.append({"stage": name, "step": step, "seconds": seconds, **numbers})
            shown = "  ".join(f"{key} {value:.3f}" for key, value in numbers.items())
            self.bar.update(task, completed=step, numbers=shown)
            if self.speaks and line_due(step, steps):
                self.bar.console.print(f"{name} {step} of {steps}  {shown}", highlight=False)

        yield log
