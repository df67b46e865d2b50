"""A run: sample -> score -> select -> optimise, again and again, watched by the guard."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from suder import ranks
from suder.inputs.data import Inputs, read_inputs
from suder.models.base import NotFinite
from suder.models.unknown import not_known
from suder.rollouts.files import write_table
from suder.rollouts.listed import read_listed
from suder.rollouts.offline import Offline, fitted
from suder.rollouts.schema import arrow
from suder.rollouts.usable import check_rows
from suder.run.exported import round_table
from suder.run.fitting import fitting
from suder.run.folder import (
    RunError,
    begin,
    changes,
    check_rollouts,
    check_start,
    extended,
    has_begun,
    read_origin,
    refuse_used,
    what_is_left,
)
from suder.run.learner import Learner
from suder.run.leftovers import drop_checkpoints, drop_rounds, forget, tidy
from suder.run.logs import Clock, RunLog
from suder.run.oversight import Oversight
from suder.run.phases import drop_damaged
from suder.run.replay import Replay
from suder.run.rounds import Scored, Scorers, parts_of, score_phase, select_phase
from suder.run.said import all_cut, dropped_rows, lost_rows, round_numbers
from suder.run.sampled import Anchor, Sampled, sample_phase
from suder.run.stopping import Stopped, Stopping
from suder.run.taken import taken_phase
from suder.run.trackers import check_trackers
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config, load_config
from suder.storage.checkpoint import load_state, save_state, state_files
from suder.storage.files import DamagedFile, read_object, write_json, write_text
from suder.storage.folders import make_folder, sole_writer, write_folder

JUDGED = "evaluation"  # a key of summary.json that `suder evaluate` writes


class Trainer:
    """One run in one folder.

    `Trainer(config).run()` starts one; `Trainer.resume(folder).run()` goes on with one that was
    interrupted, at any moment, to the same final weights (bit for bit on the CPU).

    Raises:
        RunError: the folder holds a run already, or none to resume.
        FolderError: the folder is not empty and not ours, or somebody else writes to it.
        DataError: there are no usable inputs.
    """

    def __init__(self, config: TrainConfig, *, quiet: bool = False) -> None:
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
        self._setup(folder, config, inputs, quiet, source)
        start, asked = self.learner.fingerprint, self.learner.asked
        files = source.files if source else None
        self.origin = ranks.from_first(
            lambda: begin(folder, config, self.inputs, start, asked, files)
        )

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike[str],
        *,
        quiet: bool = False,
        start_over: bool = False,
        rounds: int | None = None,
    ) -> Trainer:
        """Takes up an interrupted run with the inputs and settings it began with.

        Args:
            start_over: begin again from the start model, whatever state there is; `run` then
                deletes all that the run made before.
            rounds: go on until so many, also with a finished run. The weights are those of a run
                that was asked for as many, if the guard looked at the last round anyhow
                (`guard.every`) or is off; but what it kept was judged by the bounds of the looks
                that were planned then.
        """
        folder = Path(folder)
        origin = read_origin(folder)
        config = load_config(folder / "config.yaml")
        if rounds is not None:
            config = ranks.from_first(lambda: extended(folder, config, rounds))
        ranks.start(config.device)

        def look() -> Inputs:
            with sole_writer(folder):  # said at once, not after the model is loaded
                if has_begun(folder) and not state_files(folder) and not start_over:
                    lost = f"{folder / 'state'} holds no state to go on from. {_ways(folder)}"
                    raise RunError(lost)
            return Inputs.load(folder)

        trainer = cls.__new__(cls)
        inputs = ranks.from_first(look)
        source = Offline.read(config) if config.data.rollouts else None
        if source:
            check_rollouts(folder, origin, source.files)
        trainer._setup(folder, config, inputs, quiet, source)
        learner = trainer.learner
        check_start(folder, trainer.config.model, origin, learner.fingerprint, learner.asked)
        if rounds is not None:

            def extend() -> None:
                with sole_writer(folder):
                    write_text(folder / "config.yaml", dump_config(config))

            ranks.from_first(extend)
        trainer.origin, trainer.anew = origin, start_over
        trainer.notes = ranks.from_first(lambda: changes(origin, trainer.inputs))
        return trainer

    def _setup(
        self,
        folder: Path,
        config: TrainConfig,
        inputs: Inputs,
        quiet: bool,
        source: Offline | None,
    ) -> None:
        self.folder, self.config, self.quiet = folder, config, quiet
        check_trackers(config.log_with)
        if config.checkpoint.rollouts:
            arrow("pyarrow.parquet")  # not after hours, when the first file is written
        self.learner = Learner(config)
        self.inputs = inputs = fitting(
            inputs, config.sampling, self.learner.policy, config.data.pairing
        )
        self.replay = Replay(config)
        self.source = source
        if source:
            source.keep(inputs)
            check_rows(source, self.learner.current(), config)
        self.oversight = Oversight(folder, config, self.learner, inputs)
        self.done, self.saved, self.seconds, self.dropped = 0, -1, 0.0, 0
        self.notes: list[str] = []
        self.told: set[str] = set()
        self.stop, self.anew = Stopping(), False

    def run(self) -> dict[str, Any]:
        """Trains to the end; returns what is written to `summary.json`.

        Raises:
            Stopped: SIGTERM or SIGINT came; the state is written, `resume` goes on from it.
            WriteError: the disk is full; what was there before is whole, `resume` goes on.
            RunError: another Trainer began a run in the folder after this one was made.
            Lost: another of the run's processes has ended; `resume` goes on.
        """
        try:
            with ExitStack() as held:
                with ranks.each():
                    if ranks.first():  # has the folder's lock for all
                        held.enter_context(sole_writer(self.folder))
                with self.stop:
                    return self._run()
        except ranks.Lost as lost:
            again = f"to go on: suder train --resume {self.folder}"
            raise ranks.Lost(f"{lost}; {again}") from lost

    def _run(self) -> dict[str, Any]:
        if read_origin(self.folder)["run"] != self.origin["run"]:
            raise RunError(
                f"another run was begun in {self.folder} since this one was; to go on with "
                f"that one: suder train --resume {self.folder}"
            )
        self._load_state()
        with ranks.each():
            if ranks.first():
                tidy(self.folder)
        rounds, writes = self.config.rounds, ranks.first()
        with RunLog(self.folder, rounds, self.saved, self.quiet, writes) as log:
            with ranks.each():
                log.track(self.config, self.origin["run"])
            try:
                return self._rounds(log)
            except Stopped as stopped:
                if 0 <= self.saved < self.done:
                    self._save_state(self.done)
                where = "before the first state was written"
                if self.saved >= 0:
                    where = f"after round {self.saved}, whose state is written"
                stopped.words += f" {where}; to go on: suder train --resume {self.folder}"
                raise

    def _rounds(self, log: RunLog) -> dict[str, Any]:
        for note in self.notes:
            log.say(note)
        if self.source and self.saved <= 0:
            log.say(self.source.told(self.config))
        if self.inputs.dropped:
            count = len(self.inputs.dropped)
            log.say(f"{count} input{'s' * (count != 1)} dropped, see data/dropped.jsonl")
        if self.saved < 0 and (warning := not_known(self.learner.policy, self.inputs.prompts)):
            log.say(f"warning: {warning}")
        with self.stop.at_once():
            if self.config.guard.enabled and not self.oversight.stopped:
                self.oversight.begin(self.saved < 0, log)
            if self.saved < 0:
                self._save_state(0)  # from here on, a run without a state has lost it
        while self.done < self.config.rounds and not self.oversight.stopped:
            self._round(self.done + 1, log)
        with self.stop.at_once():
            return self._finish(log)

    def _round(self, index: int, log: RunLog) -> None:
        clock = Clock()
        folder = self.folder / "rounds" / f"{index:06d}"
        for fault in ranks.from_first(lambda: self._prepare(folder)):
            log.say(fault)
        with self.stop.at_once():  # until here the weights are those of the round before
            broken = None
            try:
                scored, anchor = self._scored(folder, index, clock, log)
            except NotFinite as error:
                broken, scored, anchor = error, [], None
        # From here on they move: without a state of the round before, the round is finished.
        with self.stop.at_once(self.saved == self.done):
            if broken:
                self.oversight.broken(index, broken, log)
            numbers = self.learner.optimise(scored, log.say, anchor) if scored else {}
            rows = [row for one in scored for row in dropped_rows(index, one)]
            rows += lost_rows(index, anchor.rollouts) if anchor else []
            for one in scored:
                numbers |= round_numbers(one)
                if (note := all_cut(one)) and note not in self.told:
                    self.told.add(note)  # once is enough
                    log.say(f"round {index}: {note}")
            numbers |= self.replay.learn(index, scored)
            self.dropped += len(rows)
            with ranks.each():
                log.dropped(rows)
            clock.lap("optimise")
            self._export(index, scored)
            looked = bool(broken) or self.oversight.after_round(index, numbers, log)
            clock.lap("guard")
            self.seconds += clock.total
            with ranks.each():
                log.round(index, {"seconds": clock.total, **clock.laps, **numbers})
            self._write(index, looked)
            self.done = index

    def _prepare(self, folder: Path) -> list[str]:
        make_folder(folder)
        return drop_damaged(folder)

    def _scored(
        self, folder: Path, index: int, clock: Clock, log: RunLog
    ) -> tuple[list[Scored], Anchor | None]:
        """The round's candidates, with rewards and selection; and samples of what it holds."""
        learner, batches, config = self.learner, self.learner.batches, self.config
        policy = learner.current()

        def sample() -> Sampled:
            again = self.replay.again
            given = folder, policy, self.inputs, config, index, batches.rows
            return taken_phase(*given, self.source) if self.source else sample_phase(*given, again)

        sampled = batches.within_memory(sample, log.say, "sample")
        rollouts, conditions = sampled.rollouts, sampled.conditions
        clock.lap("sample")

        def score() -> dict[str, Tensor]:
            learner.scorer.tokens_per_batch = batches.tokens
            if learner.judge is not None:
                learner.judge.tokens_per_batch = batches.tokens
            scorers = Scorers(learner.scorer, learner.judge, learner.external, learner.start)
            return score_phase(
                folder, scorers, policy, rollouts, conditions, config, index,
                self.inputs.digests, self.source,
            )  # fmt: skip

        rewards = batches.within_memory(score, log.say, "score")
        clock.lap("score")
        finished: dict[str, Tensor] = {one.direction: one.finished for one in rollouts}
        chosen = select_phase(folder, rewards, finished, config)
        clock.lap("select")
        names = [one.direction for one in rollouts]
        scored = [
            Scored(one, conditions[name], rewards[name], chosen[name], parts_of(rewards, name))
            for name, one in zip(names, rollouts, strict=True)
        ]
        return scored, sampled.anchor()

    def _export(self, index: int, scored: list[Scored]) -> None:
        """The round's candidates for others to read; a round done again writes the same bytes."""
        if not self.config.checkpoint.rollouts or not scored:
            return
        with ranks.each():
            if ranks.first():
                judged = [(one.rollouts, one.reward, one.selection) for one in scored]
                table = round_table(
                    judged, index, self.config, self.origin, self.learner.policy,
                    self.inputs.digests,
                )  # fmt: skip
                make_folder(self.folder / "rollouts")
                write_table(self.folder / "rollouts" / f"{index:06d}.parquet", table)

    def _write(self, index: int, looked: bool) -> None:
        """State, checkpoints, and the end of what is too old.

        A look is always followed by a state, for `best/` may have changed, and work that is done
        again must find the one it found.
        """
        settings = self.config.checkpoint
        if index % settings.every == 0:
            path = self.folder / "checkpoints" / f"{index:06d}"
            self._save_averaged(path)
            if ranks.first():
                drop_checkpoints(path.parent, index, settings.every, settings.keep)
        if looked or index % settings.state_every == 0 or index == self.config.rounds:
            self._save_state(index)
            if ranks.first():
                drop_rounds(self.folder / "rounds", index, settings.keep_rounds)

    def _save_averaged(self, path: Path) -> None:
        with self.learner.updater.averaged():
            self._write_model(path, self.learner.plain(self.learner.policy).save)

    def _write_model(self, path: Path, save: Callable[[Path], object]) -> None:
        with ranks.each():
            if ranks.first():
                write_folder(path, save, self.learner.size)

    def _save_state(self, index: int) -> None:
        tensors, meta = self.learner.state()
        meta |= {"seconds": self.seconds, "dropped": self.dropped, "run": self.origin["run"]}
        meta |= {"processes": ranks.count(), **self.oversight.state()}
        meta |= self.replay.state()
        with ranks.each():
            if ranks.first():
                save_state(self.folder, index, tensors, meta)
        self.saved = index

    def _load_state(self) -> None:
        """Goes on from the last state that is whole, and notes which were not.

        Raises:
            RunError: there was a state once and there is none that is whole.
        """
        tensors: dict[str, Tensor] = {}

        def look() -> tuple[dict[str, Any] | None, list[str]]:
            if self.anew:
                forget(self.folder, self.config)
                return None, []
            found, faults = load_state(self.folder, self.origin["run"])
            if found is None:
                if faults or has_begun(self.folder):
                    why = "\n".join([*faults, f"no state in {self.folder / 'state'} is whole"])
                    raise RunError(f"{why}. {_ways(self.folder)}")
                return None, []
            tensors.update(found[0])  # which the others get where they need them
            return found[1], faults

        meta, faults = ranks.from_first(look)
        self.anew = False
        if meta is None:
            return
        if (then := meta.get("processes", 1)) != ranks.count():
            self.notes.append(
                f"the run had {then} processes and has {ranks.count()} now: its inputs and its "
                "random numbers are the same, the last bits of its sums are not"
            )
        self.notes += [*faults, f"going on from round {meta['round']}"] if faults else []
        self.learner.load_state(tensors, meta)
        self.oversight.load_state(meta)
        self.replay.load_state(meta)
        self.done = self.saved = meta["round"]
        self.seconds, self.dropped = meta["seconds"], meta["dropped"]

    def _finish(self, log: RunLog) -> dict[str, Any]:
        """Writes model/ and summary.json: the guard's best weights, or the averaged last ones."""
        guard, model = self.oversight.guard, self.folder / "model"
        guarded = self.config.guard.enabled
        if guarded:
            best = self.folder / "best"
            self._write_model(model, lambda to: self.learner.save_final(best, to))
        else:
            self._save_averaged(model)
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
            "model": str(model),
        }

        def write() -> dict[str, Any]:
            told = summary | self._judged(kept)
            write_json(self.folder / "summary.json", told)
            return told

        summary = ranks.from_first(write)
        which = f"weights of round {kept}" if kept else "start model's own weights, unchanged,"
        log.say(f"{self.done} round{'s' * (self.done != 1)}; the {which} are in {model}")
        return summary

    def _judged(self, kept: int) -> dict[str, Any]:
        """The evaluation that a finished run's summary has got, if it is of the weights kept."""
        try:
            before = read_object(self.folder / "summary.json")
        except (OSError, DamagedFile):
            return {}
        same = before.get("kept_round") == kept
        return {JUDGED: before[JUDGED]} if same and JUDGED in before else {}


def _ways(folder: Path) -> str:
    return (
        f"{what_is_left(folder)}; to begin this run again from its start model: "
        f"suder train --resume {folder} --start-over"
    )
