"""The user's inputs: a folder of pictures and a file of prompts, read, checked and split once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from suder.inputs.files import DataError, read_file
from suder.inputs.paired import METADATA, own_texts, together
from suder.inputs.pictures import (
    MAX_BYTES,
    PICTURE_ENDINGS,
    decode_picture,
    digest_of,
    find_pictures,
)
from suder.inputs.texts import MAX_BYTES as MAX_TEXT
from suder.inputs.texts import read_prompts
from suder.settings.given import Data
from suder.storage.files import DamagedFile, read_object, seed_of, write_json, write_jsonl
from suder.storage.shown import named

LARGEST = 2 * MAX_TEXT  # bytes of inputs.json: every prompt, and pictures by path and digest
LISTS = ("images", "prompts", "watched_images", "watched_prompts")
FEW = 8  # different inputs: less is no sample of anything


@dataclass(frozen=True)
class Dropped:
    """An input left out before training."""

    input: str
    why: str


@dataclass(frozen=True)
class Inputs:
    """Usable inputs: paths of pictures and prompts, to train on and for the guard to watch.

    `digests` has each picture's, by its path: one that changes later is known by it.
    """

    images: tuple[str, ...]
    prompts: tuple[str, ...]
    watched_images: tuple[str, ...]
    watched_prompts: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)

    def save(self, run: Path) -> None:
        folder = run / "data"
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "dropped.jsonl", map(asdict, self.dropped))
        kept = {key: value for key, value in asdict(self).items() if key != "dropped"}
        write_json(folder / "inputs.json", kept)

    @classmethod
    def load(cls, run: Path) -> Inputs:
        """The inputs a run began with, whatever has been added to the folder since.

        Raises:
            DamagedFile: the file says something else than `save` wrote.
        """
        path = run / "data" / "inputs.json"
        kept = read_object(path, LARGEST)
        digests = kept.pop("digests", {})  # older runs have none
        for name in LISTS:
            few = name in ("images", "prompts") and not kept.get(name)
            if few or not _are_texts(kept.get(name)):
                raise DamagedFile(f"{path}: `{name}` is {'empty or ' * few}no list of texts")
        if not isinstance(digests, dict) or not _are_texts(list(digests.values())):
            raise DamagedFile(f"{path}: `digests` are no texts by the paths of pictures")
        return cls(**{name: tuple(kept[name]) for name in LISTS}, digests=digests)


def read_inputs(data: Data, seed: int, most: int = sys.maxsize) -> Inputs:
    """Reads, checks and splits the inputs.

    Unreadable pictures and blank prompt lines are dropped and named. The held-out part is chosen
    by content, so a picture or prompt that occurs twice is never on both sides.

    Args:
        most: of each that are held out, at most: the guard looks at no more (`guard.inputs`).

    Raises:
        DataError: no folder, no file, or nothing usable in it.
    """
    dropped: list[Dropped] = []
    images = read_picture_folder(Path(data.images), data.follow_links, dropped)
    if data.pairing:
        return _paired(images, data, seed, most, dropped)
    prompts = read_prompt_file(Path(data.prompts), dropped)
    train_images, watched_images = split(images, data.heldout, seed, "pictures", most)
    train_prompts, watched_prompts = split(prompts, data.heldout, seed, "prompts", most)
    return Inputs(
        train_images, train_prompts, watched_images, watched_prompts, tuple(dropped), dict(images)
    )


def _paired(
    images: list[tuple[str, str]], data: Data, seed: int, most: int, dropped: list[Dropped]
) -> Inputs:
    """Pictures and their own texts: the i-th prompt is the i-th picture's, on both sides.

    Pairs that share a picture's content or a text stay on one side.
    """
    lost: list[tuple[str, str]] = []
    texts = own_texts((path for path, _ in images), Path(data.images), Path(data.prompts), lost)
    dropped += [Dropped(name, why) for name, why in lost]
    pairs = [(path, digest, texts[path]) for path, digest in images if path in texts]
    if not pairs:
        raise DataError(
            f"data.pairing: no picture in {named(data.images)} has a text of its own, x.txt beside "
            f'x.png or a row {{"file_name": ..., "text": ...}} of {METADATA}'
        )
    linked = together([(digest, text) for _, digest, text in pairs])
    paths = [path for path, _, _ in pairs]
    items = list(zip(paths, linked, strict=True))
    train, watched = split(items, data.heldout, seed, "pairs", most)
    return Inputs(
        train,
        tuple(texts[path] for path in train),
        watched,
        tuple(texts[path] for path in watched),
        tuple(dropped),
        {path: digest for path, digest, _ in pairs},
    )


def turn_indices(total: int, count: int, turn: int, *key: object) -> list[int]:
    """Indices of the inputs of one turn (from 0): a new shuffle of all inputs each epoch.

    `key` (seed, direction) makes the order; nothing is remembered between turns.
    """
    count = min(count, total)
    first = turn * count
    return [
        _shuffle(total, seed_of(*key, "epoch", place // total))[place % total]
        for place in range(first, first + count)
    ]


@lru_cache(maxsize=8)
def _shuffle(total: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def read_picture_folder(
    folder: Path, follow_links: bool, dropped: list[Dropped]
) -> list[tuple[str, str]]:
    """Paths and digests of the pictures in a folder; what cannot be read is added to `dropped`."""
    if not folder.is_dir():
        raise DataError(f"data.images: no folder {named(folder)}")
    files, skipped = find_pictures(folder, follow_links)
    dropped += [Dropped(name, why) for name, why in skipped]
    found = []
    for path in files:
        try:
            data = read_file(path, MAX_BYTES)
            decode_picture(data, path)
        except DataError as error:
            dropped.append(Dropped(str(path), str(error)))
            continue
        found.append((str(path.resolve()), digest_of(data)))
    if not found:
        first = f", the first: {named(dropped[0].input)}: {dropped[0].why}" if dropped else ""
        raise DataError(
            f"data.images: no readable picture in {named(folder)} "
            f"({len(dropped)} unreadable{first}; endings looked for: {', '.join(PICTURE_ENDINGS)})"
        )
    return found


def read_prompt_file(path: Path, dropped: list[Dropped]) -> list[tuple[str, str]]:
    """Prompts, twice: as inputs, and as what they are known by."""
    if str(path) == "-":
        raise DataError(
            "data.prompts: a run reads its prompts again where it goes on after a kill, so they "
            "must be in a file: `... > prompts.txt`, then --prompts prompts.txt"
        )
    if not path.exists():
        raise DataError(f"data.prompts: no file {named(path)}")
    prompts, blank = read_prompts(path)
    dropped += [Dropped(f"{path}:{number}", why) for number, why in blank]
    if not prompts:
        raise DataError(f"data.prompts: no prompt in {named(path)}, {len(blank)} blank lines")
    return [(prompt, prompt) for prompt in prompts]


def split(
    items: Sequence[tuple[str, str]], heldout: float, seed: int, kind: str, most: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Items to train on and to watch, of `(item, content)` pairs; equal contents stay together.

    At most `most` are watched.

    Where fewer than `FEW` different ones would be set aside, a look at them would tell little and
    training would miss what it needs: then all are trained on, and all different ones watched.
    """
    different = {content: item for item, content in reversed(items)}
    contents = sorted(different, key=lambda text: seed_of(seed, text))
    count = round(heldout * len(contents))
    if count >= max(FEW, len(contents)):
        raise DataError(
            f"data.heldout: {heldout:g} of {len(contents)} different {kind} leaves none to train "
            f"on; below {1 - 0.5 / len(contents):.2g} it leaves some"
        )
    if heldout > 0 and count < FEW:
        return tuple(item for item, _ in items), tuple(different[text] for text in contents)
    count = min(count, max(most, FEW))
    aside = set(contents[:count])
    return (
        tuple(item for item, content in items if content not in aside),
        tuple(different[text] for text in contents[:count]),
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
