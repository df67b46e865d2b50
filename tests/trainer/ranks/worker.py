"""One process of a run, as a launcher starts it: runs of settings files one after the other.

A name before a file, as in `full:run.yaml`, is of a fault that process 1 has in that run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch

from suder import ranks
from suder.models import load_model
from suder.models.away import comes_and_goes
from suder.run import learner, rounds
from suder.run.trainer import Trainer
from suder.settings.config_file import load_config


def once(at: int, happens: Callable[[], Any]) -> Callable[..., Any]:
    """`select` of rounds, at whose call number `at` something happens in process 1."""
    honest, calls = rounds.reward_of, iter(range(1, 1000))

    def wrapped(*arguments: Any) -> Any:
        if next(calls) == at and ranks.rank() == 1:
            happens()
        return honest(*arguments)

    return wrapped


def load(
    path: Any,
    device: Any = "cpu",
    _: Any = None,
    compute: torch.dtype | None = None,
    **options: Any,
) -> Any:
    """A model in float64, which a test can follow for many rounds; unless it computes in 16 bits,
    for that is not done to float64.
    """
    dtype = torch.float64 if compute is None else torch.float32
    return load_model(path, device, dtype, compute=compute, **options)


FAULTS: dict[str, Callable[[], Any]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "asked": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def main() -> None:
    torch.set_num_threads(1)
    learner.load_model = load
    for argument in sys.argv[1:]:
        fault, _, path = argument.rpartition(":")
        if fault:
            rounds.reward_of = once(3, FAULTS[fault])
        config = load_config(path)
        there = os.path.exists(os.path.join(config.output, "config.yaml"))
        trainer = Trainer.resume(config.output) if there else Trainer(config)
        try:
            trainer.run()
            trained = [one for one in trainer.learner.policy.parameters() if one.requires_grad]
            divided = config.optimizer.shard and ranks.count() > 1
            assert all(ranks.divided(one) == divided for one in trained)
            if divided:
                copies = trainer.learner.divided.reader, trainer.learner.divided.start
                assert set(map(comes_and_goes, copies)) == {config.sampling.offload}
        except KeyboardInterrupt as stopped:
            print(f"process {ranks.rank()}: {stopped}", flush=True)
    ranks.stop()


if __name__ == "__main__":
    main()
