"""Which models an evaluation is of: one, two, or what a run began with and what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from suder.settings.config_file import load_config


class Sides(NamedTuple):
    """
    Attributes:
        models: names for `load_model` of "base", where there is one, and of "tuned".
        options: how both are asked, for `load_model`.
        run: the run's folder.
    """

    models: dict[str, str]
    options: dict[str, Any]
    run: Path | None


def sides_of(model: str, base: str | None = None) -> Sides:
    """Of a run's folder its start model and its result, asked as in the run; else what is named.

    Raises:
        ValueError: the run is not finished.
    """
    folder = Path(model)
    if not (folder / "config.yaml").is_file():
        return Sides({"base": base, "tuned": model} if base else {"tuned": model}, {}, None)
    if not (folder / "model").is_dir():
        raise ValueError(f"{folder} is no finished run; `suder train --resume {folder}` ends it")
    config = load_config(folder / "config.yaml")
    models = {"base": base or config.model, "tuned": str(folder / "model")}
    return Sides(models, config.prompts.model_dump(), folder)
