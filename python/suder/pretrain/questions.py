"""Teaches a model to say whether a picture shows what a text says: "yes" or "no".

As many of one as of the other. Half of the false texts are captions of anything else, the other
half differ from the true one in a single word, each word as often as any. All are captions of the
pairs that teach reading: a text that no picture of theirs shows would be learnt as never true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.models.janus.layout import JUDGE, caption_ids, understanding_ids

IGNORE = -100


class Asked(NamedTuple):
    """Ids of questions, int64 `[L]` each, the picture's place in them, and of their answers."""

    questions: list[Tensor]
    answers: list[Tensor]


class Partners:
    """The captions that a caption may be confused with."""

    def __init__(self, captions: Sequence[str]) -> None:
        self.every = list(dict.fromkeys(captions))
        self.near: dict[str, list[list[str]]] = {}

    def draw(
        self, captions: Sequence[str], generator: torch.Generator
    ) -> tuple[list[str], list[bool]]:
        """A text to ask about for each caption, and whether it is the caption."""
        texts, truth = [], []
        for at, caption in enumerate(captions):
            true = at % 2 == 0 or len(self.every) == 1
            texts.append(caption if true else self._other(caption, generator))
            truth.append(true)
        return texts, truth

    def _other(self, caption: str, generator: torch.Generator) -> str:
        def pick(count: int) -> int:
            return int(torch.randint(count, (1,), generator=generator))

        near = self._near(caption)
        if near and pick(2):
            by_word = near[pick(len(near))]
            return by_word[pick(len(by_word))]
        at = self.every.index(caption)
        return self.every[(at + 1 + pick(len(self.every) - 1)) % len(self.every)]

    def _near(self, caption: str) -> list[list[str]]:
        """Captions with one other word, a list for each place that such a word has."""
        if caption not in self.near:
            words = caption.split()
            places: list[list[str]] = [[] for _ in words]
            for other in self.every:
                theirs = other.split()
                if len(theirs) == len(words):
                    unlike = [at for at, word in enumerate(words) if theirs[at] != word]
                    if len(unlike) == 1:
                        places[unlike[0]].append(other)
            self.near[caption] = [found for found in places if found]
        return self.near[caption]


def answers(processor: JanusProcessor, texts: Sequence[str], truth: Sequence[bool]) -> Asked:
    """The questions about the texts as the family lays them out, and what is right to say."""
    said = {one: caption_ids(processor, "yes" if one else "no") for one in (True, False)}
    questions = [understanding_ids(processor, JUDGE.format(text=text)) for text in texts]
    return Asked(questions, [said[one] for one in truth])


def judging_loss(model: JanusForConditionalGeneration, asked: Asked, pixels: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens, EOS included, given pictures and questions."""
    janus = model.model
    pairs = list(zip(asked.questions, asked.answers, strict=True))
    ids = pad_sequence([torch.cat([one, said[:-1]]) for one, said in pairs], batch_first=True)
    targets = pad_sequence(asked.answers, batch_first=True, padding_value=IGNORE)
    embeds = model.get_input_embeddings()(ids)
    features = janus.get_image_features(pixels, return_dict=True).pooler_output
    place = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(embeds)
    embeds = embeds.masked_scatter(place, features)
    # Padding is at the end, where causal attention keeps it from everything that is scored.
    hidden = janus.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    first = torch.tensor([len(one) - 1 for one in asked.questions])
    rows = (first[:, None] + torch.arange(targets.shape[1])).clamp(max=ids.shape[1] - 1)
    picked = hidden.gather(1, rows.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
    logits = model.lm_head(picked)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
