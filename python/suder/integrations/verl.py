"""The dual self-reward as a custom reward function of verl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from suder.integrations.scoring import (
    dual_reward,
    missing_number,
    numbers,
    of_captions,
    of_pictures,
    picture,
)
from suder.models.base import Direction, UnifiedModel


class DualReward:
    """`reward.custom_reward_function` of verl 0.9: `path` is a file with these two lines, `name` is
    "compute_score".

        from suder.integrations.verl import DualReward
        compute_score = DualReward("deepseek-community/Janus-Pro-1B", "understanding")

    direction="understanding": the solution is a caption, and its reward how likely the model, asked
    to draw it, gives the image. direction="generation": the solution spells a picture's VQ tokens,
    and its reward how likely the model, looking at it, gives the prompt. Formulas and options:
    `suder.DualReward`. verl asks for one solution at a time, from several threads; they wait for
    one another.

    Args:
        model: an adapter from `suder.load_model`, or what that function takes.
        direction: of the candidates.
        column: of `extra_info`, with the caption's image (a path, PIL, an array, a row of bytes;
            default: "image", else "images", else the ground truth), or with the text that the
            picture was drawn for (default: the ground truth).
        codes: of "generation", from a solution to the VQ tokens that it spells.
        missing: the score of a solution without a reward (an empty caption, too few tokens): verl
            would count NaN. None: -20, with which no mean over tokens competes.
        options: of `suder.DualReward`.

    Raises:
        ValueError: an argument that is not taken.
    """

    def __init__(
        self,
        model: UnifiedModel | str,
        direction: Direction = "understanding",
        column: str | None = None,
        codes: Callable[[str], Sequence[int]] | None = None,
        missing: float | None = None,
        **options: Any,
    ) -> None:
        self.missing = missing_number(missing, options)
        if direction == "generation" and codes is None:
            raise ValueError("codes: 'generation' needs what reads VQ tokens out of a solution")
        self.reward = dual_reward(model, direction, options)
        self.direction = direction
        self.column = column
        self.codes = codes
        self._one_at_a_time = Lock()

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: dict[str, Any] | None = None,
        **more: Any,
    ) -> float:
        """The score of one solution; data_source and what else verl gives are not read.

        Raises:
            ValueError: the column is not there.
            NotFinite: there was a reward to get, and the model gave none.
        """
        given = self._given(ground_truth, extra_info or {})
        with self._one_at_a_time:
            if self.codes is None:
                found = of_captions(self.reward, [picture(given, "image")], [solution_str])
            else:
                found = of_pictures(self.reward, [str(given)], [self.codes(solution_str)])
        return numbers(found, self.missing)[0]

    def _given(self, ground_truth: Any, extra_info: dict[str, Any]) -> Any:
        """What the solution was written or drawn for."""
        if self.column is not None:
            if self.column not in extra_info:
                raise ValueError(
                    f"DualReward: no column {self.column!r} in extra_info, which has "
                    f"{sorted(extra_info)}"
                )
            return extra_info[self.column]
        names = ("image", "images") if self.direction == "understanding" else ()
        return next((extra_info[name] for name in names if name in extra_info), ground_truth)
