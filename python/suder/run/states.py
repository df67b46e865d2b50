"""What a run keeps on disk as it goes: states to go on from, checkpoints, averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from suder import ranks
from suder.run.folder import RunError, has_begun, ways_on
from suder.run.learner import Learner
from suder.run.leftovers import drop_checkpoints, drop_rounds
from suder.run.oversight import Oversight
from suder.run.replay import Replay
from suder.settings.config import TrainConfig
from suder.storage.checkpoint import load_state, save_state
from suder.storage.folders import write_folder
from suder.storage.shown import counted


class States:
    """How far a run has come, and what of it is on disk.

    Args:
        run: its name, which its states bear.

    Attributes:
        done: rounds; saved: the last of them whose state is written, -1 before the first state.
        seconds: that the rounds took; dropped: candidates and inputs that taught nothing.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        run: str,
        learner: Learner,
        oversight: Oversight,
        replay: Replay,
    ) -> None:
        self.folder, self.config, self.run = folder, config, run
        self.learner, self.oversight, self.replay = learner, oversight, replay
        self.done, self.saved, self.seconds, self.dropped = 0, -1, 0.0, 0

    def write(self, index: int, looked: bool) -> None:
        """State, checkpoints, and the end of what is too old.

        A look is always followed by a state, for `best/` may have changed, and work that is done
        again must find the one it found.
        """
        settings = self.config.checkpoint
        if index % settings.every == 0:
            path = self.folder / "checkpoints" / f"{index:06d}"
            self.save_averaged(path)
            if ranks.first():
                drop_checkpoints(path.parent, index, settings.every, settings.keep)
        if looked or index % settings.state_every == 0 or index == self.config.rounds:
            self.save(index)
            if ranks.first():
                drop_rounds(self.folder / "rounds", index, settings.keep_rounds)

    def save_averaged(self, path: Path) -> None:
        with self.learner.updater.averaged():
            self.write_model(path, self.learner.plain(self.learner.policy).save)

    def write_model(self, path: Path, save: Callable[[Path], object]) -> None:
        with ranks.each():
            if ranks.first():
                write_folder(path, save, self.learner.size)

    def save(self, index: int) -> None:
        tensors, meta = self.learner.state()
        meta |= {"seconds": self.seconds, "dropped": self.dropped, "run": self.run}
        meta |= {"processes": ranks.count(), **self.oversight.state()}
        meta |= self.replay.state()
        with ranks.each():
            if ranks.first():
                save_state(self.folder, index, tensors, meta)
        self.saved = index

    def load(self) -> list[str]:
        """Goes on from the last state that is whole; sentences about those that were not.

        Raises:
            RunError: there was a state once and there is none that is whole.
        """
        tensors: dict[str, Tensor] = {}

        def look() -> tuple[dict[str, Any] | None, list[str]]:
            found, faults = load_state(self.folder, self.run)
            if found is None:
                if faults or has_begun(self.folder):
                    why = "\n".join([*faults, f"no state in {self.folder / 'state'} is whole"])
                    raise RunError(f"{why}. {ways_on(self.folder)}")
                return None, []
            tensors.update(found[0])  # which the others get where they need them
            return found[1], faults

        meta, faults = ranks.from_first(look)
        if meta is None:
            return []
        notes = []
        if (then := meta.get("processes", 1)) != ranks.count():
            notes.append(
                f"the run had {counted(then, 'process', 'processes')} and has {ranks.count()} now: "
                "its inputs and its random numbers are the same, the last bits of its sums are not"
            )
        notes += [*faults, f"going on from round {meta['round']}"] if faults else []
        self.learner.load_state(tensors, meta)
        self.oversight.load_state(meta)
        self.replay.load_state(meta)
        self.done = self.saved = meta["round"]
        self.seconds, self.dropped = meta["seconds"], meta["dropped"]
        return notes
