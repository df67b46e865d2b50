"""The linear head on the CPU for one chunk of tokens after another."""

from __future__ import annotations

import functools

from torch import Tensor

from suder_ext._ops import kept_logits, pair_chunks
from suder_ext._ops.cpu.call import address, floats, kernel, rows, vector
from suder_ext._ops.cpu.linear_logprob import arguments, run_backward, run_forward


class ChunkedHead:
    """See `pair_chunks.Head`. Gradients add up in float32, and are left in it."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        options: tuple[int, float, float | None],
        needs: tuple[bool, ...],
    ) -> None:
        self.hidden, self.weight, self.bias = rows(hidden), rows(weight), vector(bias)
        self.target, self.options = target.contiguous(), options
        tokens, vocab = hidden.shape[0], weight.shape[0]
        _check_targets(self.target, vocab, options[0])
        height = kept_logits.TILE_TOKENS
        self.most_tokens = pair_chunks.CPU_WORKSPACE // kept_logits.size(height, vocab) * height
        self.logits = floats(kept_logits.room(tokens, vocab, pair_chunks.CPU_WORKSPACE))
        self.lse = floats(0)
        self.grad_hidden = floats(*(hidden.shape if needs[0] else (0,)))
        self.grad_weight = floats(*(weight.shape if needs[1] else (0,)))
        self.grad_bias = floats(vocab * needs[2])
        self.needs, self.add = needs, False

    def logprob(self, tokens: slice) -> Tensor:
        hidden, target = self.hidden[tokens], self.target[tokens]
        logprob, self.lse = floats(hidden.shape[0]), floats(hidden.shape[0])
        run_forward(
            **arguments(hidden, self.weight, self.bias, target, *self.options),
            logprob=logprob.data_ptr(),
            lse=self.lse.data_ptr(),
            entropy=0,
            logits=self.logits.data_ptr(),
            logits_size=self.logits.shape[0],
        )
        return logprob

    def add_gradients(self, tokens: slice, grad_logprob: Tensor) -> None:
        hidden, target = self.hidden[tokens], self.target[tokens]
        grad_hidden = self.grad_hidden[tokens]
        need_hidden, need_weight, need_bias = self.needs
        run_backward(
            **arguments(hidden, self.weight, self.bias, target, *self.options),
            grad_logprob=grad_logprob.data_ptr(),
            grad_lse=0,
            grad_entropy=0,
            lse=self.lse.data_ptr(),
            entropy=0,
            logits=self.logits.data_ptr(),
            logits_size=self.logits.shape[0],
            grad_hidden=address(grad_hidden) if need_hidden else 0,
            grad_hidden_stride=hidden.shape[1],
            grad_weight=address(self.grad_weight) if need_weight else 0,
            grad_weight_stride=hidden.shape[1],
            grad_bias=address(self.grad_bias) if need_bias else 0,
            float32_gradients=True,
            add=self.add,
        )
        self.add = True

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.grad_hidden, self.grad_weight, self.grad_bias


def _check_targets(target: Tensor, vocab: int, ignore_index: int) -> None:
    """The kernel would count the row from the start of the chunk."""
    bad = ((target < 0) | (target >= vocab)) & (target != ignore_index)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise IndexError(
            f"linear_preference_loss: target[{row}] is {int(target[row])}, neither in [0, {vocab}) "
            f"nor ignore_index ({ignore_index})"
        )


kernel("linear_preference_loss")(functools.partial(pair_chunks.linear_preference_loss, ChunkedHead))
