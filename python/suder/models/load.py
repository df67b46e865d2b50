"""`load_model`: a folder, a name on the Hugging Face hub, or an embedded model, as an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from suder.models.checkpoint_files import check_weights, dtype_of, read_config, read_headers
from suder.models.decoder.adapter import DecoderModel
from suder.models.families import Family
from suder.models.find import find_model
from suder.models.quiet import without_bars
from suder.models.usable import check_device, check_no_run


def load_model(
    path_or_id: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> DecoderModel:
    """Loads a checkpoint of a known family in transformers' own format, in evaluation mode.

    The families are in `suder.models.families`: Janus and Janus-Pro, Emu3, Liquid.

    Only safetensors are read and no code of the checkpoint is run. What is loaded is the
    checkpoint, no tensor more or less; what `save` writes has its dtype, unless `saved` says
    another.

    Args:
        path_or_id: a local folder, a hub name such as "deepseek-community/Janus-Pro-1B", or
            "shapes" / "shapes-2": the small models that come with the package.
        device: where the model goes.
        dtype: float32, bfloat16 or float16.
        options: keyword arguments of the family's adapter, such as `question` of `Janus`.

    Raises:
        OSError: no such folder or model, or one without safetensors.
        ValueError: a checkpoint of another model family; files that are damaged or do not belong
            together; tensors that are missing, unexpected or misshapen; the folder of a run; no
            such device.
    """
    check_device(device)
    folder, others = find_model(path_or_id)
    check_no_run(folder)
    family, config = read_config(folder)
    tensors = read_headers(folder, others)
    check_weights(folder, family, config, tensors)
    with without_bars():
        model = family.model.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    options.setdefault("saved", dtype_of(tensors))
    processor = read_processor(folder, family)
    return family.adapter.of_folder(folder, model, processor, **options).to(device).eval()


def read_processor(folder: Path, family: Family) -> Any:
    """The checkpoint's tokenizer and picture processor; no code of it is run."""
    try:
        # Of a folder nothing is fetched; `local_files_only` would be saved with the tokenizer.
        return family.processor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ValueError(
            f"load_model: tokenizer or picture processor in {folder} cannot be read: {why}"
        ) from error
