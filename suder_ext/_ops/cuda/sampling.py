"""sample_token on CUDA: one kernel; from hidden states after a product, HEIGHT rows at a time.

What top_k and top_p leave is found by torch's own sort, on as many rows of logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suder_ext import reference
from suder_ext._ops.cuda.call import DTYPE_CODES, Ops, floats, integers, part, rows, run, vector
from suder_ext._ops.cuda.tiles import product, round_up

Drawn = tuple[Tensor, Tensor, Tensor]

# Of a product, whatever the batch, or a token's bits would depend on its company. So few cost
# nothing: reading the weight takes longer than multiplying it by 128 rows.
HEIGHT = 128


def sample_token(
    logits: Tensor, uniform: Tensor | None, temperature: float, top_k: int, top_p: float
) -> Drawn:
    logits, uniform = rows(logits), vector(uniform)
    drawn = _room(logits)
    if not _cuts(logits.shape[1], top_k, top_p):
        _draw(drawn, logits, None, uniform, temperature)
        return drawn
    for some in _tiles(logits):
        _draw_cut(
            _of(drawn, some), logits[some], None, part(uniform, some), temperature, top_k, top_p
        )
    return drawn


def linear_sample_token(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    uniform: Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
) -> Drawn:
    weight, uniform = rows(weight), vector(uniform)
    bias = None if bias is None else bias.to(torch.float32).contiguous()
    vocab = weight.shape[0]
    drawn = _room(hidden)
    padded = F.pad(hidden, (0, 0, 0, -len(hidden) % HEIGHT)).contiguous()
    memory = floats(hidden, HEIGHT, round_up(vocab, 8))[:, :vocab]
    for some in _tiles(hidden):
        product(memory, padded[some.start : some.start + HEIGHT], weight.t())
        logits, numbers = memory[: some.stop - some.start], part(uniform, some)
        if _cuts(vocab, top_k, top_p):
            _draw_cut(_of(drawn, some), logits, bias, numbers, temperature, top_k, top_p)
        else:
            _draw(_of(drawn, some), logits, bias, numbers, temperature)
    return drawn


def _cuts(vocab: int, top_k: int, top_p: float) -> bool:
    """Whether anything is left out of the distribution."""
    return top_p < 1 or 0 < top_k < vocab


def _tiles(matrix: Tensor) -> list[slice]:
    count = matrix.shape[0]
    return [slice(r, min(r + HEIGHT, count)) for r in range(0, count, HEIGHT)]


def _room(like: Tensor) -> Drawn:
    count = like.shape[0]
    return integers(like, count), floats(like, count), floats(like, count)


def _of(drawn: Drawn, some: slice) -> Drawn:
    token, logprob, entropy = drawn
    return token[some], logprob[some], entropy[some]


def _draw(
    drawn: Drawn, logits: Tensor, bias: Tensor | None, uniform: Tensor | None, temperature: float
) -> None:
    token, logprob, entropy = drawn
    run(
        "sample_token",
        logits,
        dtype=DTYPE_CODES[logits.dtype],
        logits=logits,
        rows=logits.shape[0],
        cols=logits.shape[1],
        stride=logits.stride(0),
        bias=bias,
        temperature=temperature,
        uniform=uniform,
        token=token,
        logprob=logprob,
        entropy=entropy,
    )


def _draw_cut(
    drawn: Drawn,
    logits: Tensor,
    bias: Tensor | None,
    uniform: Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
) -> None:
    if bias is not None:
        logits += bias  # a workspace, which the next product overwrites
    results = reference.sample_token(
        logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p
    )
    for room, result in zip(drawn, results, strict=True):
        room.copy_(result)


OPS: Ops = {"sample_token": sample_token, "linear_sample_token": linear_sample_token}
