"""The guard at work in a run: looks at the averaged weights, keeps the best, stops, rolls back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suder import ranks
from suder.guard.drift import bands
from suder.guard.look import Look
from suder.guard.rule import Guard, Verdict
from suder.guard.watch import Watch
from suder.inputs.data import Inputs
from suder.method.directions import trained
from suder.models.base import NotFinite, UnifiedModel
from suder.run.learner import Learner
from suder.run.logs import RunLog
from suder.run.looks import is_shown, save_inputs, save_strip
from suder.settings.config import TrainConfig
from suder.storage.files import read_jsonl, seed_of
from suder.storage.folders import write_folder
from suder.storage.shown import counted

SKIPS = 3  # rounds in a row with a gradient that is not finite before the guard is called


class Oversight:
    """Carries out what the guard says.

    Attributes:
        guard: the rule and its memory.
        stopped: why the run ended before its time; "" while it goes on.
    """

    def __init__(self, folder: Path, config: TrainConfig, learner: Learner, inputs: Inputs) -> None:
        self.folder, self.best = folder, folder / "best"
        self.config, self.learner, self.inputs = config, learner, inputs
        self.guard = Guard(config.guard, trained(config), config.rounds)
        self.watch: Watch | None = None
        self.stopped = ""

    def begin(self, fresh: bool, log: RunLog) -> None:
        """Prepares the held-out inputs; the start model is the first to be looked at and kept."""
        start = self.learner.start
        self.watch = Watch(
            start,
            self.inputs.watched_images,
            self.inputs.watched_prompts,
            self.config,
            seed_of(self.config.seed, "guard"),
            self.inputs.digests,
            self.learner.reward_model,
        )
        if lost := self.watch.lost:
            log.say(f"guard: {counted(len(lost), 'picture')} left out, see data/dropped.jsonl")
            about = {"round": 0, "direction": "understanding"}
            rows = [about | {"input": path, "why": why} for path, why in lost]
            known = read_jsonl(
                self.folder / "data" / "dropped.jsonl"
            )  # by this run's earlier lives
            log.dropped([row for row in rows if row not in known])
        look = self._look(start, 0, log)
        if fresh:
            if self.watch.unasked:
                log.say(f"guard: nobody is asked what pictures show: {self.watch.unasked}")
            self.guard.judge(look)
            self._keep(self.learner.policy)  # still the start's weights, and never rounded
            with ranks.each():
                if ranks.first():
                    save_inputs(self.folder, self.watch, self.inputs.digests)
            self._show(0)
            log.round(0, look.log() | bands(look, self.config.guard.drift_limit))

    def after_round(self, index: int, numbers: dict[str, float], log: RunLog) -> bool:
        """Looks if it is time and does what the guard says; True if anything may have changed."""
        if self.learner.skips >= SKIPS:
            verdict = self.guard.alarm(f"gradient not finite {SKIPS} rounds in a row")
            self._obey(verdict if self.config.guard.enabled else "stop", index, log)
            return True
        due = index % self.config.guard.every == 0 or index == self.config.rounds
        if self.watch is None or not due:
            return False
        with self.learner.updater.averaged():
            look = self._look(self.learner.current(), index, log)
            verdict = self.guard.judge(look)
            if verdict == "keep":
                self._keep(self.learner.policy)
        self._show(index)
        numbers |= look.log() | {"guard/best": float(self.guard.best)}
        self._obey(verdict, index, log)
        return True

    def _look(self, model: UnifiedModel, index: int, log: RunLog) -> Look:
        watch, batches = self.watch, self.learner.batches
        assert watch is not None
        return batches.within_memory(
            lambda: watch.look(model, index, batches.rows, batches.tokens), log.say, "guard"
        )

    def _show(self, index: int) -> None:
        assert self.watch is not None
        if is_shown(index, self.config):
            with ranks.each():
                if ranks.first():
                    save_strip(self.folder, index, self.watch.strip)

    def broken(self, index: int, error: NotFinite, log: RunLog) -> None:
        """No round could be made of these weights: as bad as a look can be, and none is needed.

        Raises:
            NotFinite: there is no guard, or it only watches.
        """
        verdict = self.guard.alarm(str(error)) if self.config.guard.enabled else "hold"
        if verdict == "hold":
            raise error
        self._obey(verdict, index, log)

    def _keep(self, model: UnifiedModel) -> None:
        model = self.learner.plain(model)
        with ranks.each():
            if ranks.first():
                save = lambda to: self.learner.save_best(to, model)  # noqa: E731
                write_folder(self.best, save, self.learner.size)

    def _obey(self, verdict: Verdict, index: int, log: RunLog) -> None:
        guard, best = self.guard, self.guard.best
        if verdict == "rollback":
            self.learner.restart(self.best)
            log.say(f"guard, round {index}: {guard.note}; back to round {best}, half the rate")
        elif verdict == "stop":
            self.stopped = guard.note
            log.say(f"guard, round {index}: {guard.note}; stopped, best is round {best}")
        elif verdict == "hold" and guard.declines:
            log.say(f"guard, round {index}: {guard.note}; best is still round {best}")

    def state(self) -> dict[str, Any]:
        return {"guard": self.guard.state(), "stopped": self.stopped}

    def load_state(self, state: dict[str, Any]) -> None:
        self.guard.load_state(state["guard"])
        self.stopped = state["stopped"]
