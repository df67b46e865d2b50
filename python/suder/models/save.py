"""Writing a transformers model as a checkpoint of its own kind, whatever PEFT has put into it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suder.models.merged import plain_state
from suder.models.quiet import without_bars
from suder.storage.files import set_mode, usual_mode

ADAPTER = "adapter"  # below a saved model: at its top, transformers would take it for the model


def save_model(model: Any, core: Any, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes config and weights (safetensors), adapters merged; a PEFT model's also by themselves.

    Neither weights nor config in memory are touched: merging and taking back out would change bits.

    Args:
        model: the transformers model, or a PEFT model around it.
        core: the transformers model itself.
        path: a folder.
        dtype: of the weights written; None: as they are.

    Raises:
        ValueError: see `plain_state`; or the merged weights are not those of a plain model.
    """
    state = plain_state(core)
    bare = _bare(core, state, dtype or core.dtype)
    if dtype is not None:
        state = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in state.items()
        }
    with without_bars():
        bare.save_pretrained(path, state_dict=state)
    if model is not core:
        # Of embeddings only the adapters; whether they were resized, PEFT would ask the hub.
        model.save_pretrained(Path(path) / ADAPTER, save_embedding_layers=False)
    mode = usual_mode(Path(path) / ".partial")
    for folder in (Path(path), Path(path) / ADAPTER):
        for weights in folder.glob("*.safetensors"):
            set_mode(weights, mode)


def _bare(core: Any, state: dict[str, Tensor], dtype: torch.dtype) -> Any:
    """A plain model without memory that says of itself what is true of `state`.

    What is tied is taken out of `state` but once.
    """
    config = copy.deepcopy(core.config)
    tied = _tied(core, state)
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = tied
    with torch.device("meta"):
        bare = type(core)(config).to(dtype)
    bare.generation_config = core.generation_config
    plain = bare.state_dict()
    wrong = set(plain.keys() ^ state.keys())
    wrong |= {
        name for name in plain.keys() & state.keys() if plain[name].shape != state[name].shape
    }
    if wrong:
        raise ValueError(
            f"save: these weights are not those of a plain {type(core).__name__}: "
            f"{', '.join(sorted(wrong)[:5])}; is there a kind of adapter that cannot be merged?"
        )
    if tied:
        for copied in core._tied_weights_keys:
            del state[copied]
    return bare


def _tied(core: Any, state: dict[str, Tensor]) -> bool:
    """Whether every pair that may be one weight is one; adapters may have set them apart."""
    pairs = [(state[one], state[other]) for one, other in core._tied_weights_keys.items()]
    same = all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    asked = core.config.tie_word_embeddings
    return same or (asked and all(torch.equal(one, other) for one, other in pairs))
