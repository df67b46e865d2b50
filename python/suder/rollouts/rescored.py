"""Rollouts scored anew: the same candidates, other rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from suder.inputs.files import DataError
from suder.inputs.pictures import load_picture
from suder.method.rewards import DualReward
from suder.method.selection import select
from suder.models.base import UnifiedModel, inference
from suder.rollouts.drawn import drawn_tokens
from suder.rollouts.pairs import groups_of
from suder.rollouts.schema import arrow

AT_ONCE = 256  # candidates


class Rescored(NamedTuple):
    """The table, and (input, why) of the pictures that cannot be read."""

    table: Any
    lost: list[tuple[str, str]]


def rescored(
    table: Any,
    scorer: DualReward,
    name: str,
    drawer: UnifiedModel | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> Rescored:
    """The table with rewards of `scorer`, and what follows from them.

    `reward`, `advantage` (of the default normalisation) and `valid` are new; `scorer` says `name`;
    the rewards before stand as `earlier_reward`. A caption that was cut off and took no part takes
    none now.

    Args:
        drawer: that drew, where the scorer's picture tokens are others: its drawings are shown to
            the scorer as pixels.

    Raises:
        DataError: the drawings' tokens are not of the scorer, or of the drawer.
    """
    pa = arrow()
    rewards: list[float] = [math.nan] * len(table)
    lost: list[tuple[str, str]] = []
    names = table["direction"].to_pylist()
    groups = groups_of(table)
    for rows in _together(groups.values(), names):
        if names[rows[0]] == "understanding":
            found = _captions(table, rows, scorer, lost)
        else:
            found = _drawings(table, rows, scorer, drawer)
        for row, reward in found.items():
            rewards[row] = reward
        advance(len(rows))
    finished, took_part = table["finished"].to_pylist(), table["valid"].to_pylist()
    usable = torch.tensor(rewards)
    usable[[not (a or b) for a, b in zip(finished, took_part, strict=True)]] = math.nan
    advantage, valid = torch.zeros(len(table)), usable.isfinite()
    for rows in groups.values():
        advantage[rows] = select(usable[rows], len(rows)).advantage
    new = {
        "reward": [one if math.isfinite(one) else None for one in rewards],
        "advantage": advantage.tolist(),
        "valid": valid.tolist(),
        "scorer": [name] * len(table),
    }
    before = table["reward"]
    for column, values in new.items():
        field = table.schema.field(column)
        place = table.column_names.index(column)
        table = table.set_column(place, field, pa.array(values, field.type))
    if "earlier_reward" in table.column_names:
        table = table.drop(["earlier_reward"])
    return Rescored(table.append_column("earlier_reward", before), lost)


def _together(groups: Any, names: list[str]) -> Iterator[list[int]]:
    """Rows of whole groups of one direction, as many at once as are scored at once."""
    for direction in dict.fromkeys(names):
        part: list[int] = []
        for rows in groups:
            if names[rows[0]] == direction:
                part += rows
                if len(part) >= AT_ONCE:
                    yield part
                    part = []
        if part:
            yield part


def _captions(
    table: Any, rows: list[int], scorer: DualReward, lost: list[tuple[str, str]]
) -> dict[int, float]:
    model = scorer.model
    inputs, told, texts = (
        [table[name][row].as_py() for row in rows] for name in ("input", "digest", "text")
    )
    place: dict[str, int] = {}
    codes = []
    for path, digest in zip(inputs, told, strict=True):
        if path in place:
            continue
        try:
            picture = load_picture(path, model.background, digest)
        except DataError as error:
            lost.append((path, str(error)))
            place[path] = -1
            continue
        with inference(model):
            codes.append(model.encode(model.pixels([picture])))
        place[path] = len(codes) - 1
    asked = [i for i, path in enumerate(inputs) if place[path] >= 0]
    if not asked:
        return {}
    tokens = torch.cat(codes)[[place[inputs[i]] for i in asked]]
    found = scorer.understanding(tokens, [texts[i] for i in asked])
    return dict(zip([rows[i] for i in asked], found.tolist(), strict=True))


def _drawings(
    table: Any, rows: list[int], scorer: DualReward, drawer: UnifiedModel | None
) -> dict[int, float]:
    prompts = [table["input"][row].as_py() for row in rows]
    tokens = drawn_tokens(drawer or scorer.model, [table["tokens"][row].as_py() for row in rows])
    seen: Any = tokens
    if drawer is not None:
        with inference(drawer):
            seen = drawer.decode(tokens).cpu().numpy()
        if scorer.model.reads_tokens:
            with inference(scorer.model):
                seen = scorer.model.encode(scorer.model.pixels(seen))
    return dict(zip(rows, scorer.generation(prompts, seen).tolist(), strict=True))
