"""What a run's folder holds: its beginning, whether it is still that run, what is left of it."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from suder.inputs.data import Inputs
from suder.inputs.files import DataError, read_file
from suder.inputs.pictures import MAX_BYTES, digest_of
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config, with_absolute_paths
from suder.storage.checkpoint import state_files
from suder.storage.files import DamagedFile, read_jsonl_left, read_object, write_json, write_text
from suder.storage.fingerprint import differing, versions
from suder.storage.folders import (
    MARK,
    claim,
    is_ours,
    refuse_foreign,
    refuse_links,
    sole_writer,
)

PHASES = ("sample", "score", "select")
MADE = (
    "data", "rounds", "rollouts", "state", "checkpoints", "best", "model", "looks", "tensorboard",
)  # fmt: skip
Origin = dict[str, Any]


class RunError(ValueError):
    """A run's folder that cannot be used as asked; the message says what to do."""


def refuse_used(folder: Path) -> None:
    """Raises RunError or FolderError unless a new run may begin in `folder`.

    It may where there is nothing, and where a start that failed left no more than its settings.
    """
    if not str(folder).strip() or folder == Path():
        raise RunError("output: name a folder for the run; the current one is not made a run")
    begun = (folder / "versions.json").exists() and (folder / "config.yaml").exists()
    if begun and (not is_ours(folder) or has_begun(folder)):
        raise RunError(
            f"{folder} holds a run already: go on with it by `suder train --resume {folder}`, "
            "or choose another `output`"
        )
    refuse_foreign(folder)
    refuse_links(folder / name for name in MADE)


def has_begun(folder: Path) -> bool:
    """Whether there is work of a run in it, beyond looking at the start model."""
    rows, faults = read_jsonl_left(folder / "metrics.jsonl")
    later = faults or any(row.get("round") != 0 for row in rows)
    results = any((folder / name).exists() for name in ("model", "summary.json"))
    return bool(later or results or state_files(folder) or numbered(folder / "checkpoints"))


def begin(
    folder: Path,
    config: TrainConfig,
    inputs: Inputs,
    start: dict[str, str],
    asked: dict[str, Any],
    rollouts: dict[str, str] | None = None,
) -> Origin:
    """Makes `folder` a run; if that fails, what was made of it is gone again."""
    refuse_used(folder)
    there, ours = folder.exists(), is_ours(folder)
    try:
        claim(folder)
        with sole_writer(folder):
            refuse_used(folder)  # somebody may have been quicker
            inputs.save(folder)
            origin = versions() | {"run": secrets.token_hex(8), "start": start, "asked": asked}
            if rollouts is not None:  # that it learns from, by the files' names
                origin["rollouts"] = rollouts
            write_json(folder / "versions.json", origin)
            write_text(folder / "config.yaml", dump_config(with_absolute_paths(config)))
    except OSError:
        with suppress(OSError):
            for name in ("config.yaml", "versions.json", *([] if ours else [MARK])):
                (folder / name).unlink(missing_ok=True)
            for name in ("dropped.jsonl", "inputs.json"):
                (folder / "data" / name).unlink(missing_ok=True)
            (folder / "data").rmdir()
            if not there:
                folder.rmdir()
        raise
    return origin


def read_origin(folder: Path) -> Origin:
    """versions.json of a run to go on with.

    Raises:
        RunError: there is no run, or this file of it is damaged.
    """
    if not (folder / "config.yaml").is_file():
        raise RunError(f"{folder} holds no run to resume: there is no config.yaml in it")
    refuse_links(folder / name for name in MADE)
    try:
        origin = read_object(folder / "versions.json")
        if not isinstance(origin.get("start"), dict) or not isinstance(origin.get("run"), str):
            raise DamagedFile(
                f"{folder / 'versions.json'} does not say what the run began with; "
                "it is of another version of suder, or not of a run"
            )
    except (DamagedFile, OSError) as error:
        raise RunError(f"{error}\n{what_is_left(folder)}") from None
    return origin


def extended(folder: Path, config: TrainConfig, rounds: int) -> TrainConfig:
    """The settings of a run that is to go on for longer.

    Raises:
        RunError: fewer rounds than the run has, or the guard has ended it.
    """
    if rounds < config.rounds:
        raise RunError(f"rounds: {folder} is a run of {config.rounds}, it cannot become {rounds}")
    summary = folder / "summary.json"
    if summary.is_file() and (why := read_object(summary).get("stopped")):
        raise RunError(
            f"the guard stopped {folder} ({why}), so more rounds would not be run. "
            f"{what_is_left(folder)}"
        )
    return config.model_copy(update={"rounds": rounds})


def check_start(
    folder: Path, model: str, then: Origin, now: dict[str, str], asked: dict[str, Any]
) -> None:
    """Raises RunError if the start model, or what it is asked, is not what the run began with."""
    before = then.get("asked", {})  # older runs do not say
    parts = differing(before, {key: asked.get(key) for key in before})
    if parts := differing(then["start"], now) + parts:
        raise RunError(
            f"{model} is not the model that {folder} began with; "
            f"other than then: {', '.join(parts)}"
        )


def check_rollouts(folder: Path, then: Origin, now: dict[str, str]) -> None:
    """Raises RunError if the files that a run learns from are not what they were."""
    if parts := differing(then.get("rollouts", {}), now):
        raise RunError(
            f"the rollouts are not those that {folder} began with; other than then, or gone, or "
            f"new: {', '.join(parts)}"
        )


def changes(then: Origin, inputs: Inputs) -> list[str]:
    """Sentences about what is not as it was when the run began, but does not end it."""
    said = []
    now = versions()
    if parts := differing({key: then.get(key) for key in now}, now):
        told = ", ".join(f"{key} was {then.get(key)}, is {now[key]}" for key in parts)
        said.append(f"the same bits are not promised, for versions changed: {told}")
    names = sorted({*inputs.images, *inputs.watched_images})
    known = [name for name in names if name in inputs.digests]
    if len(known) < len(names):
        said.append(
            f"whether {len(names) - len(known)} of {len(names)} pictures are as they were is not "
            "known: the version of suder that began the run did not note it"
        )
    if other := [name for name in known if _digest(name) != inputs.digests[name]]:
        said.append(
            f"{len(other)} of {len(names)} pictures are gone or not as they were when the run "
            f"began: {', '.join(other[:3])}{', ...' if len(other) > 3 else ''}"
        )
    return said


def _digest(picture: str) -> str | None:
    """None: it is not there, or no file."""
    try:
        return digest_of(read_file(picture, MAX_BYTES))
    except DataError:
        return None


def what_is_left(folder: Path) -> str:
    """For people whose run cannot go on: the models in it that are whole."""
    models = [*sorted((folder / "checkpoints").glob("[0-9]*")), folder / "best", folder / "model"]
    whole = [str(model) for model in models if (model / "config.json").is_file()]
    if not whole:
        return "no model is left in that folder; begin anew with another `output`"
    return f"what can be used: {', '.join(whole)}; `model: {whole[-1]}` begins a new run from there"


def ways_on(folder: Path) -> str:
    """For people whose run has lost its state."""
    return (
        f"{what_is_left(folder)}; to begin this run again from its start model: "
        f"suder train --resume {folder} --start-over"
    )


def numbered(folder: Path) -> list[Path]:
    """The folders of rounds or checkpoints in `folder`, in their order."""
    refuse_links((folder,))
    found = [path for path in folder.glob("*") if path.name.isdigit() and len(path.name) >= 6]
    folders = [path for path in found if path.is_dir() and not path.is_symlink()]
    return sorted(folders, key=lambda path: int(path.name))
