"""A run's rounds as files of rollouts: the phases' files are what it resumes from, these are read.

A run writes them itself (checkpoint.rollouts), or `export` does from the phases that are left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from suder import ranks
from suder.inputs.data import Inputs
from suder.inputs.files import DataError
from suder.method.rollouts import Rollouts, load_rollouts
from suder.method.selection import Selection
from suder.models.base import UnifiedModel
from suder.models.weightless import weightless
from suder.rollouts.files import read_table, write_table
from suder.rollouts.rows import candidate_rows, to_table
from suder.rollouts.schema import arrow
from suder.run.folder import PHASES, Origin, numbered, read_origin
from suder.run.rounds import Scored, selection_of
from suder.run.sampled import sampling_seed
from suder.settings.candidates import Reward
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config
from suder.settings.reward import base_of
from suder.storage.files import DamagedFile, json_text, read_tensors
from suder.storage.folders import make_folder

Judged = tuple[Rollouts, Any, Selection]  # candidates, rewards, what is made of those


class Exported(NamedTuple):
    """Files written, files that were there before, and rounds that could not be read, with why."""

    written: list[Path]
    there: list[Path]
    lost: list[str]


def round_table(
    judged: Sequence[Judged],
    index: int,
    config: TrainConfig,
    origin: Origin,
    model: UnifiedModel,
    digests: Mapping[str, str],
) -> Any:
    """All candidates of a round as a `pyarrow.Table`.

    Args:
        model: whose tokens they are; only its tokenizer is used.
        digests: of the run's pictures.
    """
    asked = origin.get("asked", {})
    tables = []
    for one, reward, selection in judged:
        captions = one.direction == "understanding"
        rows = candidate_rows(
            one, reward, selection, model.detokenize(one.sequences()) if captions else (),
            digests, config.sampling,
            run=origin["run"], round=index, model=config.model,
            model_digest=digest_of_model(origin["start"]),
            scorer=scorer_of(config.reward),
            seed=sampling_seed(config, index, one.direction),
            question=asked.get("question"), system_prompt=asked.get("system_prompt"),
        )  # fmt: skip
        tables.append(to_table(rows))
    return arrow().concat_tables(tables)


def keep_table(
    run: Path,
    scored: Sequence[Scored],
    index: int,
    config: TrainConfig,
    origin: Origin,
    model: UnifiedModel,
    digests: Mapping[str, str],
) -> None:
    """The round's candidates for others to read; a round done again writes the same bytes."""
    if not config.checkpoint.rollouts or not scored:
        return
    with ranks.each():
        if ranks.first():
            judged = [(one.rollouts, one.reward, one.selection) for one in scored]
            table = round_table(judged, index, config, origin, model, digests)
            make_folder(run / "rollouts")
            write_table(run / "rollouts" / f"{index:06d}.parquet", table)


def digest_of_model(start: Mapping[str, str]) -> str:
    """One hash of a model's fingerprint, without that of another that only scores."""
    own = {part: value for part, value in start.items() if not part.startswith("reward.model")}
    return hashlib.sha256(json_text(dict(sorted(own.items()))).encode()).hexdigest()


def scorer_of(reward: Reward) -> str:
    """Who gave the rewards, in a word or two: "live", "live, judge gate", "external clip:score"."""
    said = []
    if base_of(reward) == "dual":
        said.append(reward.model or reward.scorer)
    if reward.judge != "off":
        said.append(f"judge {reward.judge}")
    if reward.external is not None:
        said.append(f"external {reward.external}")
    return ", ".join(said)


def export(run: Path, output: Path) -> Exported:
    """Writes what `run` still holds of its rounds, a file a round; one that is there stands.

    The run may go on meanwhile: a round of which a phase is missing is not there yet, or no more.

    Raises:
        RunError: there is no run. DataError: `output` holds other files of that name.
    """
    arrow()
    origin = read_origin(run)
    config = load_config(run / "config.yaml")
    digests = Inputs.load(run).digests
    found = Exported([], [], [])
    with weightless(config.model, None, config.lora, **config.prompts.model_dump()) as model:
        pass  # out of there, its tokenizer reads tensors that have numbers
    for folder in numbered(run / "rounds"):
        path = output / f"{folder.name}.parquet"
        if os.path.lexists(path):
            _check_same_run(path, origin)
            found.there.append(path)
            continue
        try:
            judged = _phases(folder)
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            found.lost.append(str(error))
            continue
        output.mkdir(parents=True, exist_ok=True)
        table = round_table(judged, int(folder.name), config, origin, model, digests)
        write_table(path, table)
        found.written.append(path)
    return found


def _phases(folder: Path) -> list[Judged]:
    sample, score, select = (folder / f"{name}.safetensors" for name in PHASES)
    for path in (sample, score, select):
        if not path.exists():
            raise FileNotFoundError(path)
    rewards, chosen = read_tensors(score)[0], read_tensors(select)[0]
    return [
        (one, rewards[one.direction], selection_of(chosen, one.direction))
        for one in load_rollouts(sample)
        if one.direction in rewards  # samples of a direction that is held have none
    ]


def _check_same_run(path: Path, origin: Origin) -> None:
    if read_table([path])["run"][0].as_py() != origin["run"]:
        raise DataError(f"--output: {path} is of another run; take another folder")
