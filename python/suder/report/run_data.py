"""What a run's folder holds, read for the report; nothing is required but the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from suder.evaluation.result import Evaluation, load_evaluation
from suder.storage.files import read_json, read_jsonl


@dataclass(frozen=True)
class RunData:
    """A run, finished or not, evaluated or not.

    `config`, `settings`: config.yaml, as text and read. `rounds`: the rows of metrics.jsonl.
    `summary`, `versions`: the JSON files, {} if absent.
    `evaluations`: by (side, decoding), such as ("base", "greedy"); empty if not evaluated.
    """

    folder: Path
    config: str
    settings: dict[str, Any]
    rounds: list[dict[str, Any]]
    summary: dict[str, Any]
    versions: dict[str, Any]
    dropped: list[dict[str, Any]]
    evaluations: dict[tuple[str, str], Evaluation]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """A metric's rounds and values, where it was measured and finite."""
        points = [(row["round"], row[name]) for row in self.rounds if row.get(name) is not None]
        return [at for at, _ in points], [value for _, value in points]

    def setting(self, path: str) -> str:
        """A setting by its dotted path, as text; "?" if it is not there."""
        value: Any = self.settings
        for key in path.split("."):
            value = value.get(key, "?") if isinstance(value, dict) else "?"
        return str(value)


def read_run(folder: Path) -> RunData:
    """Read a run's folder.

    Raises:
        FileNotFoundError: there is no run in it.
    """
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no config.yaml in it")
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    files = sorted((folder / "evaluation").glob("*.npz"))
    evaluations = {tuple(file.stem.split(".", 1)): load_evaluation(file) for file in files}
    return RunData(
        folder=folder,
        config=config,
        settings=yaml.safe_load(config),
        rounds=read_jsonl(folder / "metrics.jsonl"),
        summary=_json(folder / "summary.json"),
        versions=_json(folder / "versions.json"),
        dropped=read_jsonl(folder / "data" / "dropped.jsonl"),
        evaluations={(key[0], key[-1]): value for key, value in evaluations.items()},
    )


def _json(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}
