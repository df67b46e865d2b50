"""A model of tensors that have shapes and no memory, to run it dry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import GenerationConfig

from suder.models.checkpoint_files import is_tied, read_config
from suder.models.decoder.adapter import DecoderModel
from suder.models.find import find_model
from suder.models.load import read_processor
from suder.models.usable import check_no_run
from suder.settings.learning import Lora


@contextmanager
def weightless(
    path_or_id: str,
    compute: torch.dtype | None,
    lora: Lora,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Iterator[DecoderModel]:
    """What `load_model` would load, without its weights; all that is made inside has none either.

    Args:
        options: keyword arguments of the family's adapter.

    Raises:
        OSError, ValueError: as `load_model`, where config or processor cannot be read.
    """
    folder, others = find_model(path_or_id)
    check_no_run(folder)
    family, config = read_config(folder)
    processor = read_processor(folder, family)
    config.tie_word_embeddings = is_tied(folder, others, family, config)
    with torch.device("meta"):
        core = family.model._from_config(config, dtype=dtype, attn_implementation="sdpa")
    if (folder / "generation_config.json").is_file():
        core.generation_config = GenerationConfig.from_pretrained(folder)
    model = family.adapter.of_folder(folder, core, processor, compute=compute, **options).eval()
    if lora.rank:
        model.add_lora(lora, 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _replace_tensors(model)
        yield model


def _replace_tensors(model: nn.Module) -> None:
    """Meta tensors have no autocast and mix with no others: each becomes a fake one of the CPU."""
    known: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            new = torch.empty(tensor.shape, dtype=tensor.dtype)
            known[id(tensor)] = (
                nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            )
        return known[id(tensor)]

    for module in model.modules():
        for tensors in (vars(module)["_parameters"], vars(module)["_buffers"]):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)
