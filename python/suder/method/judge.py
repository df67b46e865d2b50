"""What the model itself answers when it is asked whether a picture shows what a text says."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from suder.engine.weights import to_sample_with
from suder.method.pairs import (
    PAIRS_AT_ONCE,
    Batch,
    Shown,
    batches,
    check_group,
    distinct,
    places,
)
from suder.models.base import Hidden, UnifiedModel, inference, name_of
from suder_ext import linear_logprob

PLACE = "{text}"
WORDS = (("Yes", "No"), ("yes", "no"))


class Answers(NamedTuple):
    """Tokens by which yes and no are told apart.

    Attributes:
        before: ids that both begin with; none where the words are tokens.
        yes, no: ids of what comes then, of every case that the vocabulary tells apart.
    """

    before: list[int]
    yes: list[int]
    no: list[int]


class SelfJudge:
    """J(picture, text) = p(yes) / (p(yes) + p(no)) of the model's answer to a question about both.

    The question is the family's, `Does this picture show {text}? Answer yes or no.` for Janus; the
    setting `prompts.judge` is another. Internal Gap (arXiv 2507.16663) asks so, and takes the hard
    answer, J >= 0.5; the soft one ranks what it answers alike.

    "Yes" and "yes" both count where they are tokens of their own, and so do both of "no". Where a
    vocabulary spells the words in pieces, the first piece that differs stands for the word. All is
    one position of one pass, and of the last layer only the rows of those tokens are read
    (`suder_ext.linear_logprob`): what the other tokens' probabilities are makes no difference.

    NaN stands where there is no answer: to an empty text, to one that does not fit the model's
    positions together with a picture, and where the model gives numbers that are not finite.

    Args:
        model: an adapter from `load_model`; it is read as it is when it is asked.
        batch_size: most pairs of a picture and a text in one pass.
        tokens_per_batch: most tokens in one pass, but at least one pair's; None: as many as
            `batch_size` pairs have.
        template: another question, with `{text}` in it once; None: `prompts.judge`, or the
            family's.

    Attributes:
        template: the question.
        lacks: words of the question that the vocabulary has not.
        unavailable: "", or why this model cannot be asked, in a sentence.

    Raises:
        ValueError: a template that names no text.
    """

    def __init__(
        self,
        model: UnifiedModel,
        batch_size: int = PAIRS_AT_ONCE,
        tokens_per_batch: int | None = None,
        template: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: takes an integer from 1, got {batch_size}")
        self.model, self.batch_size = model, batch_size
        self.tokens_per_batch = tokens_per_batch
        self.template: str = template or model.asks.get("judge") or ""
        if self.template and self.template.count(PLACE) != 1:
            raise ValueError(f"prompts.judge: takes a question with {PLACE} in it once, got "
                             f"{self.template!r}")  # fmt: skip
        self.lacks = _lost(model, self.template.replace(PLACE, " ").split())
        self.unavailable = _unavailable(model, self.template, self.lacks)
        self.answers = None if self.unavailable else answers_of(model)

    def question(self, text: str) -> str:
        """What is asked about a text; a full stop at its end is not read as the question's."""
        return self.template.replace(PLACE, text.strip().rstrip(".").rstrip())

    def __call__(self, images: Any, texts: Sequence[str], group: int = 1) -> Tensor:
        """J of pairs, float32 `[B]` in [0, 1]; NaN where there is none.

        Args:
            images: PIL pictures, uint8 arrays, what `model.pixels` makes of them, or int64 VQ
                tokens `[C, I]`, which are decoded, unless the model reads them as they are.
            texts: that each picture is compared with.
            group: consecutive pairs that share a picture, or a text: of what is shared there may be
                one for each group, or one for each pair.

        Raises:
            ValueError: the model cannot be asked, see `unavailable`.
        """
        if self.answers is None:
            raise ValueError(f"judge: {self.unavailable}")
        model = self.model
        count = max(len(images), len(texts))
        check_group("pairs", count, group)
        picture = places("images", len(images), "pairs", count, group)
        text = places("texts", len(texts), "pairs", count, group)
        asked = [self.question(one) if one.strip(" .\n\t") else "" for one in texts]
        fits = [bool(one) and not model.too_long("understanding", "yes", one) for one in asked]
        found = torch.full((count,), torch.nan, device=model.device)
        with inference(model):
            shown = Shown(model, images)
            spoken = [i for i in range(count) if fits[text[i]]]
            keys = [(asked[text[i]], shown.codes[picture[i]]) for i in spoken]
            unique, place = distinct(keys)
            judged = self._judge(shown, [keys[i] for i in unique])
            found[spoken] = judged[place]
        return found

    def _judge(self, shown: Shown, pairs: Sequence[tuple[str, int]]) -> Tensor:
        assert self.answers
        target = torch.tensor(self.target)
        reader = to_sample_with(self.model)
        order: list[int] = []
        parts = [torch.zeros(0, device=self.model.device)]
        seen = [code for _, code in pairs]
        for batch in self.batches([question for question, _ in pairs], seen):
            condition = shown.read([seen[i] for i in batch.pairs[:: batch.group]])
            questions = [pairs[i][0] for i in batch.pairs]
            targets = [target] * len(questions)
            hidden = reader("understanding", condition, targets, batch.group, questions=questions)
            order += batch.pairs
            parts.append(of_answers(hidden, self.answers))
        judged = torch.zeros(len(pairs), device=self.model.device)
        judged[order] = torch.cat(parts)
        return judged

    @property
    def target(self) -> list[int]:
        """Ids that are read after the question."""
        assert self.answers
        return [*self.answers.before, self.answers.yes[0]]

    def batches(self, questions: Sequence[str], seen: Sequence[Hashable]) -> Iterator[Batch]:
        """Pairs of a question and a picture that may be read at once, the shortest first.

        Args:
            seen: of each pair, its picture, equal ones to be read once.
        """

        def tokens(groups: Sequence[Sequence[int]]) -> int:
            flat = [questions[i] for group in groups for i in group]
            lengths = [len(self.target)] * len(flat)
            return self.model.tokens_read(
                "understanding", len(groups), lengths, len(groups[0]), questions=flat
            )

        return batches(
            len(questions), tokens, lambda group: tokens([group]), self.batch_size,
            self.tokens_per_batch, seen,
        )  # fmt: skip


def of_answers(hidden: Hidden, answers: Answers) -> Tensor:
    """p(yes) / (p(yes) + p(no)) at each sequence's last position, float32 `[B]`; NaN if not finite.

    Of the two kinds of tokens alone, so that the rest of the vocabulary cancels out.
    """
    rows = torch.tensor([*answers.yes, *answers.no], device=hidden.weight.device)
    weight = hidden.weight[rows]
    bias = None if hidden.bias is None else hidden.bias[rows]
    last = hidden.hidden[hidden.cu_seqlens[1:] - 1]
    of_each = [
        linear_logprob(last, weight, torch.full((len(last),), i, device=last.device), bias)
        for i in range(len(answers.yes))
    ]
    judged = torch.stack(of_each).float().logsumexp(0).exp().clamp(max=1.0)
    return judged.masked_fill(~judged.isfinite(), torch.nan)


def answers_of(model: UnifiedModel) -> Answers | None:
    """The tokens of yes and no, or None where the vocabulary does not tell them apart."""
    found: list[tuple[list[int], int, int]] = []
    for words in WORDS:
        if _lost(model, words):
            continue
        yes, no = (ids[:-1].tolist() for ids in model.tokenize(words))
        same = 0
        while same < min(len(yes), len(no)) and yes[same] == no[same]:
            same += 1
        if same < min(len(yes), len(no)):
            found.append((yes[:same], yes[same], no[same]))
    if not found:
        return None
    before = min((one[0] for one in found), key=len)
    alike = [one for one in found if one[0] == before]
    answers = Answers(before, sorted({one[1] for one in alike}), sorted({one[2] for one in alike}))
    if set(answers.yes) & set(answers.no):  # one case's yes begins as the other's no
        return Answers(before, [alike[0][1]], [alike[0][2]])
    return answers


def _unavailable(model: UnifiedModel, template: str, lost: Sequence[str]) -> str:
    if not template or not getattr(model, "takes_questions", False):
        return f"{name_of(model)} is of a family whose adapter takes no questions of their own"
    if lost or answers_of(model) is None:
        missing = ", ".join(map(repr, lost)) or "yes and no as different words"
        return (
            f"{name_of(model)} cannot be asked {template!r}: its vocabulary lacks {missing}; set "
            "prompts.judge to a question in words that it knows"
        )
    try:
        model.tokens_read("understanding", 1, [1], questions=[template])
    except ValueError as error:
        return f"{name_of(model)} cannot be asked: {error}"
    return ""


def _lost(model: UnifiedModel, words: Sequence[str]) -> list[str]:
    """Words that the vocabulary does not spell, in either case."""
    back = model.detokenize(model.tokenize(words)) if words else []
    return [
        word for word, got in zip(words, back, strict=True)
        if "".join(got.split()).lower() != word.lower()
    ]  # fmt: skip
