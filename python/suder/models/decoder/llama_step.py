"""One token a sequence through a decoder whose earlier keys and values are at hand.

The same sums as transformers' forward, with none of its work that repeats at every step: a small
model spends most of a step there. Adapters, quantised layers and hooks stay in force: what is not
just a linear layer is called as the module it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Emu3TextModel, GemmaModel, LlamaModel
from transformers.models.emu3.modeling_emu3 import Emu3MLP, Emu3RMSNorm
from transformers.models.gemma.modeling_gemma import GemmaMLP, GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from suder.models.decoder.cache import KeyValues

# Decoders of one construction: they differ in an activation, in what a norm multiplies by, and in
# what their embedding of tokens does.
KNOWN = (LlamaModel, GemmaModel, Emu3TextModel)


class LlamaStep:
    """`step(embeddings[R, D], position[R], cache)`: hidden states `[R, D]` after the norm.

    Args:
        llama: transformers' `LlamaModel`, or another of `KNOWN`.
        positions: how many positions a sequence can have.
    """

    def __init__(self, llama: Any, positions: int) -> None:
        self.norm = llama.norm
        self.layers = [_Layer(index, layer) for index, layer in enumerate(llama.layers)]
        weight = llama.embed_tokens.weight
        every = torch.arange(positions, device=weight.device).unsqueeze(0)
        cos, sin = llama.rotary_emb(weight, every)
        half = sin.shape[-1] // 2
        self.cos = cos[0]
        # Of x * cos + (-x2, x1) * sin, the sign is put into the table.
        self.sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)

    def __call__(self, embeddings: Tensor, position: Tensor, cache: KeyValues) -> Tensor:
        cos = self.cos.index_select(0, position).unsqueeze(1)
        sin = self.sin.index_select(0, position).unsqueeze(1)
        cache.begin()
        hidden = embeddings
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, cache)
        cache.written.add_(1)
        return _norm(self.norm, hidden)


class _Layer:
    def __init__(self, index: int, layer: Any) -> None:
        self.index = index
        self.before_attention, self.before_mlp = (
            layer.input_layernorm,
            layer.post_attention_layernorm,
        )
        attention = layer.self_attn
        self.width, self.scaling = attention.head_dim, attention.scaling
        self.query, self.key = _product(attention.q_proj), _product(attention.k_proj)
        self.value, self.output = _product(attention.v_proj), _product(attention.o_proj)
        three = attention.q_proj, attention.k_proj, attention.v_proj
        self.narrow, self.joined = _narrow(*three), _joined(*three)
        self.key_heads = attention.config.num_key_value_heads
        self.mlp = _mlp(layer.mlp)

    def __call__(self, hidden: Tensor, cos: Tensor, sin: Tensor, cache: KeyValues) -> Tensor:
        hidden = hidden + self._attend(_norm(self.before_attention, hidden), cos, sin, cache)
        return hidden + self.mlp(_norm(self.before_mlp, hidden))

    def _attend(self, normed: Tensor, cos: Tensor, sin: Tensor, cache: KeyValues) -> Tensor:
        heads, wide = (len(normed), -1, self.width), normed.dtype
        normed = normed.to(self.narrow or wide)
        if self.joined is None:
            query = self.query(normed).view(heads)
            turned = torch.cat([query, self.key(normed).view(heads)], 1)
            value = self.value(normed).view(heads)
        else:
            three = F.linear(normed, self.joined).view(heads)
            turned, value = three[:, : -self.key_heads], three[:, -self.key_heads :]
        queries, half = turned.shape[1] - self.key_heads, self.width // 2
        swapped = torch.cat([turned[..., half:], turned[..., :half]], -1)
        turned = turned * cos + swapped * sin
        cache.append(self.index, turned[:, queries:], value)
        seen = cache.attend(self.index, turned[:, :queries], self.scaling)
        return self.output(seen.to(wide))


def _product(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """A linear layer without what a module's call costs, which is half of a small product."""
    if type(layer) is not nn.Linear or not _bare(layer):
        return layer
    weight, bias = layer.weight, layer.bias
    return lambda given: F.linear(given, weight, bias)


def _mlp(module: Any) -> Callable[[Tensor], Tensor]:
    if type(module) not in (LlamaMLP, GemmaMLP, Emu3MLP) or not _bare(module):
        whole: Callable[[Tensor], Tensor] = module
        return whole
    gate, up, down = (_product(one) for one in (module.gate_proj, module.up_proj, module.down_proj))
    two = module.gate_proj, module.up_proj
    act, narrow, joined = module.act_fn, _narrow(*two), _joined(*two)

    def run(given: Tensor) -> Tensor:
        given = given.to(narrow or given.dtype)
        if joined is None:
            return down(act(gate(given)) * up(given))
        gates, ups = F.linear(given, joined).chunk(2, -1)
        return down(act(gates) * ups)

    return run


def _joined(*layers: Any) -> Tensor | None:
    """Their weights as one, where they lie one behind the other, as an inference copy's do."""
    if not all(type(one) is nn.Linear and _bare(one) and one.bias is None for one in layers):
        return None
    weights: list[Tensor] = [layer.weight for layer in layers]
    first, place = weights[0], weights[0].storage_offset()
    for weight in weights:
        memory = weight.untyped_storage()._cdata, weight.storage_offset()
        if memory != (first.untyped_storage()._cdata, place) or not weight.is_contiguous():
            return None
        place += weight.numel()
    width = first.shape[1]
    return first.detach().as_strided((sum(map(len, weights)), width), (width, 1))


def _narrow(*layers: Any) -> torch.dtype | None:
    """The 16 bits that autocast would round the input of these layers to, once for each."""
    plain = all(type(layer) is nn.Linear and _bare(layer) for layer in layers)
    dtypes = {layer.weight.dtype for layer in layers} if plain else set()
    narrow = dtypes.pop() if len(dtypes) == 1 else None
    return narrow if narrow is not None and narrow.itemsize == 2 else None


def _bare(module: nn.Module) -> bool:
    """Whether its class's forward is all that happens in a call."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _norm(module: Any, hidden: Tensor) -> Tensor:
    if hidden.dtype == torch.float32:
        if isinstance(module, LlamaRMSNorm | Emu3RMSNorm):
            return F.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)
        if isinstance(module, GemmaRMSNorm):
            return F.rms_norm(hidden, hidden.shape[-1:], module.weight + 1.0, module.eps)
    normed: Tensor = module(hidden)  # rounds where transformers rounds
    return normed
