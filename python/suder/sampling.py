"""`sample`: candidates in either direction, each token with the log-probability it was drawn at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from suder.models.base import Condition, Direction, UnifiedModel, inference
from suder.sampling_distribution import Distribution, pick

# Steps between two looks at which texts have ended: a look makes a GPU wait.
STEPS_BETWEEN_LOOKS = 4


@dataclass(frozen=True)
class Samples:
    """C * n candidates, condition-major: the n of the first condition, then the second's.

    Attributes:
        tokens: generation: int64 `[C * n, I]`; understanding: a list of int64 `[L]`, EOS included.
        logprob: float32 of the same shapes, under the distribution drawn from: after temperature,
            guidance, top-k and top-p. Greedy candidates report it too, as if they had been drawn.
        finished: bool `[C * n]`, False for a text cut off before its EOS.
    """

    tokens: Tensor | list[Tensor]
    logprob: Tensor | list[Tensor]
    finished: Tensor


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
    max_new_tokens: int = 32,
    seed: int = 0,
    progress: bool = False,
    batch_size: int = 256,
) -> Samples:
    """Writes `n` candidates for each condition; each condition is read once.

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
        max_new_tokens: longest text; pictures always have `model.num_image_tokens`.
        seed: candidate j of condition c draws from a stream of (seed, c, j) alone, so neither the
            other conditions, nor n, nor the batch size change its random numbers.
        progress: show a bar.
        batch_size: candidates written at once; bounds the memory of the key/value cache.
    """
    rules = Distribution(temperature, top_k, top_p, greedy)
    if n < 1 or max_new_tokens < 1 or batch_size < 1:
        raise ValueError(
            "n, max_new_tokens, batch_size: take integers from 1, "
            f"got {n}, {max_new_tokens}, {batch_size}"
        )
    steps = model.num_image_tokens if direction == "generation" else max_new_tokens
    count = len(condition)
    at_once = max(1, batch_size // n)
    batches = [range(i, min(count, i + at_once)) for i in range(0, count, at_once)]
    written: list[tuple[Tensor, Tensor]] = []
    with inference(model), Progress(disable=not progress, transient=True) as bar:
        task = bar.add_task(f"sampling ({direction})", total=len(batches) * steps)
        for number, batch in enumerate(batches):
            part = condition[batch.start : batch.stop]
            noise = None if greedy else _noise(seed, batch, n, steps).to(model.device)
            written.append(
                _write(model, direction, part, n, steps, guidance, rules, noise, bar.advance, task)
            )
            bar.update(task, completed=(number + 1) * steps)
    return _samples(model, direction, written)


def _write(
    model: UnifiedModel,
    direction: Direction,
    condition: Condition,
    n: int,
    steps: int,
    guidance: float,
    rules: Distribution,
    noise: Tensor | None,
    advance_bar: Callable[..., None],
    task: int,
) -> tuple[Tensor, Tensor]:
    """One batch's tokens and log-probabilities, both `[R, steps]`; what follows EOS is void."""
    decoding = model.start(direction, condition, n, steps, guidance)
    text = direction == "understanding"
    total = len(condition) * n
    tokens = torch.full((total, steps), model.eos_token_id if text else 0, device=model.device)
    logprob = torch.zeros(total, steps, device=model.device)
    rows = torch.arange(total, device=model.device)  # the candidates still being written
    ended = torch.zeros(total, dtype=torch.bool, device=model.device)
    for step in range(steps):
        uniform = None if noise is None else noise[rows, step]
        token, value = pick(decoding.logits(), rules, uniform)
        tokens[rows, step] = token
        logprob[rows, step] = value
        advance_bar(task)
        if step + 1 == steps:
            break
        if text:
            ended |= token == model.eos_token_id
            if (step + 1) % STEPS_BETWEEN_LOOKS == 0:
                going = (~ended).nonzero().flatten()
                if not len(going):
                    break
                if 2 * len(going) <= len(rows):
                    decoding.keep(going)
                    rows, ended, token = rows[going], ended[going], token[going]
        decoding.advance(token)
    return tokens, logprob


def _noise(seed: int, batch: range, n: int, steps: int) -> Tensor:
    """Uniform numbers float64 `[len(batch) * n, steps]`, one generator a condition.

    Drawn on the CPU, so that a seed means the same on every device.
    """
    streams = []
    for condition in batch:
        state = np.random.SeedSequence([seed, condition]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) >> 1)
        streams.append(torch.rand(n, steps, generator=generator, dtype=torch.float64))
    return torch.cat(streams)


def _samples(
    model: UnifiedModel, direction: Direction, written: list[tuple[Tensor, Tensor]]
) -> Samples:
    if direction == "generation":
        empty = torch.zeros(0, model.num_image_tokens, device=model.device)
        tokens = torch.cat([empty.long(), *(part for part, _ in written)])
        logprob = torch.cat([empty, *(part for _, part in written)])
        return Samples(tokens, logprob, torch.ones(len(tokens), dtype=torch.bool))
    texts: list[Tensor] = []
    values: list[Tensor] = []
    finished: list[Tensor] = [torch.zeros(0, dtype=torch.bool)]
    for tokens, logprob in written:
        before_end = (tokens != model.eos_token_id).cumprod(1).sum(1)
        complete = before_end < tokens.shape[1]
        lengths = (before_end + complete).tolist()
        texts += [row[:length].clone() for row, length in zip(tokens, lengths, strict=True)]
        values += [row[:length].clone() for row, length in zip(logprob, lengths, strict=True)]
        finished.append(complete.cpu())
    return Samples(texts, values, torch.cat(finished))
