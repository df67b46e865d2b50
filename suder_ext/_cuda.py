"""CUDA tensors: the tile driver, the fused forward, and the calls of the other kernels.

Every function takes `kernels` first: the module `_C_cuda`, or in the tests `_C_emulated`, whose
tensors live on the CPU. Nothing here waits for the device, reads from it, or allocates outside
torch, so every function can be captured into a CUDA graph.

Matrix products are cuBLAS's, through torch, with float32 results. A tile is always TILE_TOKENS
high, the rest of the last one padding: the same product must run the same cuBLAS kernel whatever
the batch, or a token's bits would depend on its company. float32 inputs follow
`torch.backends.cuda.matmul`: leave TF32 off there for float32 accuracy.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# 33.5 MB of float32 logits: two thirds of an H100's L2, large enough a product to hide its launch.
TILE_TOKENS = 512
TILE_VOCAB = 16384

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def _stream(tensor: Tensor) -> int:
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(matrix: Tensor) -> Tensor:
    """The matrix with contiguous rows (copied if they are not)."""
    return matrix if matrix.stride(-1) == 1 or matrix.shape[-1] <= 1 else matrix.contiguous()


def _float(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.to(torch.float32).contiguous()


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _product(out: Tensor, a: Tensor, b: Tensor, *, add: bool = False) -> None:
    """out = a @ b, or out += a @ b; float32 sums and result for any dtype of a and b."""
    if a.dtype == torch.float32:
        torch.addmm(out, a, b, out=out) if add else torch.mm(a, b, out=out)
    elif not a.is_cuda:  # emulated: torch has mixed products on CUDA only
        _product(out, a.float(), b.float(), add=add)
    elif add:
        torch.addmm(out, a, b, out_dtype=torch.float32, out=out)
    else:
        torch.mm(a, b, out_dtype=torch.float32, out=out)


class _Tiles:
    """What both passes over the logits share: padded tokens, the tile's memory, kernel arguments."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        ignore_index: int,
        temperature: float,
        softcap: float | None,
    ) -> None:
        self.tokens, self.vocab = hidden.shape[0], weight.shape[0]
        self.weight, self.bias, self.target = _rows(weight), _float(bias), target.contiguous()
        self.padded = hidden
        rows = _round_up(self.tokens, TILE_TOKENS)
        if rows != self.tokens or not hidden.is_contiguous() or hidden.data_ptr() % 16:
            self.padded = hidden.new_zeros(rows, hidden.shape[1])
            self.padded[: self.tokens].copy_(hidden)
        # Rows 16-byte aligned in float32 and in the 16-bit types.
        self.stride = _round_up(min(TILE_VOCAB, self.vocab), 8)
        self.memory = hidden.new_empty(TILE_TOKENS, self.stride, dtype=torch.float32)
        self.options = {
            "vocab": self.vocab,
            "ignore_index": ignore_index,
            "temperature": temperature,
            "softcap": softcap or 0.0,
            "stream": _stream(hidden),
        }

    def columns(self) -> list[slice]:
        return [
            slice(v, min(v + TILE_VOCAB, self.vocab)) for v in range(0, self.vocab, TILE_VOCAB)
        ]

    def rows(self) -> list[slice]:
        return [
            slice(t, min(t + TILE_TOKENS, self.tokens)) for t in range(0, self.tokens, TILE_TOKENS)
        ]

    def compute(self, rows: slice, columns: slice) -> tuple[Tensor, dict[str, Any]]:
        """The tile's products, and the arguments that describe it to a kernel."""
        hidden = self.padded[rows.start : rows.start + TILE_TOKENS]
        width = columns.stop - columns.start
        tile = self.memory[:, :width]
        _product(tile, hidden, self.weight[columns].t())
        return tile, {
            "dtype": 0,
            "logits": tile.data_ptr(),
            "rows": TILE_TOKENS,
            "cols": width,
            "stride": self.stride,
            "tokens": rows.stop - rows.start,
            "first_column": columns.start,
            "bias": 0 if self.bias is None else self.bias[columns].data_ptr(),
            "target": self.target[rows].data_ptr(),
            **self.options,
        }


def _stats_results(tokens: int, like: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    logprob, lse = (like.new_empty(tokens, dtype=torch.float32) for _ in range(2))
    return logprob, lse, like.new_empty(tokens if with_entropy else 0, dtype=torch.float32)


def linear_logprob(
    kernels: ModuleType,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tile by tile: a cuBLAS product, then one read of it. Any dtype, any size."""
    tiles = _Tiles(hidden, weight, bias, target, ignore_index, temperature, softcap)
    logprob, lse, entropy = _stats_results(tiles.tokens, hidden, with_entropy)
    state = hidden.new_empty(tiles.tokens, 4, dtype=torch.float32)
    for columns in tiles.columns():
        for rows in tiles.rows():
            _, tile = tiles.compute(rows, columns)
            kernels.logits_stats(
                **tile,
                state=state[rows].data_ptr(),
                first=columns.start == 0,
                last=columns.stop == tiles.vocab,
                logprob=logprob[rows].data_ptr(),
                lse=lse[rows].data_ptr(),
                entropy=entropy[rows].data_ptr() if with_entropy else 0,
            )
    return logprob, lse, entropy


def linear_logprob_backward(
    kernels: ModuleType,
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each tile again, turned into its gradient in place, then up to two products and column sums.

    Gradients accumulate in float32 and are rounded once. Without `need_*` a result is empty.
    """
    tiles = _Tiles(hidden, weight, bias, target, ignore_index, temperature, softcap)
    upstream = [_float(g) for g in (grad_logprob, grad_lse, grad_entropy)]
    depth = hidden.shape[1]

    def zeros(*shape: int, need: bool) -> Tensor:
        return hidden.new_zeros(shape if need else (0,), dtype=torch.float32)

    d_hidden = zeros(tiles.padded.shape[0], depth, need=need_hidden)
    d_bias = zeros(tiles.vocab, need=need_bias)
    d_weight = weight.new_empty(weight.shape if need_weight else (0,))
    for columns in tiles.columns():
        d_weight_tile = zeros(columns.stop - columns.start, depth, need=need_weight)
        for rows in tiles.rows():
            tile, arguments = tiles.compute(rows, columns)
            grad = tile if hidden.dtype == torch.float32 else _narrowed(tiles, tile, hidden.dtype)
            kernels.logits_grad(
                **arguments,
                grad_dtype=_DTYPES[hidden.dtype],
                grad=grad.data_ptr(),
                grad_stride=grad.stride(0),
                lse=lse[rows].data_ptr(),
                entropy=entropy[rows].data_ptr() if grad_entropy is not None else 0,
                grad_logprob=0 if upstream[0] is None else upstream[0][rows].data_ptr(),
                grad_lse=0 if upstream[1] is None else upstream[1][rows].data_ptr(),
                grad_entropy=0 if upstream[2] is None else upstream[2][rows].data_ptr(),
            )
            padded = slice(rows.start, rows.start + TILE_TOKENS)
            if need_hidden:
                _product(d_hidden[padded], grad, tiles.weight[columns], add=True)
            if need_weight:
                _product(d_weight_tile, grad.t(), tiles.padded[padded], add=True)
            if need_bias:
                kernels.column_sum(
                    dtype=_DTYPES[grad.dtype],
                    values=grad.data_ptr(),
                    rows=TILE_TOKENS,
                    cols=grad.shape[1],
                    stride=grad.stride(0),
                    sums=d_bias[columns].data_ptr(),
                    stream=arguments["stream"],
                )
        if need_weight:
            d_weight[columns].copy_(d_weight_tile)
    d_hidden = d_hidden[: tiles.tokens] if need_hidden else d_hidden
    bias_dtype = hidden.dtype if bias is None else bias.dtype
    return d_hidden.to(hidden.dtype), d_weight, d_bias.to(bias_dtype)


def _narrowed(tiles: _Tiles, tile: Tensor, dtype: torch.dtype) -> Tensor:
    """The tile's own memory seen as 16-bit elements: the gradient overwrites the logits."""
    return tiles.memory.view(dtype)[:, : tile.shape[1]]


def _for_tensor_cores(matrix: Tensor) -> Tensor:
    """The matrix with rows that 16-byte copies can take (copied if they are not)."""
    aligned = matrix.stride(1) == 1 and matrix.stride(0) % 8 == 0 and matrix.data_ptr() % 16 == 0
    return matrix if aligned else matrix.clone(memory_format=torch.contiguous_format)


def fused_fits(hidden: Tensor) -> bool:
    """Does the tensor-core kernel take these? Asks nothing that differs from batch to batch."""
    depth = hidden.shape[1]
    return hidden.dtype in (torch.bfloat16, torch.float16) and depth > 0 and depth % 8 == 0


def fused_linear_logprob(
    kernels: ModuleType,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One kernel, logits in registers only; falls back to the tiles where `fused_fits` says no."""
    options = (ignore_index, temperature, softcap, with_entropy)
    if not fused_fits(hidden):
        return linear_logprob(kernels, hidden, weight, bias, target, *options)
    hidden, weight = _for_tensor_cores(hidden), _for_tensor_cores(weight)
    (tokens, depth), vocab = hidden.shape, weight.shape[0]
    logprob, lse, entropy = _stats_results(tokens, hidden, with_entropy)
    size = kernels.fused_forward_workspace(tokens, vocab)
    workspace = hidden.new_empty(size, dtype=torch.float32)
    wide_bias, flat_target = _float(bias), target.contiguous()
    kernels.fused_forward(
        dtype=_DTYPES[hidden.dtype],
        hidden=hidden.data_ptr(),
        tokens=tokens,
        features=depth,
        hidden_stride=hidden.stride(0),
        weight=weight.data_ptr(),
        vocab=vocab,
        weight_stride=weight.stride(0),
        bias=_address(wide_bias),
        target=flat_target.data_ptr(),
        ignore_index=ignore_index,
        temperature=temperature,
        softcap=softcap or 0.0,
        workspace=workspace.data_ptr(),
        logprob=logprob.data_ptr(),
        lse=lse.data_ptr(),
        entropy=entropy.data_ptr() if with_entropy else 0,
        stream=_stream(hidden),
    )
    return logprob, lse, entropy


def _logits_arguments(
    logits: Tensor, target: Tensor, ignore_index: int, temperature: float, softcap: float | None
) -> dict[str, Any]:
    return {
        "dtype": _DTYPES[logits.dtype],
        "logits": logits.data_ptr(),
        "rows": logits.shape[0],
        "cols": logits.shape[1],
        "stride": logits.stride(0),
        "tokens": logits.shape[0],
        "first_column": 0,
        "bias": 0,
        "target": target.data_ptr(),
        "vocab": logits.shape[1],
        "ignore_index": ignore_index,
        "temperature": temperature,
        "softcap": softcap or 0.0,
        "stream": _stream(logits),
    }


def logprob(
    kernels: ModuleType,
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
    with_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One read of each row."""
    logits, target = _rows(logits), target.contiguous()
    result, lse, entropy = _stats_results(logits.shape[0], logits, with_entropy)
    splits = kernels.logits_splits(logits.shape[1])
    state = logits.new_empty(splits if splits > 1 else 0, logits.shape[0], 4, dtype=torch.float32)
    kernels.logits_stats(
        **_logits_arguments(logits, target, ignore_index, temperature, softcap),
        state=state.data_ptr(),
        first=True,
        last=True,
        logprob=result.data_ptr(),
        lse=lse.data_ptr(),
        entropy=entropy.data_ptr() if with_entropy else 0,
    )
    return result, lse, entropy


def logprob_backward(
    kernels: ModuleType,
    grad_logprob: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    logits: Tensor,
    target: Tensor,
    lse: Tensor,
    entropy: Tensor,
    ignore_index: int,
    temperature: float,
    softcap: float | None,
) -> Tensor:
    """One read and one write of each row."""
    logits, target = _rows(logits), target.contiguous()
    upstream = [_float(g) for g in (grad_logprob, grad_lse, grad_entropy)]
    grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
    kernels.logits_grad(
        **_logits_arguments(logits, target, ignore_index, temperature, softcap),
        grad_dtype=_DTYPES[grad.dtype],
        grad=grad.data_ptr(),
        grad_stride=grad.stride(0),
        lse=lse.data_ptr(),
        entropy=_address(entropy) if grad_entropy is not None else 0,
        grad_logprob=_address(upstream[0]),
        grad_lse=_address(upstream[1]),
        grad_entropy=_address(upstream[2]),
    )
    return grad
