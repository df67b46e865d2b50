"""The dual self-reward as a reward function of TRL's GRPOTrainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from suder.method import rewards
from suder.models.base import DIRECTIONS, Direction, UnifiedModel


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
        model: an adapter from `suder.load_model`; it need not be the policy.
        direction: of the candidates.
        column: with the image of each caption (PIL, an array, or a list of one; default: "image",
            else "images"), or with the text that each picture was drawn for (default: the prompt,
            of a conversation the last user's words).
        codes: of "generation", from a completion's token ids to the VQ tokens among them; default:
            the ids are the tokens.
        missing: the reward of a completion that has none.
        options: of `suder.DualReward`.
    """

    def __init__(
        self,
        model: UnifiedModel,
        direction: Direction = "understanding",
        column: str | None = None,
        codes: Callable[[Sequence[int]], Sequence[int]] = list,
        missing: float = math.nan,
        **options: Any,
    ) -> None:
        if direction not in DIRECTIONS:
            raise ValueError(f"direction: takes {' or '.join(DIRECTIONS)}, got {direction!r}")
        self.direction = direction
        self.column = column
        self.codes = codes
        self.missing = missing
        self.reward = rewards.DualReward(model, **options)
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
            texts = [_words(completion, "assistant") for completion in completions]
            found = self.reward.understanding(self._images(columns), texts)
            rewards.check_rewards(self.reward.model, self.direction, texts, found)
        else:
            found = self._of_pictures(self._texts(prompts, columns), completion_ids)
        scored: list[float] = found.masked_fill(~found.isfinite(), self.missing).tolist()
        return scored

    def _images(self, columns: dict[str, Any]) -> list[Any]:
        name = self.column or ("image" if "image" in columns else "images")
        if name not in columns:
            raise ValueError(
                f"DualReward: no column {name!r} with the captions' images among "
                f"{sorted(columns)}; name it by column="
            )
        images = []
        for row, image in enumerate(columns[name]):
            if isinstance(image, list | tuple):
                if len(image) != 1:
                    raise ValueError(f"{name}: takes one image a caption, row {row}: {len(image)}")
                image = image[0]
            images.append(image)
        return images

    def _texts(self, prompts: Sequence[Any], columns: dict[str, Any]) -> list[str]:
        if self.column is None:
            return [_words(prompt, "user") for prompt in prompts]
        if self.column not in columns:
            raise ValueError(
                f"DualReward: no column {self.column!r} with the pictures' texts among "
                f"{sorted(columns)}"
            )
        return [str(text) for text in columns[self.column]]

    def _of_pictures(
        self, texts: Sequence[str], completion_ids: Sequence[Sequence[int]] | None
    ) -> Tensor:
        if completion_ids is None:
            raise ValueError("DualReward: direction='generation' needs completion_ids, TRL's own")
        model = self.reward.model
        rows = [list(self.codes(ids)) for ids in completion_ids]
        whole = [
            i
            for i, row in enumerate(rows)
            if len(row) == model.num_image_tokens
            and all(0 <= code < model.image_vocab_size for code in row)
        ]
        found = torch.full((len(rows),), torch.nan, device=model.device)
        if whole:
            tokens = torch.tensor([rows[i] for i in whole], device=model.device)
            drawn_for = [texts[i] for i in whole]
            found[whole] = self.reward.generation(drawn_for, tokens)
            rewards.check_rewards(model, self.direction, drawn_for, found)
        return found


def _words(message: Any, role: str) -> str:
    """A text as it is; of a conversation the last words of a role."""
    if isinstance(message, str):
        return message
    for turn in reversed(message):
        if turn["role"] == role:
            content = turn["content"]
            if isinstance(content, str):
                return content
            return "".join(part["text"] for part in content if part.get("type") == "text")
    return ""
