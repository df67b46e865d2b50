"""What the model itself answers when it is asked whether a picture shows what a text says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from suder.method.answers import answers_of, lost, read_answers
from suder.method.pairs import PAIRS_AT_ONCE, Shown, check_group, distinct, places
from suder.models.base import UnifiedModel, inference, name_of

PLACE = "{text}"
WORDS = (("Yes", "No"), ("yes", "no"))


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
        self.lacks = lost(model, self.template.replace(PLACE, " ").split())
        self.unavailable = _unavailable(model, self.template, self.lacks)
        self.answers = None if self.unavailable else answers_of(model, WORDS)

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
            read = read_answers(model, shown, [keys[i] for i in unique], self.answers,
                                self.batch_size, self.tokens_per_batch)  # fmt: skip
            judged = read[:, 0].exp().clamp(max=1.0)
            found[spoken] = judged.masked_fill(~judged.isfinite(), torch.nan)[place]
        return found


def _unavailable(model: UnifiedModel, template: str, missing: Sequence[str]) -> str:
    if not template or not getattr(model, "takes_questions", False):
        return f"{name_of(model)} is of a family whose adapter takes no questions of their own"
    if missing or answers_of(model, WORDS) is None:
        lacked = ", ".join(map(repr, missing)) or "yes and no as different words"
        return (
            f"{name_of(model)} cannot be asked {template!r}: its vocabulary lacks {lacked}; set "
            "prompts.judge to a question in words that it knows"
        )
    try:
        model.tokens_read("understanding", 1, [1], questions=[template])
    except ValueError as error:
        return f"{name_of(model)} cannot be asked: {error}"
    return ""
