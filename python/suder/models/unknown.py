"""Words that a model's vocabulary does not know: it reads each as the same unknown token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from suder.storage.shown import counted, named


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """Stretches of a text that a fast tokenizer knows no token for; none where it has bytes."""
    if getattr(tokenizer, "unk_token_id", None) is None:
        return []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [text[start:end] for token, (start, end) in pairs if token == tokenizer.unk_token_id]


def not_known(model: Any, prompts: Iterable[str]) -> str:
    """A sentence about prompts that the model cannot read whole, or ""."""
    tokenizer = getattr(model, "tokenizer", None)
    every = list(dict.fromkeys(prompts))
    found = [words for prompt in every if (words := unknown_words(tokenizer, prompt))]
    if not found:
        return ""
    words = list(dict.fromkeys(word for row in found for word in row))
    shown = ", ".join(f'"{named(word)}"' for word in words[:5])
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    have = "has" if len(found) == 1 else "have"
    return (
        f"{len(found)} of {counted(len(every), 'prompt')} {have} words that this model does not "
        f"know ({shown}{more}): it reads of each only that there is one"
    )
