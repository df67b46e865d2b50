"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: few trained weights, one start model.

The start model that KL and guard need is the policy without its adapters, so it shares every weight
but these. What is saved is a whole model with the adapters merged in, and peft's own adapter folder
beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from suder.models.save import ADAPTER
from suder.settings.learning import Lora

_NAME = "default"


def add_lora(core: Any, language_model: Any, settings: Lora, seed: int) -> Any:
    """A peft model around a transformers model; only the adapters in it are trained.

    Args:
        core: the transformers model.
        language_model: the part of it that gets adapters.
        settings: rank, alpha and which linear layers of the language model get adapters.
        seed: of the adapters' A; B begins at 0, so that the model is the start model at first.

    Raises:
        ModuleNotFoundError: peft is not installed.
        ValueError: a target that the language model has no linear layer for.
    """
    try:
        import peft
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "lora.rank above 0 needs peft: pip install 'suder[lora]', or set lora.rank to 0"
        ) from None
    there = {
        name.rpartition(".")[2]
        for name, layer in language_model.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    unknown = sorted(set(settings.targets) - there)
    if unknown:
        raise ValueError(
            f"lora.targets: the language model has no linear layer {', '.join(unknown)}; "
            f"it has {', '.join(sorted(there))}"
        )
    named = "|".join(sorted(settings.targets))
    where = next(name for name, module in core.named_modules() if module is language_model)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=rf"{re.escape(where)}\..*\.({named})",  # the vision towers share these names
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(core, config, adapter_name=_NAME)


def saved_adapters(path: str | Path) -> dict[str, torch.Tensor]:
    """The adapters that `save_model` wrote, under the names of the parameters they were."""
    tensors = load_file(Path(path) / ADAPTER / "adapter_model.safetensors")
    return {
        "model." + name.replace(".weight", f".{_NAME}.weight"): value
        for name, value in tensors.items()
    }


def has_adapters(model: Any, core: Any) -> bool:
    """Whether PEFT wraps the model, or transformers has put adapters into `core` itself."""
    return hasattr(model, "disable_adapter") or bool(getattr(core, "_hf_peft_config_loaded", False))


@contextmanager
def without_adapters(model: Any, core: Any) -> Iterator[None]:
    """The base model inside, whichever of both it is."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    core.disable_adapters()
    try:
        yield
    finally:
        core.enable_adapters()
