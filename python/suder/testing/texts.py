"""Texts to ids and back, and texts that are too long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from suder.models.base import DIRECTIONS
from suder.testing.findings import Findings, some
from suder.testing.subject import Subject, forced

UNUSUAL = ("Größe 7,5 €", "日本語の文", "emoji 🦊 and a\ttab", "(x) => {y[0]};", "naïve café")
PROBE = "qzx Ω 🦊"  # a vocabulary that spells this spells everything
# As families spell them; those of the adapter's own tokenizer are added where it has one.
COMMANDS = (
    "<|end▁of▁sentence|>", "</s>", "<s>", "<eos>", "<bos>", "<pad>", "<|endoftext|>", "<|im_end|>",
    "<|User|>:", "<|Assistant|>:", "<image_placeholder>", "<begin_of_image>", "<end_of_image>",
    "<image>", "<boi>", "<eoi>",
)  # fmt: skip


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
    lost = {text: got for text, got in zip(must, back, strict=False) if not _same(got, text)}
    # Published vocabularies have letters as tokens of their own that decode to something else.
    quirks = [text for text in lost if _loses(_tokenizer(model), text)]
    found.holds(
        len(lost) == len(quirks),
        "texts come back as others: "
        + some([f"{text!r} as {lost[text]!r}" for text in lost if text not in quirks]),
    )
    if quirks:
        found.note(f"the tokenizer itself does not give back {some(list(map(repr, quirks)))}")
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


def _same(one: str, other: str) -> bool:
    """But for blanks."""
    return one.split() == other.split()


def _loses(tokenizer: Any, text: str) -> bool:
    """Whether a tokenizer's own encoding and decoding make another text of one."""
    if tokenizer is None:
        return False
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return not _same(tokenizer.decode(ids), text)


def _tokenizer(model: Any) -> Any:
    """The adapter's, where it has one at a usual place."""
    processor = getattr(model, "processor", None)
    places = getattr(model, "tokenizer", None), getattr(processor, "tokenizer", None), processor
    return next((one for one in places if hasattr(one, "all_special_ids")), None)
