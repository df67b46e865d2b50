"""A run: sample -> score -> select -> optimise, again and again, watched by the guard."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from suder import ranks
from suder.models.base import NotFinite
from suder.models.unknown import not_known
from suder.run.beginning import Beginning, begun, taken_up
from suder.run.candidates import candidates_of
from suder.run.exported import keep_table
from suder.run.finishing import finish
from suder.run.folder import RunError, read_origin
from suder.run.leftovers import forget, tidy
from suder.run.logs import Clock, RunLog
from suder.run.oversight import Oversight
from suder.run.phases import drop_damaged
from suder.run.replay import Replay
from suder.run.said import all_cut, dropped_rows, lost_rows, round_numbers
from suder.run.states import States
from suder.run.stopping import Stopped, Stopping
from suder.settings.config import TrainConfig
from suder.storage.folders import make_folder, sole_writer
from suder.storage.shown import counted


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
        self._set_out(begun(config), quiet)

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
        trainer = cls.__new__(cls)
        trainer._set_out(taken_up(Path(folder), start_over, rounds), quiet)
        trainer.anew = start_over
        return trainer

    def _set_out(self, start: Beginning, quiet: bool) -> None:
        self.folder, self.config, self.quiet = start.folder, start.config, quiet
        self.origin, self.notes, self.source = start.origin, start.notes, start.source
        self.learner, self.inputs = start.learner, start.inputs
        self.replay = Replay(start.config)
        self.oversight = Oversight(start.folder, start.config, start.learner, start.inputs)
        self.states = States(
            start.folder, start.config, start.origin["run"], start.learner, self.oversight,
            self.replay,
        )  # fmt: skip
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
        states, writes = self.states, ranks.first()
        with RunLog(self.folder, self.config.rounds, states.saved, self.quiet, writes) as log:
            with ranks.each():
                log.track(self.config, self.origin["run"])
            try:
                return self._rounds(log)
            except Stopped as stopped:
                if 0 <= states.saved < states.done:
                    states.save(states.done)
                where = "before the first state was written"
                if states.saved >= 0:
                    where = f"after round {states.saved}, whose state is written"
                stopped.words += f" {where}; to go on: suder train --resume {self.folder}"
                raise

    def _load_state(self) -> None:
        if self.anew:
            ranks.from_first(lambda: forget(self.folder, self.config))
            self.anew = False
        else:
            self.notes += self.states.load()

    def _rounds(self, log: RunLog) -> dict[str, Any]:
        states = self.states
        for note in self.notes:
            log.say(note)
        if self.source and states.saved <= 0:
            log.say(self.source.told(self.config))
        if self.inputs.dropped:
            log.say(f"{counted(len(self.inputs.dropped), 'input')} dropped, see data/dropped.jsonl")
        if states.saved < 0 and (warning := not_known(self.learner.policy, self.inputs.prompts)):
            log.say(f"warning: {warning}")
        with self.stop.at_once():
            if self.config.guard.enabled and not self.oversight.stopped:
                self.oversight.begin(states.saved < 0, log)
            if states.saved < 0:
                states.save(0)  # from here on, a run without a state has lost it
        while states.done < self.config.rounds and not self.oversight.stopped:
            self._round(states.done + 1, log)
        with self.stop.at_once():
            return finish(states, len(self.inputs.dropped), log)

    def _round(self, index: int, log: RunLog) -> None:
        clock, states = Clock(), self.states
        folder = self.folder / "rounds" / f"{index:06d}"
        for fault in ranks.from_first(lambda: self._prepare(folder)):
            log.say(fault)
        with self.stop.at_once():  # until here the weights are those of the round before
            broken = None
            try:
                scored, anchor = candidates_of(
                    folder, index, self.learner, self.inputs, self.replay, self.source, clock, log
                )
            except NotFinite as error:
                broken, scored, anchor = error, [], None
        # From here on they move: without a state of the round before, the round is finished.
        with self.stop.at_once(states.saved == states.done):
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
            states.dropped += len(rows)
            with ranks.each():
                log.dropped(rows)
            clock.lap("optimise")
            keep_table(
                self.folder, scored, index, self.config, self.origin, self.learner.policy,
                self.inputs.digests,
            )  # fmt: skip
            looked = bool(broken) or self.oversight.after_round(index, numbers, log)
            clock.lap("guard")
            states.seconds += clock.total
            with ranks.each():
                log.round(index, {"seconds": clock.total, **clock.laps, **numbers})
            states.write(index, looked)
            states.done = index

    def _prepare(self, folder: Path) -> list[str]:
        make_folder(folder)
        return drop_damaged(folder)
