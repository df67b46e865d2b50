"""Adapters, a folder a family, behind the protocol of `suder.models.base`; loading, LoRA.

Nothing here may know what a model is used for: no rewards, no training, no files but checkpoints.
"""

from suder.models.base import Decoding, Direction, Hidden, UnifiedModel
from suder.models.janus.adapter import Janus
from suder.models.load import load_model

__all__ = ["Decoding", "Direction", "Hidden", "Janus", "UnifiedModel", "load_model"]
