"""`load_model`: a folder, a name on the Hugging Face hub, or an embedded model, as an adapter."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, JanusForConditionalGeneration, JanusProcessor

from suder.models.janus.adapter import Janus
from suder.models.usable import check_device, check_no_run

EMBEDDED = {"shapes": "shapes-1", "shapes-2": "shapes-2"}


def load_model(
    path_or_id: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Janus:
    """Loads a Janus or Janus-Pro checkpoint in transformers' own format, in evaluation mode.

    Only safetensors are read and no code of the checkpoint is run.

    Args:
        path_or_id: a local folder, a hub name such as "deepseek-community/Janus-Pro-1B", or
            "shapes" / "shapes-2": the small models that come with the package.
        device: where the model goes.
        dtype: float32, bfloat16 or float16.
        options: keyword arguments of `Janus`, such as `question`.

    Raises:
        FileNotFoundError: an embedded model that this installation lacks.
        ValueError: a checkpoint of another model family, the folder of a run, or no such device.
    """
    check_device(device)
    check_no_run(Path(path_or_id))
    path = _embedded(str(path_or_id)) if str(path_or_id) in EMBEDDED else str(path_or_id)
    config = AutoConfig.from_pretrained(path)
    if config.model_type != "janus":
        raise ValueError(
            f"load_model: {path} is a {config.model_type!r} checkpoint; suder has an adapter for "
            "'janus' (transformers' format, e.g. deepseek-community/Janus-Pro-1B; the "
            "deepseek-ai/ repositories hold the older 'multi_modality' format)"
        )
    model = JanusForConditionalGeneration.from_pretrained(
        path, config=config, dtype=dtype, attn_implementation="sdpa", use_safetensors=True
    )
    processor = JanusProcessor.from_pretrained(path)
    return Janus(model, processor, **options).to(device).eval()


def _embedded(name: str) -> str:
    folder = Path(str(resources.files("suder"))) / "assets" / EMBEDDED[name]
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"load_model: the embedded model {name!r} is not at {folder}; reinstall suder, or make "
            f"it with `suder pretrain --world shapes --seed {EMBEDDED[name][-1]} --out {folder}`"
        )
    return str(folder)
