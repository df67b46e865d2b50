"""A model's answers to questions: by the options' likelihood, or by what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from suder.engine.sampling import sample
from suder.evaluation.answering.match import matched
from suder.evaluation.answering.question import YES_NO, Question, picture_of
from suder.inputs.files import DataError
from suder.method.answers import answers_of, lost, read_answers
from suder.method.pairs import Shown
from suder.models.base import NotFinite, UnifiedModel, inference, name_of

By = Literal["likelihood", "generation"]
LONGEST = 64  # tokens of a written answer
Answer = dict[str, Any]


class Answering:
    """Answers questions, some at once.

    By likelihood the answer is the option that is likeliest among the options: the letter, or yes
    and no in every spelling that the vocabulary has. Open questions have no options; they are
    answered in writing, greedily, as all are by generation.

    Args:
        model: an adapter from `load_model` that takes questions.
        images: the folder of pictures, where they are not in the suite's file.
        by: "likelihood" or "generation".
        wrap: around a question with options, as `{text}`; None: the suite's own.
        max_new_tokens: the longest written answer.

    Raises:
        ValueError: the model cannot be asked.
    """

    def __init__(
        self,
        model: UnifiedModel,
        images: Path | None = None,
        by: By = "likelihood",
        wrap: str | None = None,
        max_new_tokens: int = LONGEST,
    ) -> None:
        if not getattr(model, "takes_questions", False):
            raise ValueError(f"{name_of(model)} is of a family whose adapter takes no questions")
        if wrap is not None and "{text}" not in wrap:
            raise ValueError(f"--question: takes words around {{text}}, got {wrap!r}")
        if max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens: takes an integer from 1, got {max_new_tokens}")
        self.model, self.images, self.by, self.wrap = model, images, by, wrap
        self.longest = max_new_tokens
        own = str(model.asks["question"])
        self.positions = model.longest_text + len(model.question_ids(own)) - 1

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """{"key", "said", "text", "logprob"} of each, in order; or {"key", "skipped"} and why.

        said: an option, "" where the text names none; of an open question the text.

        Raises:
            NotFinite: the model gives numbers that are not finite.
            ValueError: its vocabulary does not tell the options apart.
        """
        found: dict[str, Answer] = {}
        fit: list[Question] = []
        pictures: list[np.ndarray] = []
        for one in questions:
            try:
                picture = picture_of(one, self.images, self.model.background)
                if self._room(one) < 1:
                    raise DataError("the question is too long for the model")
                fit.append(one)
                pictures.append(picture)
            except DataError as error:
                found[one.key] = {"key": one.key, "skipped": str(error)}
        shown = Shown(self.model, pictures)
        likely = [i for i, one in enumerate(fit) if one.options and self.by == "likelihood"]
        written = sorted({*range(len(fit))} - {*likely})
        with inference(self.model):
            for yes_no in (True, False):
                some = [i for i in likely if (fit[i].options == YES_NO) == yes_no]
                found |= self._by_likelihood([fit[i] for i in some], shown, some)
        found |= self._in_writing([fit[i] for i in written], shown, written)
        return [found[one.key] for one in questions]

    def _room(self, question: Question) -> int:
        """Tokens that fit behind a question."""
        return self.positions - len(self.model.question_ids(question.asked(self.wrap))) + 1

    def _by_likelihood(
        self, questions: list[Question], shown: Shown, places: Sequence[int]
    ) -> dict[str, Answer]:
        """Of questions whose pictures have these places among those shown."""
        if not questions:
            return {}
        every = max((one.options for one in questions), key=len)
        spellings = [every, [option.lower() for option in every]] if every == YES_NO else [every]
        answers = answers_of(self.model, spellings)
        if answers is None:
            lacking = ", ".join(lost(self.model, every)) or "them as different words"
            raise ValueError(
                f"{name_of(self.model)} cannot be asked for {', '.join(every)}: its vocabulary "
                f"lacks {lacking}"
            )
        pairs = [
            (one.asked(self.wrap), shown.codes[place])
            for one, place in zip(questions, places, strict=True)
        ]
        read = read_answers(self.model, shown, pairs, answers)
        found = {}
        for one, row in zip(questions, read.double().cpu(), strict=True):
            among = row[: len(one.options)].log_softmax(0)
            if not among.isfinite().all():
                raise NotFinite(f"no answer to question {one.key}: {name_of(self.model)} gives "
                                "numbers that are not finite")  # fmt: skip
            said = one.options[int(among.argmax())]
            logprob = dict(zip(one.options, among.tolist(), strict=True))
            found[one.key] = {"key": one.key, "said": said, "text": said, "logprob": logprob}
        return found

    def _in_writing(
        self, questions: list[Question], shown: Shown, places: Sequence[int]
    ) -> dict[str, Answer]:
        if not questions:
            return {}
        steps = min(self.longest, *map(self._room, questions))
        drawn = sample(
            self.model, "understanding", shown.read([shown.codes[place] for place in places]),
            greedy=True, max_new_tokens=steps,
            questions=[one.asked(self.wrap) for one in questions],
        )  # fmt: skip
        assert not isinstance(drawn.tokens, torch.Tensor)
        texts = self.model.detokenize(drawn.tokens)
        found = {}
        for one, text in zip(questions, texts, strict=True):
            said = matched(text, one.options, one.choices) if one.options else text
            found[one.key] = {"key": one.key, "said": said, "text": text, "logprob": None}
        return found
