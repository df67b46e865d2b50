"""A step of the sampler on a card: its operators, run dry, and the limit of its bytes."""

from __future__ import annotations

from typing import NamedTuple
from unittest import mock

import torch

from benchmarks.model.cards import Card
from benchmarks.model.code import NOW
from benchmarks.model.drawing import sample_token
from benchmarks.model.dry import Operators, operators_of, weightless
from suder.engine.board import Board
from suder.engine.head import Head, Rules
from suder.engine.step import Batch
from suder_ext import SampledToken

GUIDANCE, CANDIDATES, PROMPT = 5.0, 8, "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10"
# Steps that are run dry, by how many tokens are written: the others lie between.
AT = (64, 320, 576)


class Steps(NamedTuple):
    """Of pictures drawn at once: operators of a step by tokens written, and how many steps."""

    rows: int
    vocabulary: int
    count: int
    by_columns: dict[int, Operators]

    def seconds(self, card: Card) -> float:
        """Of a step on average, replayed from a graph."""
        mean = sum(one.seconds(card) for one in self.by_columns.values()) / len(self.by_columns)
        return mean + sample_token(card, NOW, self.rows, self.vocabulary, "l2").seconds

    def kernels(self) -> int:
        return len(next(iter(self.by_columns.values())).list) + 1


def steps(shape: str, pictures: int) -> Steps:
    """Of so many pictures at once, with guidance: twice as many rows."""
    with weightless(shape) as model, torch.no_grad():
        twin, _ = model.inference_copy(torch.bfloat16)
        given, count = [PROMPT] * (pictures // CANDIDATES), model.num_image_tokens
        decoding = twin.start("generation", given, CANDIDATES, count, GUIDANCE)
        decoding.make_room()
        uniform = torch.rand(pictures, count, dtype=torch.float64)
        board = Board(uniform, (pictures, count), None, model.device)
        with mock.patch("suder.engine.head.HELD", model.image_vocab_size):  # as on a GPU
            head = Head(decoding.weight, decoding.bias)
        batch = Batch(decoding, head, board, Rules())
        with (
            mock.patch("suder.engine.head.sample_token", _drawn),
            mock.patch("torch.nn.functional.rms_norm", _normed),
            model.computing(),
        ):
            batch.draw()
            found = {
                columns: operators_of(lambda columns=columns: batch.step(min(columns, count - 1)))
                for columns in AT
            }
        return Steps(pictures, model.image_vocab_size, count, found)


def _normed(hidden: torch.Tensor, shape: object, weight: torch.Tensor, _: float) -> torch.Tensor:
    """A GPU has one kernel for it, which reads and writes as much as this."""
    return hidden * weight


def _drawn(logits: torch.Tensor, uniform: torch.Tensor, **_: object) -> SampledToken:
    """In the place of the kernel, whose time is modelled."""
    rows = len(logits)
    token = torch.empty(rows, dtype=torch.int64)
    return SampledToken(token, torch.empty(rows), torch.empty(rows))
