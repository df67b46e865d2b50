"""What a run's folder holds, read for the report; nothing is required but the settings.

The folder may be somebody else's: every value is read as the type it must have, and what is not is
left out and noted, so that the page shows the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from suder.evaluation.result import Evaluation, load_evaluation
from suder.report.shapes import Dropped, Suite, Summary, is_count, is_number
from suder.settings.yaml_file import YamlError, read_yaml

LARGEST = 1 << 28  # bytes of a file of lines
LONGEST = 1 << 20  # bytes of a line, or of a file that is one value
_SUITES = 50  # that are shown
NOTES = 20  # kept; more are counted


@dataclass
class Notes:
    """What could not be read, by file and line."""

    texts: list[str] = field(default_factory=list)
    more: int = 0

    def add(self, text: str) -> None:
        if len(self.texts) < NOTES:
            self.texts.append(text)
        else:
            self.more += 1


@dataclass(frozen=True)
class RunData:
    """A run, finished or not, evaluated or not.

    `config`, `settings`: config.yaml, as text and read. `rounds`: the rows of metrics.jsonl.
    `summary`: what it says; None if there is none. `versions`: the file as it is.
    `evaluations`: by (side, decoding), such as ("base", "greedy"); empty if not evaluated.
    `suites`: other people's questions, base and tuned.
    """

    folder: Path
    config: str
    settings: dict[str, Any]
    rounds: list[dict[str, Any]]
    summary: Summary | None
    versions: str
    dropped: list[Dropped]
    evaluations: dict[tuple[str, str], Evaluation]
    suites: list[Suite]
    notes: Notes

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """A metric's rounds and values, where it was measured and finite."""
        points = [(row["round"], row[name]) for row in self.rounds if row.get(name) is not None]
        return [at for at, _ in points], [value for _, value in points]

    def setting(self, path: str) -> Any:
        """A setting by its dotted path; "?" if it is not there."""
        value: Any = self.settings
        for key in path.split("."):
            value = value.get(key, "?") if isinstance(value, dict) else "?"
        return value


def read_run(folder: Path) -> RunData:
    """Read a run's folder.

    Raises:
        FileNotFoundError: there is no run in it.
    """
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no config.yaml in it")
    notes = Notes()
    settings: dict[str, Any] = {}
    try:
        settings, _ = read_yaml(folder / "config.yaml")
    except YamlError as error:
        notes.add(str(error))
    return RunData(
        folder=folder,
        config=_text(folder / "config.yaml", notes),
        settings=settings,
        rounds=list(_metrics(folder / "metrics.jsonl", notes)),
        summary=_summary(folder / "summary.json", notes),
        versions=_text(folder / "versions.json", notes),
        dropped=list(_dropped(folder / "data" / "dropped.jsonl", notes)),
        evaluations=dict(_evaluations(folder / "evaluation", notes)),
        suites=list(_suites(folder / "evaluation", notes)),
        notes=notes,
    )


def _metrics(path: Path, notes: Notes) -> Iterator[dict[str, Any]]:
    for where, row in _lines(path, notes):
        if not is_count(row.get("round")):
            notes.add(f"{where}: left out, its `round` is no whole number from 0")
            continue
        bad = [key for key, value in row.items() if value is not None and not is_number(value)]
        if bad:
            notes.add(f"{where}: `{bad[0][:80]}` left out, it is no number")
        yield {key: value for key, value in row.items() if key not in bad}


def _dropped(path: Path, notes: Notes) -> Iterator[Dropped]:
    for where, row in _lines(path, notes):
        try:
            yield Dropped.model_validate(row)
        except ValidationError as error:
            notes.add(f"{where}: left out, {said(error.errors()[0])}")


def _summary(path: Path, notes: Notes) -> Summary | None:
    if not path.is_file():
        return None
    tree = read_value(path, notes)
    try:
        return Summary.model_validate(tree)
    except ValidationError as error:
        bad = {detail["loc"][0]: detail for detail in reversed(error.errors()) if detail["loc"]}
        for detail in bad.values():
            notes.add(f"{path}: left out, {said(detail)}")
        return Summary.model_validate({key: tree[key] for key in tree.keys() - bad.keys()})


def _evaluations(folder: Path, notes: Notes) -> Iterator[tuple[tuple[str, str], Evaluation]]:
    for side in ("base", "tuned"):
        for decoding in ("greedy", "sampled"):
            path = folder / f"{side}.{decoding}.npz"
            if path.is_file():
                try:
                    yield (side, decoding), load_evaluation(path)
                except ValueError as error:
                    notes.add(str(error))


def _suites(folder: Path, notes: Notes) -> Iterator[Suite]:
    for path in sorted(folder.glob("*/scores.json"))[:_SUITES]:
        try:
            yield Suite.model_validate(read_value(path, notes))
        except ValidationError as error:
            notes.add(f"{path}: left out, {said(error.errors()[0])}")


def _lines(path: Path, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands and what it says; a line that says nothing is noted."""
    if not path.is_file():
        return
    if path.stat().st_size > LARGEST:
        notes.add(f"{path}: left out, {path.stat().st_size} bytes")
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            if not line.endswith(b"\n"):
                notes.add(f"{where}: left out, it is cut off")
            elif line.strip():
                row = _json(line, where, notes)
                if row:
                    yield where, row


def _json(text: bytes, where: str, notes: Notes) -> dict[str, Any]:
    """The object that the text is; {} and a note if it is none."""
    if len(text) > LONGEST:
        notes.add(f"{where}: left out, {len(text)} bytes")
        return {}
    try:
        # NaN is no JSON, but older runs wrote it for numbers that there are not.
        value = json.loads(text.decode("utf-8"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        notes.add(f"{where}: left out, no JSON: {error}")
        return {}
    if isinstance(value, dict):
        return value
    notes.add(f"{where}: left out, expected an object, got {type(value).__name__}")
    return {}


def read_value(path: Path, notes: Notes) -> dict[str, Any]:
    """The object in a short file; {} if there is none, and a note if the file is no such thing."""
    return _json(_text(path, notes).encode(), str(path), notes) if path.is_file() else {}


def _text(path: Path, notes: Notes) -> str:
    """A short file's text, whatever is in it; "" if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        notes.add(f"{path}: cut at {LONGEST} bytes")
    return content[:LONGEST].decode("utf-8", errors="replace")


def said(detail: ErrorDetails) -> str:
    """What is wrong with a value, in a few words."""
    return f"`{'.'.join(map(str, detail['loc']))}`: {detail['msg']}"
