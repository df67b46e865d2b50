"""The dual self-reward as a reward function (ORM) of ms-swift's GRPO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from suder.integrations.scoring import (
    dual_reward,
    missing_number,
    numbers,
    of_captions,
    of_pictures,
    picture,
    words,
)
from suder.models.base import Direction, UnifiedModel


class DualReward:
    """An ORM of ms-swift 4.6: `--external_plugins` takes a file with these two lines, and
    `--reward_funcs` then "dual_reward".

        from suder.integrations.swift import register
        register("dual_reward", "deepseek-community/Janus-Pro-1B", direction="understanding")

    direction="understanding": a completion is a caption, and its reward how likely the model, asked
    to draw it, gives the image. direction="generation": a completion is a picture's VQ tokens, and
    its reward how likely the model, looking at it, gives the prompt. Formulas and options:
    `suder.DualReward`.

    Args:
        model: an adapter from `suder.load_model`, or what that function takes.
        direction: of the candidates.
        column: of the data set, with each caption's image (a path, PIL, an array, a row of bytes,
            or a list of one; default: "images"), or with the text that each picture was drawn for
            (default: the last user's words of "messages").
        codes: of "generation", from a completion's token ids to the VQ tokens among them; default:
            the ids are the tokens.
        missing: the reward of a completion without one (an empty caption, too few tokens): ms-swift
            counts NaN as 0, above any log-likelihood. None: -20, with which no mean competes.
        options: of `suder.DualReward`.

    Raises:
        ValueError: an argument that is not taken.
    """

    def __init__(
        self,
        model: UnifiedModel | str,
        direction: Direction = "understanding",
        column: str | None = None,
        codes: Callable[[Sequence[int]], Sequence[int]] = list,
        missing: float | None = None,
        **options: Any,
    ) -> None:
        self.missing = missing_number(missing, options)
        self.reward = dual_reward(model, direction, options)
        self.direction = direction
        self.column = column or ("images" if direction == "understanding" else "messages")
        self.codes = codes

    def __call__(self, completions: Sequence[Any], **kwargs: Any) -> list[float]:
        """One reward a completion.

        Args:
            completions: texts.
            kwargs: columns with one value a completion, of the data set and of ms-swift, whose
                "response_token_ids" is read for "generation"; others are not read.

        Raises:
            ValueError: a column is not there.
            NotFinite: there were rewards to get, and the model gave none.
        """
        given = _column(kwargs, self.column)
        if self.direction == "understanding":
            images = [picture(one, f"{self.column}, row {row}") for row, one in enumerate(given)]
            texts = [words(completion, "assistant") for completion in completions]
            return numbers(of_captions(self.reward, images, texts), self.missing)
        rows = [self.codes(_flat(ids)) for ids in _column(kwargs, "response_token_ids")]
        texts = [words(one, "user") for one in given]
        return numbers(of_pictures(self.reward, texts, rows), self.missing)


def register(name: str, model: UnifiedModel | str, **arguments: Any) -> None:
    """Gives `--reward_funcs` a name for `DualReward(model, **arguments)`; ms-swift makes it when a
    run asks for it, and only then is the model loaded.

    Raises:
        ImportError: there is no ms-swift.
    """
    import_module("swift.rewards").orms[name] = lambda args=None: DualReward(model, **arguments)


def _column(columns: dict[str, Any], name: str) -> Sequence[Any]:
    if columns.get(name) is None:
        raise ValueError(
            f"DualReward: no column {name!r} among {sorted(columns)}; name another by column="
        )
    found: Sequence[Any] = columns[name]
    return found


def _flat(ids: Any) -> list[int]:
    """The tokens of an answer, which ms-swift has in a list for each of its turns."""
    if ids and isinstance(ids[0], list | tuple):
        return [one for turn in ids for one in turn]
    return list(ids)
