"""Schemas of torch.ops.suder: flat tensors, no defaults, every result a fresh tensor.

Only the shapes the kernels take appear here; the public functions flatten to them. Each backward is
an operator of its own, so that torch.compile and opcheck see it.
"""

from __future__ import annotations

import torch

# The logits convention, everywhere: z = hidden @ weight.T + bias; if a softcap is given,
# z = softcap * tanh(z / softcap); z = z / temperature. logprob, lse and entropy are of this z.
SCHEMAS = {
    "linear_logprob": (
        "(Tensor hidden, Tensor weight, Tensor? bias, Tensor target, int ignore_index, "
        "float temperature, float? softcap, bool with_entropy) "
        "-> (Tensor logprob, Tensor lse, Tensor entropy)"
    ),
    "linear_logprob_backward": (
        "(Tensor? grad_logprob, Tensor? grad_lse, Tensor? grad_entropy, Tensor hidden, "
        "Tensor weight, Tensor? bias, Tensor target, Tensor lse, Tensor entropy, int ignore_index, "
        "float temperature, float? softcap, bool need_hidden, bool need_weight, bool need_bias) "
        "-> (Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias)"
    ),
    "logprob": (
        "(Tensor logits, Tensor target, int ignore_index, float temperature, float? softcap, "
        "bool with_entropy) -> (Tensor logprob, Tensor lse, Tensor entropy)"
    ),
    "logprob_backward": (
        "(Tensor? grad_logprob, Tensor? grad_lse, Tensor? grad_entropy, Tensor logits, "
        "Tensor target, Tensor lse, Tensor entropy, int ignore_index, float temperature, "
        "float? softcap) -> Tensor grad_logits"
    ),
    "sequence_reduce": (
        "(Tensor logprob, Tensor target, Tensor cu_seqlens, bool mean, int ignore_index) "
        "-> (Tensor value, Tensor count)"
    ),
    "sequence_reduce_backward": (
        "(Tensor grad_value, Tensor target, Tensor cu_seqlens, Tensor count, bool mean, "
        "int ignore_index) -> Tensor grad_logprob"
    ),
    "group_advantage": (
        "(Tensor reward, int group_size, str normalize) "
        "-> (Tensor advantage, Tensor best, Tensor worst)"
    ),
}

library = torch.library.Library("suder", "DEF")
for name, schema in SCHEMAS.items():
    library.define(name + schema)
