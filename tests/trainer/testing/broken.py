"""Adapters with one fault each, by the check that has to find it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from suder.models import Janus


class DecodesMirrored(Janus):
    def decode(self, tokens):
        return super().decode(tokens).flip(2)


class CodesOfInt32(Janus):
    def encode(self, pixels):
        return super().encode(pixels).int()


class CodesBeyondTheBook(Janus):
    def encode(self, pixels):
        return super().encode(pixels) + self.image_vocab_size


class DropsTheLastWord(Janus):
    def detokenize(self, ids):
        return [text.rpartition(" ")[0] for text in super().detokenize(ids)]


class NoEnd(Janus):
    def tokenize(self, texts):
        return [ids[:-1] for ids in super().tokenize(texts)]


class GivesItsOwnIds(Janus):
    def tokenize(self, texts):
        return [self.prompts.text_ids(text.strip()) for text in texts]


class ObeysTexts(Janus):
    def tokenize(self, texts):
        end = [self.eos_token_id]
        tokenizer = self.processor.tokenizer
        return [torch.tensor(tokenizer(text)["input_ids"] + end) for text in texts]


class AlwaysFits(Janus):
    def too_long(self, direction, text):
        return ""


class OneTokenLess(Janus):
    @property
    def longest_text(self):
        return super().longest_text - 1


class Dropout(Janus):
    def forward(self, *args, **options):
        made = super().forward(*args, **options)
        return made._replace(hidden=F.dropout(made.hidden, 0.1, training=True))


class MixesRows(Janus):
    def forward(self, *args, **options):
        made = super().forward(*args, **options)
        return made._replace(hidden=made.hidden + 1e-3 * made.hidden.mean(0))


class SeesSiblings(Janus):
    """A group's later targets read the first one's last hidden state."""

    def forward(self, direction, condition, targets, group=1, guidance=1.0):
        made = super().forward(direction, condition, targets, group, guidance)
        if group == 1:
            return made
        hidden = made.hidden.clone()
        hidden[made.cu_seqlens[1] :] += 1e-3 * hidden[0]
        return made._replace(hidden=hidden)


class GuidesFromTheCondition(Janus):
    """cond + s * (cond - uncond), as in some papers, while scale 1 is still none."""

    def forward(self, direction, condition, targets, group=1, guidance=1.0):
        scale = guidance if guidance == 1.0 else guidance + 1.0
        return super().forward(direction, condition, targets, group, scale)


class OnePositionOff(Janus):
    def start(self, *args, **options):
        decoding = super().start(*args, **options)
        decoding.position += 1
        return decoding


class _TakesOthers:
    def __init__(self, decoding):
        self.__dict__["decoding"] = decoding

    def __getattr__(self, name):
        return getattr(self.decoding, name)

    def take(self, conditions, rows):
        return self.decoding.take(conditions, rows.flip(0))


class TakesOtherRows(Janus):
    def start(self, *args, **options):
        return _TakesOthers(super().start(*args, **options))


class Tempered(Janus):
    """The likelihood is of logits that the sampler divides by another temperature."""

    def forward(self, *args, **options):
        made = super().forward(*args, **options)
        return made._replace(hidden=made.hidden / 0.99)


class AsksOnlyItsOwn(Janus):
    def forward(self, *args, questions=None, **options):
        return super().forward(*args, **options)


class AsksTheFirst(Janus):
    """All rows of a batch are asked what the first is."""

    def forward(self, *args, questions=None, **options):
        questions = questions and questions[:1] * len(questions)
        return super().forward(*args, questions=questions, **options)


class AnswersItsOwn(Janus):
    """Sampling goes on from the model's own question, whatever is asked."""

    def start(self, *args, questions=None, **options):
        return super().start(*args, **options)


class TrainsNoVision(Janus):
    def forward(self, direction, condition, *args, **options):
        made = super().forward(direction, condition, *args, **options)
        if direction == "understanding":
            made = made._replace(hidden=made.hidden.detach())
        return made


class ForgetsSomeWeights(Janus):
    def trainable_parameters(self):
        return super().trainable_parameters()[1:]


class RecomputesAnother(Janus):
    def forward(self, *args, **options):
        made = super().forward(*args, **options)
        return made._replace(hidden=made.hidden * 1.01) if self.checkpoint_activations else made


class FrozenInName(Janus):
    def frozen_copy(self):
        return self


class SharesItsNorm(Janus):
    def frozen_copy(self):
        twin = super().frozen_copy()
        twin.core.model.language_model.norm = self.core.model.language_model.norm
        return twin


class NeverRefreshed(Janus):
    def inference_copy(self, dtype):
        twin, refresh = super().inference_copy(dtype)
        refresh()
        return twin, lambda: None


class MovesWhenRefreshed(Janus):
    def inference_copy(self, dtype):
        twin, refresh = super().inference_copy(dtype)

        def move():
            refresh()
            head = twin.core.lm_head.weight
            head.data = head.data.clone()

        return twin, move


class AdaptersStayOn(Janus):
    def without_adapters(self):
        return torch.no_grad()


class SavesTheBase(Janus):
    def save(self, path):
        if not self.has_adapters():
            super().save(path)
            return
        with self.without_adapters():
            Janus(self.model.unload(), self.processor).save(path)


class SavesAnother(Janus):
    def save(self, path):
        head = self.core.model.generation_head.vision_head.bias
        kept = head.data.clone()
        head.data.zero_()
        super().save(path)
        head.data.copy_(kept)


BROKEN = [
    ("pictures", CodesOfInt32),
    ("pictures", CodesBeyondTheBook),
    ("vq_round_trip", DecodesMirrored),
    ("texts", DropsTheLastWord),
    ("texts", NoEnd),
    ("texts", GivesItsOwnIds),
    ("commands", ObeysTexts),
    ("too_long", AlwaysFits),
    ("too_long", OneTokenLess),
    ("no_dropout", Dropout),
    ("batch", MixesRows),
    ("group", SeesSiblings),
    ("guidance", GuidesFromTheCondition),
    ("step_by_step", OnePositionOff),
    ("take", TakesOtherRows),
    ("ratio", Tempered),
    ("questions", AsksOnlyItsOwn),
    ("questions", AsksTheFirst),
    ("questions", AnswersItsOwn),
    ("gradients", TrainsNoVision),
    ("gradients", ForgetsSomeWeights),
    ("recomputed", RecomputesAnother),
    ("frozen_copy", FrozenInName),
    ("frozen_copy", SharesItsNorm),
    ("inference_copy", NeverRefreshed),
    ("inference_copy", MovesWhenRefreshed),
    ("lora", AdaptersStayOn),
    ("lora", SavesTheBase),
    ("save_and_load", SavesAnother),
]
