"""The dual self-reward as a reward function of TRL's GRPOTrainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from suder.integrations.scoring import (
    dual_reward,
    numbers,
    of_captions,
    of_pictures,
    picture,
    words,
)
from suder.models.base import Direction, UnifiedModel


class DualReward:
    """`GRPOTrainer(reward_funcs=DualReward(model), ...)`, of TRL 1.16.

    direction="understanding": a completion is a caption, and its reward how likely the model, asked
    to draw it, gives the image: a column of the data set has it. direction="generation": a
    completion is a picture's VQ tokens, and its reward how likely the model, looking at it, gives
    the prompt. Formulas, options and what has no reward: `suder.DualReward`.

    A completion without a reward (an empty caption, a picture with too few tokens) gets NaN, which
    TRL leaves out of its group. Beside other reward functions it would count as 0, which is above
    any log-likelihood: give `missing` a low number there.

    Args:
        model: an adapter from `suder.load_model`, or what that function takes; it need not be the
            policy.
        direction: of the candidates.
        column: with the image of each caption (PIL, an array, a path, a row of bytes, or a list of
            one; default: "image", else "images"), or with the text that each picture was drawn for
            (default: the prompt, of a conversation the last user's words).
        codes: of "generation", from a completion's token ids to the VQ tokens among them; default:
            the ids are the tokens.
        missing: the reward of a completion that has none.
        options: of `suder.DualReward`.
    """

    def __init__(
        self,
        model: UnifiedModel | str,
        direction: Direction = "understanding",
        column: str | None = None,
        codes: Callable[[Sequence[int]], Sequence[int]] = list,
        missing: float = math.nan,
        **options: Any,
    ) -> None:
        self.reward = dual_reward(model, direction, options)
        self.direction = direction
        self.column = column
        self.codes = codes
        self.missing = missing
        self.__name__ = f"dual_reward_{direction}"  # TRL's logs and the weights of rewards use it

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One reward a completion.

        Args:
            prompts, completions: texts, or conversations.
            completion_ids: needed for "generation".
            columns: of the data set, each with one value a completion.

        Raises:
            ValueError: what the direction needs is not there.
            NotFinite: texts had a reward to get, and the model gave none.
        """
        if self.direction == "understanding":
            texts = [words(completion, "assistant") for completion in completions]
            found = of_captions(self.reward, self._images(columns), texts)
        elif completion_ids is None:
            raise ValueError("DualReward: direction='generation' needs completion_ids, TRL's own")
        else:
            rows = [self.codes(ids) for ids in completion_ids]
            found = of_pictures(self.reward, self._texts(prompts, columns), rows)
        return numbers(found, self.missing)

    def _images(self, columns: dict[str, Any]) -> list[Any]:
        name = self.column or ("image" if "image" in columns else "images")
        if name not in columns:
            raise ValueError(
                f"DualReward: no column {name!r} with the captions' images among "
                f"{sorted(columns)}; name it by column="
            )
        return [picture(one, f"{name}, row {row}") for row, one in enumerate(columns[name])]

    def _texts(self, prompts: Sequence[Any], columns: dict[str, Any]) -> list[str]:
        if self.column is None:
            return [words(prompt, "user") for prompt in prompts]
        if self.column not in columns:
            raise ValueError(
                f"DualReward: no column {self.column!r} with the pictures' texts among "
                f"{sorted(columns)}"
            )
        return [str(text) for text in columns[self.column]]
