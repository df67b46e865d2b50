"""`sample`: candidates in either direction, each token with the log-probability it was drawn at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from suder.engine.board import Board
from suder.engine.graphs import graphs_of
from suder.engine.head import Head, Rules
from suder.engine.noise import Noise
from suder.engine.step import Batch
from suder.engine.weights import places, to_sample_with
from suder.engine.writing import write
from suder.models.base import (
    Condition,
    Direction,
    NotFinite,
    UnifiedModel,
    inference,
    name_of,
)

# Candidates of a part: matrix products of fewer rows round otherwise (measured on x86, MKL and
# one thread: 1 to 3 rows do, 4 to 256 all have the same bits).
FEWEST = 4
AT_ONCE = 256  # candidates


@dataclass(frozen=True)
class Samples:
    """C * n candidates, condition-major: the n of the first condition, then the second's.

    Attributes:
        tokens: generation: int64 `[C * n, I]`; understanding: a list of int64 `[L]`, EOS included.
        logprob: float32 of the same shapes, under the distribution drawn from: after temperature,
            guidance, top-k and top-p. Greedy candidates report it too, as if they had been drawn.
        finished: bool `[C * n]`, False for a text cut off before its EOS.
        entropy: float32 of the shapes of `tokens`, in nats, of the same distributions as `logprob`.
    """

    tokens: Tensor | list[Tensor]
    logprob: Tensor | list[Tensor]
    finished: Tensor
    entropy: Tensor | list[Tensor]


def sample(
    model: UnifiedModel,
    direction: Direction,
    condition: Condition,
    n: int = 1,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance: float = 1.0,
    greedy: bool = False,
    max_new_tokens: int | None = None,
    seed: int = 0,
    progress: bool = False,
    batch_size: int = AT_ONCE,
    first: int = 0,
    questions: Sequence[str] | None = None,
) -> Samples:
    """Writes `n` candidates for each condition.

    Args:
        model: an adapter from `load_model`.
        direction: "understanding" (captions of pictures) or "generation" (pictures of prompts).
        condition: pixels `[C, 3, S, S]` of `model.pixels(...)`, or C prompts.
        n: candidates a condition.
        temperature: divides the logits; > 0.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the smallest set of tokens that holds this much probability; 1 for all.
        guidance: classifier-free guidance scale s, uncond + s * (cond - uncond); 1 for none.
        greedy: always the most likely token.
        max_new_tokens: longest text; None for `model.max_new_tokens`. Pictures always have
            `model.num_image_tokens`.
        seed: candidate j of condition c draws from a stream of (seed, c, j) alone, so neither the
            other conditions, nor n, nor the batch size change its random numbers.
        progress: show a bar.
        batch_size: candidates written at once, of one condition or of several; bounds the memory of
            the key/value cache. A condition is read once for each batch that holds some of its
            candidates; neither random numbers nor the tokens drawn depend on how they are divided.
            Their log-probabilities may, by 1e-5: BLAS sums a product of one to three rows (on t
            threads, a few for each) in another order, and so rounds otherwise, than one of more.
        first: the number of the first condition: a call for a part of many conditions draws what a
            call for all of them would.
        questions: understanding: what each picture is asked, in place of the model's own question;
            only where `model.takes_questions`.

    Raises:
        ValueError: an option out of its range; `NotFinite` where logits are not finite.
    """
    rules = Rules(temperature, top_k, top_p, greedy)
    if not math.isfinite(guidance):
        raise ValueError(f"guidance: takes a finite number, got {guidance}")
    if max_new_tokens is None:
        max_new_tokens = model.max_new_tokens
    if n < 1 or max_new_tokens < 1 or batch_size < 1:
        raise ValueError(
            "n, max_new_tokens, batch_size: take integers from 1, "
            f"got {n}, {max_new_tokens}, {batch_size}"
        )
    if questions is not None and len(questions) != len(condition):
        raise ValueError(
            f"questions: {len(condition)} conditions take as many, got {len(questions)}"
        )
    steps = model.num_image_tokens if direction == "generation" else max_new_tokens
    parts = list(batches(len(condition), n, batch_size))
    noise = None if greedy else Noise(seed, steps)
    written: list[tuple[Tensor, Tensor, Tensor]] = []
    bar = _bar(f"sampling ({direction})", len(parts) * steps, progress)
    # Inference mode spares every small operation its bookkeeping; `_samples` copies what was
    # written outside of it, so that it may take part in a loss.
    with inference(model), torch.inference_mode(), bar as move:
        writer = to_sample_with(model)
        graphs, where = graphs_of(writer), places(writer)
        for number, (conditions, each) in enumerate(parts):
            part = condition[conditions.start : conditions.stop]
            numbers = range(first + conditions.start, first + conditions.stop)
            uniform = None if noise is None else noise.draw(numbers, each)
            end = model.eos_token_id if direction == "understanding" else None
            board = Board(uniform, (len(part) * each, steps), end, model.device)
            with model.computing():
                own = questions and questions[conditions.start : conditions.stop]
                asked = {} if own is None else {"questions": own}  # older adapters take none
                decoding = writer.start(direction, part, each, steps, guidance, **asked)
                batch = Batch(decoding, Head(decoding.weight, decoding.bias), board, rules)
                write(batch, each, move, graphs, where)
            tokens, logprob, entropy = board.tokens.T, board.logprob.T, board.entropy.T
            _check_finite(model, direction, part, logprob)
            written.append((tokens, logprob, entropy))
            move((number + 1) * steps)
    return _samples(model, direction, written)


@contextmanager
def _bar(label: str, total: int, shown: bool) -> Iterator[Callable[..., None]]:
    """`move()` goes on by one step, `move(k)` to step k."""
    if not shown:
        yield lambda completed=0: None
        return
    with Progress(transient=True) as bar:
        task = bar.add_task(label, total=total)

        def move(completed: int = 0) -> None:
            if completed:
                bar.update(task, completed=completed)
            else:
                bar.advance(task)

        yield move


def batches(count: int, n: int, size: int) -> Iterator[tuple[range, int]]:
    """Conditions and candidates of each: whole conditions, or a part of one that is too large.

    Parts are of like size and of `FEWEST` candidates at least: of seven, any `size` makes one part.
    """
    if n <= size:
        at_once = size // n
        for first in range(0, count, at_once):
            yield range(first, min(count, first + at_once)), n
        return
    parts = max(1, min(-(-n // size), n // FEWEST))
    for condition in range(count):
        for part in range(parts):
            yield range(condition, condition + 1), n // parts + (part < n % parts)


def _check_finite(
    model: UnifiedModel, direction: Direction, condition: Condition, logprob: Tensor
) -> None:
    """A row of NaN or +inf logits has no most likely token, and none to draw."""
    bad = (~logprob.isfinite()).any(1).nonzero().flatten()
    if len(bad):
        row = int(bad[0]) * len(condition) // len(logprob)
        given = f"prompt {condition[row]!r}" if direction == "generation" else f"picture {row}"
        raise NotFinite(
            f"sample: logits that are not finite from {name_of(model)}, {direction}, "
            f"{given} of {len(condition)} in the batch; its weights hold NaN or infinity, or "
            "overflow in this dtype"
        )


def _samples(
    model: UnifiedModel, direction: Direction, written: list[tuple[Tensor, Tensor, Tensor]]
) -> Samples:
    if direction == "generation":
        empty = torch.zeros(0, model.num_image_tokens, device=model.device)
        tokens = torch.cat([empty.long(), *(part for part, _, _ in written)])
        logprob = torch.cat([empty, *(part for _, part, _ in written)])
        entropy = torch.cat([empty, *(part for _, _, part in written)])
        return Samples(tokens, logprob, torch.ones(len(tokens), dtype=torch.bool), entropy)
    columns: tuple[list[Tensor], ...] = [], [], []  # tokens, log p, entropy
    finished: list[Tensor] = [torch.zeros(0, dtype=torch.bool)]
    for part in written:
        tokens = part[0]
        before_end = (tokens != model.eos_token_id).cumprod(1).sum(1)
        complete = before_end < tokens.shape[1]
        lengths = (before_end + complete).tolist()
        for column, rows in zip(columns, part, strict=True):
            column += [row[:length].clone() for row, length in zip(rows, lengths, strict=True)]
        finished.append(complete.cpu())
    texts, logprobs, entropies = columns
    return Samples(texts, logprobs, torch.cat(finished), entropies)
