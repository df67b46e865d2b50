"""A model's answers in a folder: what is there is left, and several processes divide the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from suder.evaluation.answering.answer import Answer
from suder.evaluation.answering.question import Question
from suder.evaluation.suites.manifest import claim_folder
from suder.storage.files import append_jsonl, json_text, read_jsonl_left, write_jsonl

AT_ONCE = 64  # questions whose pictures are held
ANSWERS = "answers.{}-of-{}.jsonl"


def answer_all(
    questions: Sequence[Question],
    answering: Callable[[Sequence[Question]], list[Answer]],
    folder: Path | None,
    manifest: dict[str, Any],
    shard: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, int, dict[str, Answer]]]:
    """Answers what is missing, and yields (questions done, of this shard, answers) as it goes.

    Batches are the same questions whatever is there and however many shards there are, so on one
    machine the answers have the same bits after any kill and division. The answers of the last
    yield are all that are known, other processes' included.

    Args:
        folder: None: they are kept in memory alone.
        manifest: what they are answers of; see `claim_folder`.
        shard: (i, n): this process answers every n-th batch, from the i-th on, i from 0.

    Raises:
        FolderError: the folder holds something else, or answers to something else.
    """
    known: dict[str, Answer] = {}
    own = None
    if folder is not None:
        claim_folder(folder, manifest, ())
        own = folder / ANSWERS.format(shard[0] + 1, shard[1])
        known = answers_in(folder)
        if own.exists():  # a kill may have cut its last line, to which nothing can be added
            write_jsonl(own, read_jsonl_left(own)[0])
    mine = range(AT_ONCE * shard[0], len(questions), AT_ONCE * shard[1])
    total = sum(len(questions[first : first + AT_ONCE]) for first in mine)
    done = 0
    for first in mine:
        batch = questions[first : first + AT_ONCE]
        if missing := {one.key for one in batch if "said" not in known.get(one.key, {})}:
            new = [one for one in answering(batch) if one["key"] in missing]
            if own is not None:
                append_jsonl(own, new)
            known |= {one["key"]: one for one in new}
        done += len(batch)
        if done < total:
            yield done, total, known
    yield total, total, known | (answers_in(folder) if folder else {})


def answers_in(folder: Path) -> dict[str, Answer]:
    """All answers that processes have written, by key."""
    found: dict[str, Answer] = {}
    for file in sorted(folder.glob(ANSWERS.format("*", "*"))):
        for row in read_jsonl_left(file)[0]:
            key = row.get("key")
            # What was left out is tried again in another call, and may be answered by now.
            if isinstance(key, str) and ("said" in row or (key not in found and "skipped" in row)):
                found[key] = row
    return found


def digest_of_questions(questions: Sequence[Question], wrap: str | None) -> str:
    """By which other questions, or other pictures in the file, are known."""
    rows = [
        [one.key, one.asked(wrap), one.options, one.answers, one.names, one.row.picture]
        for one in questions
    ]
    return hashlib.sha256(json_text(rows).encode()).hexdigest()
