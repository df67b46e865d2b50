"""How a run begins, or is taken up again: with what settings, inputs and model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from suder import ranks
from suder.inputs.data import Inputs, read_inputs
from suder.rollouts.listed import read_listed
from suder.rollouts.offline import Offline, fitted
from suder.rollouts.schema import arrow
from suder.rollouts.usable import check_rows
from suder.run.fitting import fitting
from suder.run.folder import (
    Origin,
    RunError,
    begin,
    changes,
    check_rollouts,
    check_start,
    extended,
    has_begun,
    read_origin,
    refuse_used,
    ways_on,
)
from suder.run.learner import Learner
from suder.run.trackers import check_trackers
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config, load_config
from suder.storage.checkpoint import state_files
from suder.storage.files import write_text
from suder.storage.folders import sole_writer


@dataclass(frozen=True)
class Beginning:
    """What a run has before its first round, or before the next.

    Attributes:
        source: the files that its candidates are taken from, where it samples none.
        origin: what it says of itself in versions.json.
        notes: sentences about what is not as it was when the run began.
    """

    folder: Path
    config: TrainConfig
    learner: Learner
    inputs: Inputs
    source: Offline | None
    origin: Origin
    notes: list[str] = field(default_factory=list)


def begun(config: TrainConfig) -> Beginning:
    """Makes the folder of the settings a run; see `Trainer` for what it raises."""
    folder = Path(config.output)
    ranks.start(config.device)
    ranks.from_first(lambda: refuse_used(folder))
    source = Offline.read(config) if config.data.rollouts else None
    if source is None:
        inputs = ranks.from_first(
            lambda: read_inputs(config.data, config.seed, config.guard.inputs)
        )
    else:
        config = fitted(config)
        inputs = ranks.from_first(lambda: read_listed(source, config))
    learner, inputs = _set_up(config, inputs, source)
    start, asked = learner.fingerprint, learner.asked
    files = source.files if source else None
    origin = ranks.from_first(lambda: begin(folder, config, inputs, start, asked, files))
    return Beginning(folder, config, learner, inputs, source, origin)


def taken_up(folder: Path, start_over: bool, rounds: int | None) -> Beginning:
    """A run that is there already, if all is as it began with; see `Trainer.resume`."""
    origin = read_origin(folder)
    config = load_config(folder / "config.yaml")
    if rounds is not None:
        config = ranks.from_first(lambda: extended(folder, config, rounds))
    ranks.start(config.device)

    def look() -> Inputs:
        with sole_writer(folder):  # said at once, not after the model is loaded
            if has_begun(folder) and not state_files(folder) and not start_over:
                lost = f"{folder / 'state'} holds no state to go on from. {ways_on(folder)}"
                raise RunError(lost)
        return Inputs.load(folder)

    inputs = ranks.from_first(look)
    source = Offline.read(config) if config.data.rollouts else None
    if source:
        check_rollouts(folder, origin, source.files)
    learner, inputs = _set_up(config, inputs, source)
    check_start(folder, config.model, origin, learner.fingerprint, learner.asked)
    if rounds is not None:

        def extend() -> None:
            with sole_writer(folder):
                write_text(folder / "config.yaml", dump_config(config))

        ranks.from_first(extend)
    notes = ranks.from_first(lambda: changes(origin, inputs))
    return Beginning(folder, config, learner, inputs, source, origin, notes)


def _set_up(config: TrainConfig, inputs: Inputs, source: Offline | None) -> tuple[Learner, Inputs]:
    """The model, and of the inputs those that fit it."""
    check_trackers(config.log_with)
    if config.checkpoint.rollouts:
        arrow("pyarrow.parquet")  # not after hours, when the first file is written
    learner = Learner(config)
    inputs = fitting(inputs, config.sampling, learner.policy, config.data.pairing)
    if source:
        source.keep(inputs)
        check_rows(source, learner.current(), config)
    return learner, inputs
