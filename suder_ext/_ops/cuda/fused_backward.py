"""The backward of linear_logprob on tensor cores: one kernel to the gradient of logits, products.

The logits stay in registers; their gradient, in 16 bits, is written down for a slice of the
vocabulary and a chunk of the tokens at a time, in a fixed amount of memory.
"""

from __future__ import annotations

from torch import Tensor

from suder_ext._ops.cuda import call
from suder_ext._ops.cuda.call import DTYPE_CODES, Ops, floats, part, run
from suder_ext._ops.cuda.linear_logprob import add_column_sums, tiled_linear_logprob_backward
from suder_ext._ops.cuda.tensor_cores import bias_arguments, for_tensor_cores, way_of
from suder_ext._ops.cuda.tiles import options, product, round_up, upstream

# 256 MiB of gradients of logits. A chunk's tokens are the depth of the weight's products, a slice's
# columns that of the hidden states': the longer, the fewer times float32 sums are read and written.
CHUNK_TOKENS = 8192
SLICE_COLUMNS = 16384


def linear_logprob_backward(
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    logits: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The way of the forward.

    A product is of all of a chunk's tokens, in whatever kernel cuBLAS has for so many: the bits of
    a token's gradient may depend on their number, unlike those of its log p. Equal inputs give
    equal bits.
    """
    grads = upstream(grad_logprob, grad_lse, grad_entropy)
    way = way_of(hidden, weight)
    if way == "tiles" or hidden.shape[0] == 0:
        return tiled_linear_logprob_backward(
            *(grads[0], grads[1], grads[2], hidden, weight, bias, target, lse, entropy, logits),
            *(ignore_index, temperature, softcap),
            *(need_hidden, need_weight, need_bias),
        )
    if need_weight:  # the gradient 0 of an ignored row, times a hidden state that may be NaN
        hidden = hidden.masked_fill((target == ignore_index).unsqueeze(1), 0.0)
    hidden, weight, target = for_tensor_cores(hidden), for_tensor_cores(weight), target.contiguous()
    hopper = way == "wgmma"
    (tokens, depth), vocab = hidden.shape, weight.shape[0]
    height, width = min(CHUNK_TOKENS, tokens), round_up(min(SLICE_COLUMNS, vocab), 8)
    need_products = need_hidden or need_weight
    grad_logits = floats(hidden, height * need_products, width, dtype=hidden.dtype)
    column_sums = floats(hidden, _row_parts(height, hopper) * need_bias, width)
    d_hidden = floats(hidden, *(hidden.shape if need_hidden else (0,)))
    d_weight = floats(weight, *(weight.shape if need_weight else (0,)), dtype=weight.dtype)
    d_bias = floats(hidden, vocab * need_bias).zero_()
    # The weight's product goes to float32 first, too. Asked for 16 bits, cuBLAS may cut it along
    # the tokens and add up parts that are rounded already (torch.backends.cuda.matmul.
    # allow_bf16_reduced_precision_reduction, on by default).
    d_weight_slice = floats(weight, width * need_weight, depth)
    for columns in parts(vocab, SLICE_COLUMNS):
        size = columns.stop - columns.start
        for rows in parts(tokens, CHUNK_TOKENS):
            count = rows.stop - rows.start
            run(
                "fused_grad",
                hidden,
                dtype=DTYPE_CODES[hidden.dtype],
                hidden=hidden[rows],
                tokens=count,
                features=depth,
                hidden_stride=hidden.stride(0),
                weight=weight[columns],
                cols=size,
                weight_stride=weight.stride(0),
                first_column=columns.start,
                vocab=vocab,
                **bias_arguments(part(bias, columns), hidden.dtype),
                target=target[rows],
                **options(ignore_index, temperature, softcap),
                lse=lse[rows],
                entropy=entropy[rows] if grad_entropy is not None else None,
                grad_logprob=part(grads[0], rows),
                grad_lse=part(grads[1], rows),
                grad_entropy=part(grads[2], rows),
                grad=grad_logits if need_products else None,
                grad_stride=width,
                column_sums=column_sums if need_bias else None,
                hopper=hopper,
            )
            if need_bias:  # of the unrounded gradient: its sum over tokens may cancel
                add_column_sums(d_bias[columns], column_sums[: _row_parts(count, hopper), :size])
            grad = grad_logits[:count, :size]
            if need_hidden:
                product(d_hidden[rows], grad, weight[columns], add=columns.start > 0)
            if need_weight:
                product(d_weight_slice[:size], grad.t(), hidden[rows], add=rows.start > 0)
        if need_weight:
            d_weight[columns].copy_(d_weight_slice[:size])
    return d_hidden.to(hidden.dtype), d_weight, d_bias.to(weight.dtype)


def parts(length: int, step: int) -> list[slice]:
    """Slices of `step` and the rest, in order."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _row_parts(tokens: int, hopper: bool) -> int:
    """How many rows of column sums the kernel leaves for so many tokens."""
    assert call.kernels is not None
    return int(call.kernels.fused_grad_row_parts(tokens, hopper))


OPS: Ops = {"linear_logprob_backward": linear_logprob_backward}
