"""linear_logprob on CUDA: forward in one tensor-core kernel, or all of it tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from suder_ext._ops.cuda import call, kept_exps
from suder_ext._ops.cuda.call import DTYPE_CODES, Ops, floats, integers, part, run
from suder_ext._ops.cuda.sampling import linear_sample_token
from suder_ext._ops.cuda.tensor_cores import bias_arguments, for_tensor_cores, way_of
from suder_ext._ops.cuda.tiles import Tiles, options, product, results, upstream


def tiled_linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
    keep_logits: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A cuBLAS product, then one read of it, for each tile. Any dtype, any size."""
    tiles = Tiles(hidden, weight, bias, target)
    settings = options(ignore_index, temperature, softcap)
    return *stats_of(tiles, settings, with_entropy), floats(hidden, keep_logits)


def stats_of(
    tiles: Tiles, settings: dict[str, Any], with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """logprob, lse and entropy of all tokens."""
    return swept(tiles, settings, with_entropy)[1:]


def swept(
    tiles: Tiles, settings: dict[str, Any], with_entropy: bool, ends: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The state of all tokens' softmax; logprob, lse and entropy if the vocabulary ends here."""
    like = tiles.padded
    logprob, lse, entropy = results(like, tiles.tokens, with_entropy)
    state = floats(like, tiles.tokens, 4)
    for columns in tiles.columns():
        for rows in tiles.rows():
            _, tile = tiles.compute(rows, columns)
            run(
                "logits_stats",
                like,
                **tile,
                **settings,
                state=state[rows],
                first=columns.start == 0,
                last=ends and columns.stop == tiles.vocab,
                logprob=logprob[rows],
                lse=lse[rows],
                entropy=entropy[rows] if with_entropy else None,
            )
    return state, logprob, lse, entropy


def tiled_linear_logprob_backward(
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
    """See `tiled_gradients`; that of the hidden states is rounded once more at the end."""
    d_hidden, d_weight, d_bias = tiled_gradients(
        (grad_logprob, grad_lse, grad_entropy),
        *(hidden, weight, bias, target, lse, entropy),
        (ignore_index, temperature, softcap),
        (need_hidden, need_weight, need_bias),
    )
    return d_hidden.to(hidden.dtype), d_weight, d_bias


def tiled_gradients(
    grads: Sequence[Tensor | None],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    settings: tuple[int, float, float | None],
    needs: Sequence[bool],
    *,
    shard: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each tile again, turned into its gradient in place, then up to two products and column sums.

    They accumulate in float32, and that of the hidden states is left in it. shard: the log-sum-exp
    is of more than this weight.
    """
    need_hidden, need_weight, need_bias = needs
    ignore_index = settings[0]
    if need_weight:  # the gradient 0 of an ignored row, times a hidden state that may be NaN
        hidden = hidden.masked_fill((target == ignore_index).unsqueeze(1), 0.0)
    tiles = Tiles(hidden, weight, bias, target, shard=shard)
    grads = upstream(*grads)
    depth, height = hidden.shape[1], tiles.padded.shape[0]
    d_hidden = floats(hidden, *((height, depth) if need_hidden else (0,))).zero_()
    d_weight = floats(weight, *(weight.shape if need_weight else (0,)), dtype=weight.dtype)
    d_bias = floats(hidden, tiles.vocab * need_bias).zero_()
    for columns in tiles.columns():
        d_weight_tile = floats(hidden, (columns.stop - columns.start) * need_weight, depth).zero_()
        add_gradients(
            tiles,
            columns,
            grads,
            lse,
            entropy,
            options(*settings),
            d_hidden if need_hidden else None,
            d_weight_tile if need_weight else None,
            d_bias[columns] if need_bias else None,
        )
        if need_weight:
            d_weight[columns].copy_(d_weight_tile)
    d_hidden = d_hidden[: tiles.tokens] if need_hidden else d_hidden
    return d_hidden, d_weight, d_bias.to(weight.dtype)


def add_gradients(
    tiles: Tiles,
    columns: slice,
    grads: Sequence[Tensor | None],
    lse: Tensor,
    entropy: Tensor,
    settings: dict[str, Any],
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
) -> None:
    """What some columns add to float32 gradients: of the padded tokens, and of these columns.

    For the products the tile's gradient is rounded to the inputs' dtype, as the tensor cores take
    it.
    """
    dtype = tiles.padded.dtype
    for rows in tiles.rows():
        tile, arguments = tiles.compute(rows, columns)
        grad = tile if d_bias is not None else tiles.narrowed(tile, dtype)
        run(
            "logits_grad",
            tiles.padded,
            **arguments,
            **settings,
            grad_dtype=DTYPE_CODES[grad.dtype],
            grad=grad,
            grad_stride=grad.stride(0),
            lse=lse[rows],
            entropy=entropy[rows] if grads[2] is not None else None,
            grad_logprob=part(grads[0], rows),
            grad_lse=part(grads[1], rows),
            grad_entropy=part(grads[2], rows),
        )
        add_products(tiles, rows, columns, grad, d_hidden, d_weight, d_bias)


def add_products(
    tiles: Tiles,
    rows: slice,
    columns: slice,
    grad: Tensor,
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
) -> None:
    """What the gradient of a tile's logits adds to those of the padded tokens and the columns."""
    if d_bias is not None:  # of the unrounded gradient: its sum over tokens may cancel
        add_column_sums(d_bias, grad)
    grad = grad.to(tiles.padded.dtype)
    hidden_tile = tiles.padded_rows(rows)
    if d_hidden is not None:
        d_hidden_tile = d_hidden[rows.start : rows.start + hidden_tile.shape[0]]
        product(d_hidden_tile, grad, tiles.weight[columns], add=True)
    if d_weight is not None:
        product(d_weight, grad.t(), hidden_tile, add=True)


def add_column_sums(sums: Tensor, values: Tensor) -> None:
    """sums += the sums of the columns of `values`, over rows in a fixed order."""
    run(
        "column_sum",
        values,
        dtype=DTYPE_CODES[values.dtype],
        values=values,
        rows=values.shape[0],
        cols=values.shape[1],
        stride=values.stride(0),
        sums=sums,
    )


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
    keep_logits: int,
    with_argmax: bool,
) -> tuple[Tensor, ...]:
    """Logits in registers only, or tile by tile: see `tensor_cores.way_of`."""
    results = _stats(
        *(hidden, weight, bias, target),
        *(ignore_index, temperature, softcap),
        with_entropy,
        keep_logits,
    )
    if not with_argmax:
        return *results, integers(hidden, 0)
    first = argmax_of(hidden, weight, bias)
    return *results, first.masked_fill_(target == ignore_index, 0)


def argmax_of(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The first of the largest products of each token, which softcap and temperature keep in order:
    a pass of its own, as the forward's states have no room for a place.
    """
    return linear_sample_token(hidden, weight, bias, None, 1.0, 0, 1.0)[0]


def _stats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
    keep_logits: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    way = way_of(hidden, weight)
    rest = ignore_index, temperature, softcap
    if way == "tiles":
        return tiled_linear_logprob(hidden, weight, bias, target, *rest, with_entropy, keep_logits)
    logprob, lse, entropy = results(hidden, hidden.shape[0], with_entropy)
    kept = floats(hidden, keep_logits)
    wanted = logprob, lse, entropy if with_entropy else None
    _fused_forward(hidden, weight, bias, target, *rest, *wanted, kept, hopper=way == "wgmma")
    return logprob, lse, entropy, kept


def without_backward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
    keep_logits: int,
    with_argmax: bool,
) -> tuple[Tensor, ...]:
    """Of an eager call: log p alone, unless the entropy and with it the log-sum-exp are wanted."""
    way = way_of(hidden, weight)
    rest = ignore_index, temperature, softcap
    if way == "tiles" or with_entropy or with_argmax:
        wanted = with_entropy, keep_logits, with_argmax
        return linear_logprob(hidden, weight, bias, target, *rest, *wanted)
    logprob = floats(hidden, hidden.shape[0])
    _fused_forward(
        *(hidden, weight, bias, target, *rest), logprob, None, None, None, hopper=way == "wgmma"
    )
    return (logprob,)


def _fused_forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    logprob: Tensor,
    lse: Tensor | None,
    entropy: Tensor | None,
    kept: Tensor | None,
    *,
    hopper: bool,
) -> None:
    """Writes what is there of the results. Addresses, not tensors: what the host takes here is what
    a small call takes."""
    hidden, weight = for_tensor_cores(hidden), for_tensor_cores(weight)
    tokens, features = hidden.shape
    vocab = weight.shape[0]
    assert call.kernels is not None
    states = call.kernels.fused_forward_workspace(tokens, vocab)
    # Behind the states is the place of a log-sum-exp that nobody wants.
    workspace = floats(hidden, states + (tokens if lse is None else 0))
    place = workspace.data_ptr()
    told = bias_arguments(bias, hidden.dtype)
    target = target.contiguous()
    call.start(
        "fused_forward",
        hidden,
        dtype=DTYPE_CODES[hidden.dtype],
        hidden=hidden.data_ptr(),
        tokens=tokens,
        features=features,
        hidden_stride=hidden.stride(0),
        weight=weight.data_ptr(),
        vocab=vocab,
        weight_stride=weight.stride(0),
        bias=0 if (own := told["bias"]) is None else own.data_ptr(),
        bias_dtype=told["bias_dtype"],
        target=target.data_ptr(),
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap or 0.0,
        workspace=place,
        logprob=logprob.data_ptr(),
        lse=place + 4 * states if lse is None else lse.data_ptr(),
        entropy=0 if entropy is None else entropy.data_ptr(),
        kept=0 if kept is None else kept.data_ptr(),
        kept_tokens=0 if kept is None else kept_exps.tokens_in(kept, hidden, weight),
        hopper=hopper,
    )


OPS: Ops = {"linear_logprob": linear_logprob}
