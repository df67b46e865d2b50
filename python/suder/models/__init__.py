"""Adapters: one file a model family, behind the protocol of `suder.models.base`."""

from suder.models.base import Decoding, Direction, Hidden, UnifiedModel
from suder.models.janus import Janus
from suder.models.load import load_model

__all__ = ["Decoding", "Direction", "Hidden", "Janus", "UnifiedModel", "load_model"]
