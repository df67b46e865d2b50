"""The weights that steps read: 16-bit where products are, whatever training keeps.

Under torch's autocast every float32 matrix would be converted again at every step, and be read in
full to be so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from suder.models.base import UnifiedModel
from suder.models.precision import product_dtype


class Copy(NamedTuple):
    made_of: Hashable
    model: UnifiedModel
    refresh: Callable[[], None]


_copies: WeakKeyDictionary[Any, Copy] = WeakKeyDictionary()


def to_sample_with(model: UnifiedModel) -> UnifiedModel:
    """The model itself, or its copy for products in 16 bits, brought up to date in place.

    The copy is made once and shares with the model all that linear layers do not multiply by;
    recorded steps that read it stay valid. Adapters are merged.
    """
    with model.computing():
        dtype = product_dtype(torch.empty(0, dtype=model.dtype, device=model.device))
    if dtype == model.dtype or dtype.itemsize > 2:
        return model
    made_of = dtype, model.device, tuple(map(id, model.modules()))
    copy = _copies.get(model)
    if copy is None or copy.made_of != made_of:
        with torch.inference_mode(False):  # refreshed outside of it as well
            copy = _copies[model] = Copy(made_of, *model.inference_copy(dtype))
    copy.refresh()
    return copy.model


def places(model: UnifiedModel) -> Hashable:
    """Where the weights are: an average swapped in is elsewhere."""
    return tuple(weight.data_ptr() for weight in model.parameters())
