"""A step can be recorded once and run again, as a CUDA graph is; proved without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import suder_ext
from suder.engine.board import Board
from suder.engine.head import Head, Rules
from suder.engine.step import Batch
from suder.models.base import inference
from tests.trainer.engine.recorder import Recorder, Waits
from tests.trainer.families import small_emu3, small_liquid

N, STEPS = 3, 16
KINDS = [("understanding", 1.0), ("generation", 1.0), ("generation", 3.0)]
RULES = [
    Rules(),
    Rules(0.7, top_k=9),
    Rules(1.2, top_p=0.8),
    Rules(1.0, 9, 0.9),
    Rules(greedy=True),
]


@pytest.fixture(params=["kernels", "kernels, large vocabulary", "reference"])
def draws(request, monkeypatch):
    """Every way to draw; a GPU without kernels of its own takes the reference."""
    if request.param == "kernels, large vocabulary":
        monkeypatch.setattr("suder.engine.head.HELD", 0)
    if request.param == "reference":
        monkeypatch.setattr("suder.engine.head.sample_token", suder_ext.reference.sample_token)


class Started:
    """A batch on its way."""

    def __init__(
        self, model: Any, direction: Any, guidance: float, rules: Rules, given: Any
    ) -> None:
        self.decoding = model.start(direction, given, N, STEPS, guidance)
        self.decoding.make_room()
        rows, make = len(given) * N, torch.Generator().manual_seed(1)
        uniform = torch.rand(rows, STEPS, generator=make, dtype=torch.float64)
        end = model.eos_token_id if direction == "understanding" else None
        uniform = None if rules.greedy else uniform
        self.board = Board(uniform, (rows, STEPS), end, model.device)
        head = Head(self.decoding.weight, self.decoding.bias)
        self.batch = Batch(self.decoding, head, self.board, rules)
        self.batch.draw()
        self.step()  # the first step of a shape is not recorded

    def step(self, row_ends: bool = False) -> None:
        self.batch.step(STEPS - 1, row_ends)

    def recorded(self, row_ends: bool = False) -> Recorder:
        with Recorder() as recorder:
            self.step(row_ends)
        return recorder


@pytest.fixture
def start(shared_janus, prompts, pictures):
    def make(direction="generation", guidance=1.0, rules=RULES[0]):
        given = prompts if direction == "generation" else shared_janus.pixels(pictures)
        return Started(shared_janus, direction, guidance, rules, given)

    with inference(shared_janus):  # in inference mode the parts of some operators are not seen
        yield make


@pytest.mark.parametrize(("direction", "guidance"), KINDS)
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_two_steps_are_the_same(start, draws, direction, guidance, rules):
    """Operators, shapes, places in memory and numbers."""
    batch = start(direction, guidance, rules)
    first, second = batch.recorded(), batch.recorded()
    assert len(first.record) > 50
    assert any("sample_token" in call[0] or "searchsorted" in call[0] for call in first.record) or (
        rules.greedy
    )
    assert first.record == second.record


@pytest.mark.parametrize(("direction", "guidance"), KINDS)
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_recorded_step_run_again_writes_the_same(start, draws, direction, guidance, rules):
    """Nothing that a step does is left in Python."""
    plain, replayed = (start(direction, guidance, rules) for _ in range(2))
    recorder = replayed.recorded()
    plain.step()
    for _ in range(STEPS - 3):
        plain.step()
        recorder.replay()
    assert torch.equal(plain.board.tokens, replayed.board.tokens)
    assert torch.equal(plain.board.logprob, replayed.board.logprob)
    assert torch.equal(plain.board.entropy, replayed.board.entropy)
    assert replayed.board.drawn == STEPS
    assert rules.greedy or len(plain.board.tokens.unique()) > 5


@pytest.mark.parametrize("make", [small_emu3, small_liquid])
@pytest.mark.parametrize(("direction", "guidance"), KINDS)
def test_other_families_steps(make, prompts, pictures, direction, guidance):
    """A row's end makes a step another function, which can be recorded as well."""
    model = make()
    given = prompts if direction == "generation" else model.pixels(pictures)
    with inference(model):
        plain, replayed = (Started(model, direction, guidance, RULES[0], given) for _ in range(2))
        row = plain.decoding.row
        assert row == (4 if make is small_emu3 and direction == "generation" else 0)
        recorders: dict[bool, list[Recorder]] = {False: [], True: []}
        for written in range(2, STEPS):
            kind = bool(row) and written % row == 0
            plain.step(kind)
            if len(recorders[kind]) < 2:
                recorders[kind].append(replayed.recorded(kind))
            else:
                recorders[kind][1].replay()
    for found in filter(None, recorders.values()):
        assert found[0].record == found[1].record
    assert len(recorders[True]) == (2 if row else 0)
    assert torch.equal(plain.board.tokens, replayed.board.tokens)
    assert torch.equal(plain.board.logprob, replayed.board.logprob)
    assert len(plain.board.tokens.unique()) > 5


@pytest.mark.skipif(
    suder_ext.build_info()["kernel"] != "compiled", reason="the reference holds all logits"
)
def test_logits_of_a_large_vocabulary_are_not_held(start, monkeypatch):
    """They were allocated, copied and scanned several times a step, and mapped anew each time."""

    def widest(held):
        monkeypatch.setattr("suder.engine.head.HELD", held)
        batch = start("understanding")
        vocabulary = len(batch.decoding.weight)
        sizes = {size[0] for call in batch.recorded().record for size in call[1] if len(size) == 5}
        return (len(batch.board.token), vocabulary) in sizes

    assert widest(8192)
    assert not widest(8)


def reading_a_number(decoding, board):
    return lambda: decoding.position.add_(int(board.token[0]) * 0)


def asking_whether(decoding, board):
    return lambda: board.ended.zero_() if (board.token == 3).any() else None


def choosing_rows(decoding, board):
    return lambda: board.token[board.token > 3]


def where(decoding, board):
    return lambda: torch.where(board.token > 3)


def copying(decoding, board):
    return lambda: board.token.cpu()


def a_constant(decoding, board):
    return lambda: board.token.add_(torch.tensor(0))


@pytest.mark.parametrize(
    "fault", [reading_a_number, asking_whether, choosing_rows, where, copying, a_constant]
)
def test_what_waits_is_found(start, fault):
    batch = start()
    act = fault(batch.decoding, batch.board)
    advance = batch.decoding.advance
    batch.decoding.advance = lambda *given: (advance(*given), act())
    with pytest.raises(Waits):
        batch.recorded()


def a_counter(decoding, board, kept=[0]):  # noqa: B006
    kept[0] += 1
    decoding.cache.own[0][0][:, :, kept[0]] = 0


def a_number(decoding, board, kept=[0]):  # noqa: B006
    kept[0] += 1
    board.logprob.add_(kept[0])


def a_shape(decoding, board):
    decoding.grown = torch.cat([getattr(decoding, "grown", board.token), board.token])


def a_new_place(decoding, board):
    decoding.position = decoding.position + 1


@pytest.mark.parametrize("fault", [a_counter, a_number, a_shape, a_new_place])
def test_what_changes_is_found(start, fault):
    """The loops that this one has replaced did each of these."""
    batch = start()
    advance = batch.decoding.advance
    batch.decoding.advance = lambda *given: (advance(*given), fault(batch.decoding, batch.board))
    assert batch.recorded().record != batch.recorded().record
