"""The same inputs over the rounds: pictures drawn and captions written at the guard's looks."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from suder.inputs.files import DataError
from suder.inputs.pictures import decode_picture
from suder.models.base import Direction
from suder.report.gallery import picture_url
from suder.report.run_data import Notes, RunData, read_value, said
from suder.report.shapes import Number

INPUTS = 8  # of each direction
LOOKS = 12  # in the page, of those that left a file
MOST = 200  # files that are looked for


class _Inputs(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    prompts: Annotated[list[str], Field(max_length=INPUTS)] = []
    pictures: Annotated[list[str | None], Field(max_length=INPUTS)] = []


class _Look(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    pictures: Annotated[list[str], Field(max_length=INPUTS)] = []
    captions: Annotated[list[str], Field(max_length=INPUTS)] = []
    rewards: dict[Direction, Annotated[list[Number | None], Field(max_length=INPUTS)]] = {}

    def reward(self, direction: Direction, place: int) -> str:
        """As the page has it; older runs have none."""
        values = self.rewards.get(direction, [])
        value = values[place] if place < len(values) else None
        return "" if value is None else f"{value:.2f}"


def strips(run: RunData) -> dict[str, Any]:
    """Of `looks/`: a row a prompt with the pictures by round, and a picture with its captions."""
    folder = run.folder / "looks"
    asked = _read(folder / "inputs.json", _Inputs, run.notes)
    files = sorted(path for path in folder.glob("[0-9]*.json") if path.stem.isdigit())[:MOST]
    last = run.rounds[-1]["round"] if run.rounds else 0
    files = [path for path in files if int(path.stem) <= last]  # of work that is done again
    read = [(int(path.stem), _read(path, _Look, run.notes)) for path in _some(files)]
    looks = [(at, look) for at, look in read if look is not None]
    if asked is None or not looks:
        return {"strip_rounds": [], "strips": [], "told": []}
    rows = [
        {
            "prompt": prompt,
            "pictures": [
                (_url(look.pictures, place, run.notes), look.reward("generation", place))
                for _, look in looks
            ],
        }
        for place, prompt in enumerate(asked.prompts)
    ]
    told = [
        {"picture": _url(asked.pictures, place, run.notes), "lines": _lines(looks, place)}
        for place in range(len(asked.pictures))
    ]
    return {"strip_rounds": [at for at, _ in looks], "strips": rows, "told": told}


def watched_prompts(run: RunData) -> list[str]:
    """The first prompts that the run set aside; none where no look left a file."""
    asked = _read(run.folder / "looks" / "inputs.json", _Inputs, Notes())
    return [] if asked is None else list(asked.prompts)


def _some(files: list[Path]) -> list[Path]:
    """At most LOOKS of them, evenly, the first and the last among them."""
    if len(files) <= LOOKS:
        return files
    places = np.linspace(0, len(files) - 1, LOOKS).round().astype(int)
    return [files[place] for place in places]


def _lines(looks: list[tuple[int, _Look]], place: int) -> list[dict[str, str]]:
    """A picture's captions, each with the rounds that it stood for."""
    lines: list[tuple[int, int, str, str]] = []
    for at, look in looks:
        caption = look.captions[place] if place < len(look.captions) else ""
        if lines and lines[-1][2] == caption:
            lines[-1] = (lines[-1][0], at, *lines[-1][2:])
        else:
            lines.append((at, at, caption, look.reward("understanding", place)))
    return [
        {
            "rounds": f"{first}" if first == end else f"{first} to {end}",
            "caption": caption,
            "reward": reward,
        }
        for first, end, caption, reward in lines
    ]


def _url(pictures: Any, place: int, notes: Notes) -> str:
    """A picture as the page has it, drawn again from its pixels; "" where there is none."""
    text = pictures[place] if place < len(pictures) else None
    if not text:
        return ""
    try:
        return picture_url(decode_picture(base64.b64decode(text, validate=True), "of a look"))
    except (DataError, binascii.Error) as error:
        notes.add(f"looks: a picture left out: {error}")
        return ""


def _read(path: Path, kind: Any, notes: Notes) -> Any:
    """The file's value of this kind; None, and a note where there is such a file, if it is not."""
    tree = read_value(path, notes)
    if not tree:
        return None
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        notes.add(f"{path}: left out, {said(error.errors()[0])}")
        return None
