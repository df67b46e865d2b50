"""What a run leaves in its folder, and all deleting of it: of nothing that it did not make."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from suder.run.folder import MADE, PHASES, numbered
from suder.settings.config import TrainConfig
from suder.storage.checkpoint import forget_states
from suder.storage.folders import drop_folder, refuse_links, repair_folder

FILES = (  # that are written whole, under a temporary name first
    "config.yaml",
    "versions.json",
    "summary.json",
    "metrics.jsonl",
    "metrics.jsonl.damaged",
    "data/inputs.json",
    "data/dropped.jsonl",
    "data/dropped.jsonl.damaged",
)
# In evaluation/, and in the folders of other inputs below it.
JUDGED = (
    *(f"{side}.{how}.npz" for side in ("base", "tuned") for how in ("greedy", "sampled")),
    "comparison.json",
)


def forget(folder: Path, config: TrainConfig) -> None:
    """Deletes what a run of these settings did, as if it had just begun; the caller has its lock.

    States go first and the log last. Killed in between, the run has work and no state, so that
    `--resume` asks for `--start-over` again; killed after that, it begins as a new one does.
    """
    refuse_links(folder / name for name in (*MADE, "evaluation"))
    tidy(folder)
    forget_states(folder)
    (folder / "summary.json").unlink(missing_ok=True)
    evaluation = folder / "evaluation"
    for place in (*evaluation.glob("*.n*.seed*"), evaluation):
        if not place.is_symlink():
            for name in JUDGED:
                (place / name).unlink(missing_ok=True)
            _drop_empty(place)
    for path in _looks(folder):
        path.unlink()
    _drop_empty(folder / "looks")
    drop_spent(folder, config)
    for path in _tables(folder, ".parquet"):
        path.unlink()
    _drop_empty(folder / "rollouts")
    drop_folder(folder / "model")
    (folder / "metrics.jsonl").unlink(missing_ok=True)


def drop_spent(folder: Path, config: TrainConfig) -> None:
    """Deletes what only a run that goes on has a use for; the caller has its lock."""
    forget_states(folder)
    drop_rounds(folder / "rounds", config.rounds, 0)
    drop_checkpoints(folder / "checkpoints", config.rounds, config.checkpoint.every, 0)
    drop_folder(folder / "best")
    for name in ("state", "rounds", "checkpoints"):
        _drop_empty(folder / name)


def tidy(folder: Path) -> None:
    """Ends what an earlier life was killed in: folders half exchanged, files half written."""
    aside = [*folder.glob("checkpoints/*.partial"), *folder.glob("checkpoints/*.old")]
    for path in [folder / "best", folder / "model", *(one.with_suffix("") for one in aside)]:
        repair_folder(path)
    halves = [
        *(folder / f"{name}.partial" for name in FILES),
        *(
            path
            for path in folder.glob("state/*.safetensors.partial")
            if path.name.partition(".")[0].isdigit()
        ),
        *(
            path / f"{name}.safetensors.partial"
            for path in numbered(folder / "rounds")
            for name in PHASES
        ),
        *_tables(folder, ".parquet.partial"),
        *_looks(folder, ".json.partial"),
    ]
    for path in halves:
        if path.is_file() and not path.is_symlink():
            path.unlink()


def drop_rounds(folder: Path, index: int, keep: int) -> None:
    """Deletes the files of all but the last `keep` rounds up to `index`, and nothing else."""
    for path in _early([path for path in numbered(folder) if int(path.name) <= index], keep):
        for name in PHASES:
            (path / f"{name}.safetensors").unlink(missing_ok=True)
            (path / f"{name}.safetensors.partial").unlink(missing_ok=True)
        _drop_empty(path)


def drop_checkpoints(folder: Path, index: int, every: int, keep: int) -> None:
    """Deletes all but the last `keep` checkpoints up to `index`; only a number that the run saves
    is one."""
    numbers = range(every, index + 1, every)
    for path in _early([path for path in numbered(folder) if int(path.name) in numbers], keep):
        drop_folder(path)


def _tables(folder: Path, ending: str) -> list[Path]:
    """Of rounds, in rollouts/."""
    found = (folder / "rollouts").glob(f"*{ending}")
    return [path for path in found if path.name.removesuffix(ending).isdigit()]


def _looks(folder: Path, ending: str = ".json") -> list[Path]:
    """What the guard's looks left for people."""
    names = (path.name.removesuffix(ending) for path in (folder / "looks").glob(f"*{ending}"))
    ours = [name for name in names if name == "inputs" or (name.isdigit() and len(name) >= 6)]
    return [folder / "looks" / f"{name}{ending}" for name in ours]


def _early(paths: list[Path], keep: int) -> list[Path]:
    return paths[: max(0, len(paths) - keep)]


def _drop_empty(folder: Path) -> None:
    with suppress(OSError):  # something of the user's is in it, or it is not there
        folder.rmdir()
