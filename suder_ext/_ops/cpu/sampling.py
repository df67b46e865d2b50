"""CPU kernels of sample_token: allocate the results, pass addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from suder_ext._load import compiled
from suder_ext._ops.cpu.call import DTYPE_CODES, address, floats, integers, kernel, rows, vector

assert compiled is not None
_from_logits, _from_hidden = compiled.sample_token, compiled.linear_sample_token


@kernel("sample_token")
def sample_token(
    logits: Tensor, uniform: Tensor | None, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor, Tensor]:
    logits, uniform = rows(logits), vector(uniform)
    count, vocab = logits.shape
    token, logprob, entropy = integers(count), floats(count), floats(count)
    _from_logits(
        logits.data_ptr(),
        count,
        vocab,
        logits.stride(0),
        DTYPE_CODES[logits.dtype],
        temperature,
        torch.get_num_threads(),
        address(uniform),
        top_k,
        top_p,
        token.data_ptr(),
        logprob.data_ptr(),
        entropy.data_ptr(),
    )
    return token, logprob, entropy


@kernel("linear_sample_token")
def linear_sample_token(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    uniform: Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight = rows(hidden), rows(weight)
    bias, uniform = vector(bias), vector(uniform)
    count, features = hidden.shape
    token, logprob, entropy = integers(count), floats(count), floats(count)
    _from_hidden(
        hidden.data_ptr(),
        count,
        features,
        hidden.stride(0),
        weight.data_ptr(),
        weight.shape[0],
        weight.stride(0),
        address(bias),
        DTYPE_CODES[hidden.dtype],
        temperature,
        torch.get_num_threads(),
        address(uniform),
        top_k,
        top_p,
        token.data_ptr(),
        logprob.data_ptr(),
        entropy.data_ptr(),
    )
    return token, logprob, entropy
