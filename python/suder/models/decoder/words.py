"""Ids of a user's words, in which nothing is a command: text that spells a special token is text.

Ordinary text has the ids that the tokenizer gives it. Where those hold a token that means something
to the model (end of sequence, a picture's place, whose turn it is), the stretch is tokenised again
with special tokens switched off, and a vocabulary that has one as a word of its own is given the
word in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

MARK = "\ue000"  # stands for the user's words in a frame; no vocabulary has it


class Spelled:
    """A tokenizer's ids of texts that a user wrote.

    Args:
        tokenizer: a fast one of transformers.
        frame: text whose added tokens mean something though the tokenizer does not call them
            special, as the names of the speakers may.
        commands: ids of tokens of the vocabulary that mean something, too.
    """

    def __init__(self, tokenizer: Any, frame: str, commands: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        added = {int(i): token for i, token in tokenizer.added_tokens_decoder.items()}
        used = set(tokenizer(frame)["input_ids"])
        self.commands = {i for i, token in added.items() if token.special or i in used}
        self.commands |= {*tokenizer.all_special_ids, *commands}
        self.commands.discard(tokenizer.unk_token_id)  # an unknown word is no command

    def commands_in(self, text: str) -> list[str]:
        """Tokens of a text that mean something to the model, as the tokenizer reads it."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        found: list[str] = self.tokenizer.convert_ids_to_tokens(
            [token for token in ids if token in self.commands]
        )
        return found

    def alone(self, text: str) -> list[int]:
        """Ids of a text that stands by itself, without BOS or EOS."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._plain(text) if self.commands.intersection(ids) else list(ids)

    def within(self, before: str, text: str, after: str) -> list[int]:
        """Ids of a frame with a user's text in it; commands in the frame are obeyed."""
        whole = before + text + after
        encoded = self.tokenizer(whole, return_offsets_mapping=True, split_special_tokens=False)
        ids, places = list(encoded["input_ids"]), encoded["offset_mapping"]
        begin, end = len(before), len(before) + len(text)
        commands = [i for i, token in enumerate(ids) if token in self.commands]
        if not any(places[i][0] < end and places[i][1] > begin for i in commands):
            return ids
        # From the frame's last command before the text to its first after: what was read as one.
        first = max((i for i in commands if places[i][1] <= begin), default=-1)
        last = min((i for i in commands if places[i][0] >= end), default=len(ids))
        start = places[first][1] if first >= 0 else 0
        stop = places[last][0] if last < len(ids) else len(whole)
        return ids[: first + 1] + self._plain(whole[start:stop]) + ids[last:]

    def _plain(self, text: str) -> list[int]:
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        ids: list[int] = []
        for token, (start, end) in zip(
            encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            if token not in self.commands:
                ids.append(token)
            elif end - start > 1:
                ids += self._plain(text[start : start + 1]) + self._plain(text[start + 1 : end])
            elif self.tokenizer.unk_token_id is not None:
                ids.append(self.tokenizer.unk_token_id)
        return ids


@lru_cache(8)
def spelled(processor: Any) -> Spelled:
    """Of a processor, by its chat template."""
    turn = [{"role": "user", "content": [{"type": "text", "text": "."}]}]
    frame = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return Spelled(processor.tokenizer, frame)
