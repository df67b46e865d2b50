"""A run: sample -> score -> select -> optimise, again and again, watched by the guard."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from suder.inputs.data import Inputs, read_inputs
from suder.run.learner import Learner
from suder.run.logs import Clock, RunLog
from suder.run.oversight import Oversight
from suder.run.rounds import (
    Scored,
    dropped_rows,
    round_numbers,
    sample_phase,
    score_phase,
    select_phase,
)
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config, load_config, with_absolute_paths
from suder.storage.checkpoint import load_state, prune, save_state, versions
from suder.storage.files import read_json, repair_folder, write_folder, write_json, write_text


class RunError(ValueError):
    """A run's folder that cannot be used as asked; the message says what to do."""


class Trainer:
    """One run in one folder.

    `Trainer(config).run()` starts one; `Trainer.resume(folder).run()` goes on with one that was
    interrupted, at any moment, to the same final weights (bit for bit on the CPU).

    Raises:
        RunError: the folder holds a run already, or none to resume.
        DataError: there are no usable inputs.
    """

    def __init__(self, config: TrainConfig, *, quiet: bool = False) -> None:
        folder = Path(config.output)
        if (folder / "config.yaml").exists():
            raise RunError(
                f"{folder} holds a run already: go on with it by `suder train --resume {folder}`, "
                "or choose another `output`"
            )
        inputs = read_inputs(config.data, config.seed)
        self._setup(folder, config, inputs, quiet)
        folder.mkdir(parents=True, exist_ok=True)
        inputs.save(folder)
        write_json(
            folder / "versions.json", versions() | {"start_model": self.learner.fingerprint}
        )  # fmt: skip
        write_text(
            folder / "config.yaml", dump_config(with_absolute_paths(config))
        )  # last: now a run

    @classmethod
    def resume(cls, folder: str | os.PathLike[str], *, quiet: bool = False) -> Trainer:
        """Takes up an interrupted run with the inputs and settings it began with."""
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            raise RunError(f"{folder} holds no run to resume: there is no config.yaml in it")
        trainer = cls.__new__(cls)
        trainer._setup(folder, load_config(folder / "config.yaml"), Inputs.load(folder), quiet)
        now, then = trainer.learner.fingerprint, read_json(folder / "versions.json")["start_model"]
        if now != then:
            raise RunError(
                f"{trainer.config.model} is not the model that {folder} began with: "
                f"its weights hash to {now}, then {then}"
            )
        return trainer

    def _setup(self, folder: Path, config: TrainConfig, inputs: Inputs, quiet: bool) -> None:
        self.folder, self.config, self.inputs, self.quiet = folder, config, inputs, quiet
        self.learner = Learner(config)
        self.oversight = Oversight(folder, config, self.learner, inputs)
        self.done, self.seconds, self.dropped = 0, 0.0, 0

    def run(self) -> dict[str, Any]:
        """Trains to the end; returns what is written to `summary.json`."""
        fresh = not self._load_state()
        repair_folder(self.folder / "best")
        last = -1 if fresh else self.done
        with RunLog(self.folder, self.config.rounds, last, self.quiet) as log:
            if self.inputs.dropped:
                log.say(f"{len(self.inputs.dropped)} inputs dropped, see data/dropped.jsonl")
            if self.config.guard.enabled and not self.oversight.stopped:
                self.oversight.begin(fresh, log)
            while self.done < self.config.rounds and not self.oversight.stopped:
                self._round(self.done + 1, log)
            return self._finish(log)

    def _round(self, index: int, log: RunLog) -> None:
        clock = Clock()
        folder = self.folder / "rounds" / f"{index:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        learner = self.learner
        with learner.autocast():
            rollouts, conditions = sample_phase(
                folder, learner.policy, self.inputs, self.config, index
            )
            clock.lap("sample")
            rewards = score_phase(
                folder, learner.scorer, learner.policy, rollouts, conditions, self.config, index
            )
            clock.lap("score")
            chosen = select_phase(folder, rewards, self.config)
            names = [one.direction for one in rollouts]
            scored = [
                Scored(one, conditions[name], rewards[name], chosen[name])
                for name, one in zip(names, rollouts, strict=True)
            ]
            clock.lap("select")
            numbers = learner.optimise(scored)
        for one in scored:
            numbers |= round_numbers(one)
            rows = dropped_rows(index, one)
            self.dropped += len(rows)
            log.dropped(rows)
        clock.lap("optimise")
        looked = self.oversight.after_round(index, numbers, log)
        clock.lap("guard")
        self.done = index
        self.seconds += clock.total
        log.round(index, {"seconds": clock.total, **clock.laps, **numbers})
        self._write(index, looked)

    def _write(self, index: int, looked: bool) -> None:
        """State, checkpoints, and the end of what is too old.

        A look is always followed by a state, for `best/` may have changed, and work that is done
        again must find the one it found.
        """
        settings = self.config.checkpoint
        if index % settings.every == 0:
            with self.learner.updater.averaged():
                write_folder(
                    self.folder / "checkpoints" / f"{index:06d}", self.learner.policy.save
                )  # fmt: skip
            prune(self.folder / "checkpoints", settings.keep)
        if looked or index % settings.state_every == 0 or index == self.config.rounds:
            tensors, meta = self.learner.state()
            ours = {"seconds": self.seconds, "dropped": self.dropped}
            save_state(self.folder, index, tensors, meta | ours | self.oversight.state())
            prune(self.folder / "rounds", settings.keep_rounds)

    def _load_state(self) -> bool:
        found = load_state(self.folder)
        if found is None:
            return False
        tensors, meta = found
        self.learner.load_state(tensors, meta)
        self.oversight.load_state(meta)
        self.done, self.seconds, self.dropped = meta["round"], meta["seconds"], meta["dropped"]
        return True

    def _finish(self, log: RunLog) -> dict[str, Any]:
        """Writes model/ and summary.json: the guard's best weights, or the averaged last ones."""
        guard = self.oversight.guard
        guarded = self.config.guard.enabled
        if guarded:
            best, model = self.folder / "best", self.folder / "model"
            write_folder(model, lambda to: shutil.copytree(best, to, dirs_exist_ok=True))
        else:
            with self.learner.updater.averaged():
                write_folder(self.folder / "model", self.learner.policy.save)
        kept = guard.best if guarded else self.done
        summary = {
            "rounds": self.done,
            "rounds_asked": self.config.rounds,
            "kept_round": kept,
            "stopped": self.oversight.stopped or None,
            "seconds": round(self.seconds, 3),
            "inputs_dropped": len(self.inputs.dropped),
            "candidates_dropped": self.dropped,
            "guard": guard.state() if guarded else None,
            "model": str(self.folder / "model"),
        }
        write_json(self.folder / "summary.json", summary)
        log.say(f"{self.done} rounds; the weights of round {kept} are in {self.folder / 'model'}")
        return summary
