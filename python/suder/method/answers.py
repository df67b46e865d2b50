"""Which of a few answers a model gives to a question about a picture, by their likelihood."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from suder.engine.weights import to_sample_with
from suder.method.pairs import PAIRS_AT_ONCE, Batch, Shown, batches
from suder.models.base import Hidden, UnifiedModel
from suder_ext import linear_logprob


class Answers(NamedTuple):
    """Tokens by which answers are told apart.

    Attributes:
        before: ids that all begin with; none where the words are tokens.
        options: of each answer, ids of what comes then, of every spelling that the vocabulary has.
    """

    before: list[int]
    options: list[list[int]]

    @property
    def target(self) -> list[int]:
        """Ids that are read after the question; at the last one the answers differ."""
        return [*self.before, self.options[0][0]]


def answers_of(model: UnifiedModel, spellings: Sequence[Sequence[str]]) -> Answers | None:
    """The tokens of some answers, or None where the vocabulary does not tell them apart.

    Args:
        spellings: the answers, in one way of writing them or in several, such as ("Yes", "No") and
            ("yes", "no"). Those count that begin alike.
    """
    found: list[tuple[list[int], list[int]]] = []
    for words in spellings:
        if lost(model, words):
            continue
        rows = [ids[:-1].tolist() for ids in model.tokenize(words)]
        shortest, same = min(map(len, rows)), 0
        while same < shortest and all(row[same] == rows[0][same] for row in rows):
            same += 1
        if same < shortest:
            first = [row[same] for row in rows]
            if len(set(first)) == len(first):
                found.append((rows[0][:same], first))
    if not found:
        return None
    before = min((one[0] for one in found), key=len)
    alike = [first for start, first in found if start == before]
    options = [sorted(set(ids)) for ids in zip(*alike, strict=True)]
    if sum(map(len, options)) > len({id for ids in options for id in ids}):
        options = [[id] for id in alike[0]]  # one spelling's yes begins as the other's no
    return Answers(before, options)


def lost(model: UnifiedModel, words: Sequence[str]) -> list[str]:
    """Words that the vocabulary does not spell, in either case."""
    back = model.detokenize(model.tokenize(words)) if words else []
    return [
        word for word, got in zip(words, back, strict=True)
        if "".join(got.split()).lower() != word.lower()
    ]  # fmt: skip


def read_answers(
    model: UnifiedModel,
    shown: Shown,
    pairs: Sequence[tuple[str, int]],
    answers: Answers,
    batch_size: int = PAIRS_AT_ONCE,
    tokens_per_batch: int | None = None,
) -> Tensor:
    """log p of each answer among the answers, float32 `[len(pairs), len(answers.options)]`.

    Args:
        pairs: questions, each with the code of its picture in `shown`.
        batch_size, tokens_per_batch: most pairs, and tokens, of one pass.
    """
    target = torch.tensor(answers.target)
    reader = to_sample_with(model)
    order: list[int] = []
    parts = [torch.zeros(0, len(answers.options), device=model.device)]
    asked, seen = [question for question, _ in pairs], [code for _, code in pairs]
    limits = batch_size, tokens_per_batch
    for batch in asked_at_once(reader, asked, seen, len(target), *limits):
        condition = shown.read([seen[i] for i in batch.pairs[:: batch.group]])
        questions = [pairs[i][0] for i in batch.pairs]
        targets = [target] * len(questions)
        hidden = reader("understanding", condition, targets, batch.group, questions=questions)
        order += batch.pairs
        parts.append(logprob_of(hidden, answers))
    read = torch.zeros(len(pairs), len(answers.options), device=model.device)
    read[order] = torch.cat(parts)
    return read


def asked_at_once(
    model: UnifiedModel,
    questions: Sequence[str],
    seen: Sequence[Hashable],
    answer: int,
    batch_size: int = PAIRS_AT_ONCE,
    tokens_per_batch: int | None = None,
) -> Iterator[Batch]:
    """Pairs of a question and a picture that may be read in one pass, the shortest first.

    Args:
        seen: of each pair, its picture, equal ones to be read once.
        answer: tokens that are read after a question.
    """

    def tokens(groups: Sequence[Sequence[int]]) -> int:
        flat = [questions[i] for group in groups for i in group]
        lengths = [answer] * len(flat)
        return model.tokens_read(
            "understanding", len(groups), lengths, len(groups[0]), questions=flat
        )

    return batches(
        len(questions), tokens, lambda group: tokens([group]), batch_size, tokens_per_batch, seen
    )


def logprob_of(hidden: Hidden, answers: Answers) -> Tensor:
    """log p of each answer at each sequence's last position, float32 `[B, answers]`.

    Of the answers' tokens alone, so that the rest of the vocabulary cancels out.
    """
    rows = torch.tensor([id for ids in answers.options for id in ids], device=hidden.weight.device)
    weight = hidden.weight[rows]
    bias = None if hidden.bias is None else hidden.bias[rows]
    last = hidden.hidden[hidden.cu_seqlens[1:] - 1]
    of_each = [
        linear_logprob(last, weight, torch.full((len(last),), i, device=last.device), bias)
        for i in range(len(rows))
    ]
    of_tokens = torch.stack(of_each).float()
    parts = of_tokens.split([len(ids) for ids in answers.options])
    return torch.stack([part.logsumexp(0) for part in parts], 1)
