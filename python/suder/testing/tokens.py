"""Pictures to VQ tokens and back, texts to ids and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suder.models.base import DIRECTIONS
from suder.testing.findings import Findings, some
from suder.testing.subject import Subject, forced
from suder.testing.tolerances import OTHER_CODES

# What a picture may have been taken for, each undone.
TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda one: one,
    "with red and blue exchanged": lambda one: one.flip(3),
    "mirrored": lambda one: one.flip(2),
    "upside down": lambda one: one.flip(1),
    "with rows and columns exchanged": lambda one: one.transpose(1, 2),
    "as a negative": lambda one: -one,
}
LIKE = 0.5  # correlation of what is the same picture; noise has none
CONTRAST = 0.6
UNUSUAL = ("Größe 7,5 €", "日本語の文", "emoji 🦊 and a\ttab", "(x) => {y[0]};", "naïve café")
PROBE = "qzx Ω 🦊"  # a vocabulary that spells this spells everything
# As families spell them; those of the adapter's own tokenizer are added where it has one.
COMMANDS = (
    "<|end▁of▁sentence|>", "</s>", "<s>", "<eos>", "<bos>", "<pad>", "<|endoftext|>", "<|im_end|>",
    "<|User|>:", "<|Assistant|>:", "<image_placeholder>", "<begin_of_image>", "<end_of_image>",
    "<image>", "<boi>", "<eoi>",
)  # fmt: skip


def pictures(subject: Subject, found: Findings) -> None:
    """pixels, VQ tokens and decoded pictures have their shapes, dtypes and ranges, in any batch"""
    model, images = subject.model, subject.images
    count, size = len(images), model.image_size
    pixels = model.pixels(images)
    told = f"{pixels.dtype} {list(pixels.shape)} on {pixels.device}"
    fits = pixels.shape == (count, 3, size, size) and pixels.dtype == model.dtype
    found.holds(
        fits and pixels.device == model.device,
        f"pixels: {told}, not {model.dtype} {[count, 3, size, size]} on {model.device}",
    )
    arrays = [np.asarray(image) for image in images]
    found.same(
        "pixels of PIL pictures", model.pixels([Image.fromarray(one) for one in arrays]), pixels
    )
    codes = model.encode(pixels)
    shape = (count, model.num_image_tokens)
    found.holds(
        codes.dtype == torch.int64 and codes.shape == shape,
        f"encode: {codes.dtype} {list(codes.shape)}, not torch.int64 {list(shape)}",
    )
    low, high = int(codes.min()), int(codes.max())
    if not found.holds(
        low >= 0 and high < model.image_vocab_size,
        f"encode: codes from {low} to {high}, of {model.image_vocab_size}",
    ):
        return
    found.same("encode a second time", model.encode(pixels), codes)
    alone = torch.cat([model.encode(one[None]) for one in pixels])
    other, allowed = 1 - _share(alone, codes), OTHER_CODES[model.dtype]
    found.holds(
        other <= allowed, f"encode: {other:.1%} of the codes are others one by one ({allowed:.0%})"
    )
    drawn = model.decode(codes)
    found.holds(
        drawn.dtype == torch.uint8 and drawn.shape == (count, size, size, 3),
        f"decode: {drawn.dtype} {list(drawn.shape)}, not torch.uint8 {[count, size, size, 3]}",
    )
    every = torch.arange(shape[1], device=model.device) * model.image_vocab_size // shape[1]
    twice = model.decode(torch.stack([every, codes[0], every]))
    found.same("decode of equal rows", twice[2], twice[0])
    apart = (model.decode(codes[:1]).int() - drawn[:1].int()).abs().max()
    found.holds(int(apart) <= 1, f"decode: a level differs by {int(apart)} alone and in a batch")
    found.note(f"{len(codes.unique())} codes in {count} pictures")


def vq_round_trip(subject: Subject, found: Findings) -> None:
    """a decoded picture is the picture, upright and in its colours, and has its own codes again"""
    model, codes = subject.model, subject.codes
    decoded = model.decode(codes)
    again = model.encode(model.pixels(decoded))
    own = _share(again, codes)
    other = max(_share(again, codes.roll(turn, 0)) for turn in range(1, len(codes)))
    # In what the model was shown, levels are the first picture's up to a factor and an offset.
    shown = subject.pixels.float().cpu().permute(0, 2, 3, 1)
    alike = {name: _alike(turn(decoded.float().cpu()), shown) for name, turn in TURNS.items()}
    best = max(alike, key=lambda name: alike[name])
    found.note(f"likeness {alike['as it is']:.2f}, {own:.0%} of the codes come back")
    if alike[best] < LIKE:
        found.note("the VQ model restores no picture (random weights?), so this says little")
        return
    found.holds(
        alike[best] < alike["as it is"] + 0.1,
        f"decoded pictures are like those encoded {best} ({alike[best]:.2f}) more than as they are "
        f"({alike['as it is']:.2f})",
    )
    found.holds(
        own > other,
        f"{own:.1%} of the codes come back, and {other:.1%} of them are another picture's",
    )
    levels = model.pixels(decoded).float().cpu().permute(0, 2, 3, 1)
    contrast, shift = float(levels.std() / shown.std()), float((levels.mean() - shown.mean()).abs())
    found.holds(
        CONTRAST < contrast < 1 / CONTRAST and shift < float(shown.std()),
        f"decoded pictures have {contrast:.2f} times the contrast, and are {shift:.2f} brighter or "
        f"darker where pixels spread by {float(shown.std()):.2f}; is the normalisation undone?",
    )


def texts(subject: Subject, found: Findings) -> None:
    """ids of a text end in the only EOS and spell it; what the vocabulary spells comes back"""
    model = subject.model
    everything = [*subject.prompts, *UNUSUAL, PROBE]
    ids = model.tokenize(everything)
    for text, row in zip(everything, ids, strict=True):
        _check_ends(model, text, row, found)
    back = model.detokenize(ids)
    spells_all = back[-1] == PROBE
    must = everything if spells_all else subject.prompts
    lost = [f"{text!r} as {got!r}" for text, got in zip(must, back, strict=False)
            if " ".join(got.split()) != " ".join(text.split())]  # fmt: skip
    found.holds(not lost, f"texts come back as others: {some(lost)}")
    again = model.detokenize(model.tokenize(back))
    drift = [f"{one!r} as {two!r}" for one, two in zip(back, again, strict=True) if one != two]
    found.holds(not drift, f"texts change once more the second time: {some(drift)}")
    alone = [model.tokenize([text])[0] for text in everything]
    differ = [text for text, one, two in zip(everything, alone, ids, strict=True)
              if not torch.equal(one, two)]  # fmt: skip
    found.holds(not differ, f"ids depend on the other texts in the call: {some(differ)}")
    expected = ids[0].clone()
    ids[0].fill_(0)
    found.same("ids after a caller wrote into them", model.tokenize(everything[:1])[0], expected)
    if not spells_all:
        found.note("the vocabulary does not spell every text")


def commands(subject: Subject, found: Findings) -> None:
    """a text that spells a special token is text"""
    model = subject.model
    tokenizer = _tokenizer(model)
    spelled = [*COMMANDS, *(() if tokenizer is None else map(str, tokenizer.all_special_tokens))]
    special = set() if tokenizer is None else set(map(int, tokenizer.all_special_ids))
    special.discard(getattr(tokenizer, "unk_token_id", None))  # an unknown word is no command
    first = subject.prompts[0]
    said = [f"{first} {word} {first}" for word in dict.fromkeys(spelled)]
    ids = model.tokenize(said)
    for text, row in zip(said, ids, strict=True):
        _check_ends(model, text, row, found)
        inside = sorted(special.intersection(row[:-1].tolist()))
        found.holds(not inside, f"{text!r}: ids {inside} are special tokens")
    if model.detokenize(model.tokenize([PROBE]))[0] == PROBE:
        back = model.detokenize(ids)
        lost = [text for text, got in zip(said, back, strict=True)
                if "".join(got.split()) != "".join(text.split())]  # fmt: skip
        found.holds(not lost, f"words of the user's are lost: {some(lost)}")
    if tokenizer is None:
        found.note("no .tokenizer or .processor.tokenizer to ask for its special tokens")


def too_long(subject: Subject, found: Findings) -> None:
    """what does not fit is said before, and an error when it is asked for all the same"""
    model, first = subject.model, subject.prompts[0]
    for direction in DIRECTIONS:
        for text in subject.prompts:
            why = model.too_long(direction, text)
            found.holds(not why, f"{direction}: {text!r} does not fit: {why}")
        fits, beyond = _last_that_fits(subject, direction)
        if not found.holds(beyond > 0, f"{direction}: a text of a million words fits, it says"):
            continue
        if direction == "understanding":
            there = [len(model.tokenize([_words(first, n)])[0]) for n in (fits, beyond)]
            found.holds(
                there[0] <= model.longest_text < there[1],
                f"longest_text is {model.longest_text}; a text of {there[0]} tokens fits, one of "
                f"{there[1]} does not",
            )
        condition, targets = subject.given(direction)
        text = _words(first, beyond)
        short = direction == "generation"
        asked = ([text], targets[:1]) if short else (condition[:1], model.tokenize([text]))
        calls: dict[str, Callable[[], object]] = {
            "teacher forcing": partial(forced, model, direction, *asked),
            "start": partial(model.start, direction, asked[0], 1, len(asked[1][0])),
        }
        for name, call in calls.items():
            found.holds(
                _raises(call), f"{direction}: {name} raises no ValueError for what does not fit"
            )


def _last_that_fits(subject: Subject, direction: Any) -> tuple[int, int]:
    """Words of the longest text that fits, and of the next; 0 for the second where all do."""
    model, first = subject.model, subject.prompts[0]

    def fits(words: int) -> bool:
        return not model.too_long(direction, _words(first, words))

    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
        if high > 1 << 20:
            return low, 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high


def _words(text: str, count: int) -> str:
    words = text.split()
    return " ".join((words * (count // len(words) + 1))[:count])


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


def _check_ends(model: Any, text: str, row: Tensor, found: Findings) -> None:
    ends = (row == model.eos_token_id).nonzero().flatten().tolist()
    found.holds(
        row.ndim == 1 and row.dtype == torch.int64 and ends == [len(row) - 1],
        f"{text!r}: {row.dtype} {list(row.shape)} with EOS at {ends}; takes int64 [L], EOS last",
    )


def _tokenizer(model: Any) -> Any:
    return getattr(getattr(model, "processor", model), "tokenizer", None)


def _alike(one: Tensor, other: Tensor) -> float:
    """Correlation of levels `[B, S, S, 3]`, each colour about its own mean."""
    one, other = (part - part.mean((0, 1, 2)) for part in (one, other))
    return float((one * other).mean() / (one.std() * other.std()).clamp_min(1e-6))


def _share(one: Tensor, other: Tensor) -> float:
    return float((one == other).double().mean())
