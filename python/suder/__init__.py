"""SUDER: a unified multimodal model improves itself by dual self-rewards (arXiv 2506.07963).

model = suder.load_model("shapes")
pictures = suder.sample(model, "generation", ["a red circle"], n=4, seed=0)
rewards = suder.DualReward(model).generation(["a red circle"] * 4, pictures.tokens)
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suder.engine.sampling import Samples, sample
    from suder.method.judge import SelfJudge
    from suder.method.rewards import DualReward
    from suder.models import Janus, load_model
    from suder.run.trainer import Trainer
    from suder.settings.config import TrainConfig
    from suder.settings.config_file import load_config

try:
    __version__ = version("suder")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = [
    "DualReward",
    "Janus",
    "Samples",
    "SelfJudge",
    "TrainConfig",
    "Trainer",
    "__version__",
    "load_config",
    "load_model",
    "sample",
]

_HOME = {
    "DualReward": "suder.method.rewards",
    "Janus": "suder.models",
    "Samples": "suder.engine.sampling",
    "SelfJudge": "suder.method.judge",
    "TrainConfig": "suder.settings.config",
    "Trainer": "suder.run.trainer",
    "load_config": "suder.settings.config_file",
    "load_model": "suder.models",
    "sample": "suder.engine.sampling",
}


def __getattr__(name: str) -> Any:
    # transformers takes seconds to import; `suder --help` should not wait for it.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'suder' has no attribute {name!r}")
