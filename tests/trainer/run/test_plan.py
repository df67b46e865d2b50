"""What a run is said to hold, beside what it held; and runs that cannot fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torch.utils._pytree import tree_leaves

from suder.run.dry import LiveBytes
from suder.run.plan import plan
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig


class EveryByte(LiveBytes):
    """Counts what operators are given, too: weights, and what they change in place."""

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return super().__torch_dispatch__(function, types, args, kwargs)


# No more than are written by a random model, which does not end its captions by itself.
@pytest.mark.parametrize(
    "settings",
    [
        ["directions=understanding"],
        ["objective.name=simpo", "dtype=bfloat16"],
        ["optimizer.tokens_per_batch=200", "sampling.guidance=3", "sampling.policy=cfg"],
        ["optimizer.checkpoint_activations=true", "lora.rank=4"],
    ],
    ids=" ".join,
)
def test_a_run_holds_what_was_said(
    make_config: Callable[..., TrainConfig], settings: list[str]
) -> None:
    common = ("rounds=2", "guard.enabled=false", "candidates=8", "inputs_per_round=6")
    config = make_config(*common, *settings)
    said = plan(config)
    with EveryByte() as seen:
        Trainer(config, quiet=True).run()
    print(
        {k: round(v / 1e6, 2) for k, v in (said.held | said.phases).items()}, said.total, seen.peak
    )
    assert said.total == pytest.approx(seen.peak, rel=0.15)
