"""The backward of linear_logprob on tensor cores: gradients of logits, and products with them."""

from __future__ import annotations

from torch import Tensor

from suder_ext._ops.cuda.call import Ops, floats
from suder_ext._ops.cuda.linear_logprob import add_column_sums, tiled_linear_logprob_backward
from suder_ext._ops.cuda.logit_gradients import LogitGradients
from suder_ext._ops.cuda.tensor_cores import way_of
from suder_ext._ops.cuda.tiles import options, product, upstream


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
    """The way of the forward, which left `logits` (kept_exps.py).

    A product is of all of a chunk's tokens, in whatever kernel cuBLAS has for so many: the bits of
    a token's gradient may depend on their number, unlike those of its log p. Equal inputs give
    equal bits. Whether a token's exponentials were kept decides its gradient's last bits, too.
    """
    grads = upstream(grad_logprob, grad_lse, grad_entropy)
    way = way_of(hidden, weight)
    if way == "tiles" or hidden.shape[0] == 0:
        return tiled_linear_logprob_backward(
            *(grads[0], grads[1], grads[2], hidden, weight, bias, target, lse, entropy, logits),
            *(ignore_index, temperature, softcap),
            *(need_hidden, need_weight, need_bias),
        )
    gradients = LogitGradients.of(
        *(hidden, weight, bias, target, lse, entropy, logits, grads),
        *(options(ignore_index, temperature, softcap), way == "wgmma"),
        need_weight=need_weight,
    )
    memory = gradients.memory(need_hidden or need_weight, need_bias)
    d_hidden = floats(hidden, *(hidden.shape if need_hidden else (0,)))
    d_weight = floats(weight, *(weight.shape if need_weight else (0,)), dtype=weight.dtype)
    d_bias = floats(hidden, weight.shape[0] * need_bias).zero_()
    # The weight's product goes to float32 first, too. Asked for 16 bits, cuBLAS may cut it along
    # the tokens and add up parts that are rounded already (torch.backends.cuda.matmul.
    # allow_bf16_reduced_precision_reduction, on by default).
    d_weight_slice = floats(weight, memory[0].shape[1] * need_weight, weight.shape[1])
    for columns in gradients.slices():
        d_weight_columns = d_weight_slice[: columns.stop - columns.start]
        add_gradients(
            gradients,
            columns,
            memory,
            d_hidden if need_hidden else None,
            d_weight_columns if need_weight else None,
            d_bias[columns] if need_bias else None,
            add_weight=False,
        )
        if need_weight:
            d_weight[columns].copy_(d_weight_columns)
    return d_hidden.to(hidden.dtype), d_weight, d_bias.to(weight.dtype)


def add_gradients(
    gradients: LogitGradients,
    columns: slice,
    memory: tuple[Tensor, Tensor],
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    *,
    add_weight: bool,
) -> None:
    """What some columns add to float32 gradients: of all tokens, and of these columns.

    The first columns do not add to `d_hidden` but overwrite it, and so does the first chunk of
    tokens to `d_weight`, unless `add_weight`.
    """
    for rows in gradients.chunks():
        grad, sums = gradients.write(rows, columns, memory)
        if d_bias is not None:  # of the unrounded gradient: its sum over tokens may cancel
            add_column_sums(d_bias, sums)
        if d_hidden is not None:
            weight = gradients.weight[columns]
            product(d_hidden[rows], grad, weight, add=columns.start > 0)
        if d_weight is not None:
            hidden = gradients.hidden[rows]
            product(d_weight, grad.t(), hidden, add=add_weight or rows.start > 0)


OPS: Ops = {"linear_logprob_backward": linear_logprob_backward}
