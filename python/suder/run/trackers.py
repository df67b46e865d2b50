"""Trackers that a run reports to beside its own files: Weights & Biases, MLflow, Trackio and the
others that accelerate knows, or has had registered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from suder.settings.config import TrainConfig

PROJECT = "suder"
OWN = "tensorboard"  # which a run writes with or without being asked


def check_trackers(names: Sequence[str]) -> None:
    """Before any work.

    Raises:
        ValueError: accelerate knows no tracker of that name.
        ModuleNotFoundError: it does, and its package is not installed.
    """
    if not set(names) - {OWN}:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ValueError(f"log_with: accelerate knows no tracker {name!r}; it knows {known}")
        brought = name not in [str(one.value) for one in LoggerType]
        if name != OWN and not brought and name not in map(str, get_available_trackers()):
            raise ModuleNotFoundError(
                f"log_with: {name} is not installed: pip install {name}, or leave it out there"
            )


class Trackers:
    """The trackers of `log_with`, each begun; one that fails is left alone from then on.

    Args:
        run: the run's folder, after which the tracker's run is named.
        identity: of the run, so that one that is resumed goes on in the same place.
        say: takes a sentence for people.
    """

    def __init__(
        self, config: TrainConfig, run: Path, identity: str, say: Callable[[str], None]
    ) -> None:
        self.say = say
        self.open: dict[str, Any] = {}
        names = [name for name in dict.fromkeys(config.log_with) if name != OWN]
        if not names:
            return
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        named = {
            "wandb": {"name": run.name, "id": identity, "resume": "allow"},
            "mlflow": {"run_name": run.name},
            "trackio": {"name": run.name, "resume": "allow"},
        }
        for name in names:
            kind = LOGGER_TYPE_TO_CLASS[name]
            where = (str(run),) if kind.requires_logging_directory else ()
            tracker = kind(PROJECT, *where, **named.get(name, {}))
            tracker.start()
            tracker.store_init_configuration(_flat(config.model_dump(mode="json")))
            self.open[name] = tracker

    def round(self, index: int, numbers: dict[str, float]) -> None:
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self._all(lambda tracker: tracker.log(finite, step=index))

    def finish(self) -> None:
        self._all(lambda tracker: tracker.finish())
        self.open.clear()

    def _all(self, work: Callable[[Any], object]) -> None:
        for name, tracker in list(self.open.items()):
            try:
                work(tracker)
            except Exception as error:  # a server that is away must not end days of work
                del self.open[name]
                self.say(f"log_with: {name} gets no more of this run: {error}")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    flat: dict[str, str | int | float | bool] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            plain = isinstance(value, str | int | float | bool)
            flat[prefix + key] = value if plain else str(value)
    return flat
