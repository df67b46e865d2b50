"""What a comparison on a card calls can be called: it goes past the public functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.overrides import TorchFunctionMode

from benchmarks.gpu import compare
from tests.ops.emulated import EMULATED, use_emulated


class CpuForCuda(TorchFunctionMode):
    """Tensors made on "cuda" are on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **kwargs | ({"device": "cpu"} if "device" in kwargs else {}))


@pytest.mark.skipif(not EMULATED, reason="the emulated kernels are not built")
def test_every_candidate_runs_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def run(task: str, shape: str, candidates: dict[str, Callable[[], object]], *_: object) -> None:
        for name, candidate in candidates.items():
            candidate()
            names.append(f"{task}: {name}")

    monkeypatch.setattr(compare, "rows", run)
    monkeypatch.setattr(compare, "ways", lambda: {"ours, mma.sync": "mma", "ours, tiles": "tiles"})
    monkeypatch.setattr(compare.peers, "available", lambda: ({}, []))
    with use_emulated(EMULATED[0]), CpuForCuda():
        compare.forward(24, 64, 600)
        compare.both(24, 64, 600)
        compare.from_logits(24, 600)
    assert sum("ours" in name for name in names) == 6
