"""The dual self-reward as a reward function of OpenRLHF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from suder.integrations.scoring import (
    dual_reward,
    missing_number,
    numbers,
    of_captions,
    of_pictures,
    picture,
)
from suder.models.base import Direction, UnifiedModel

# With which models' answers end: OpenRLHF decodes special tokens, too.
ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "</s>")


class DualReward:
    """`reward.remote_url` of OpenRLHF 0.11: a file with these two lines.

        from suder.integrations.openrlhf import DualReward
        reward_func = DualReward("deepseek-community/Janus-Pro-1B", "understanding")

    direction="understanding": the answer is a caption, and its reward how likely the model, asked
    to draw it, gives the label, an image. direction="generation": the answer spells a picture's VQ
    tokens, and its reward how likely the model, looking at it, gives the label, the prompt's text.
    Formulas and options: `suder.DualReward`. OpenRLHF asks from several threads; they wait for one
    another.

    Args:
        model: an adapter from `suder.load_model`, or what that function takes.
        direction: of the candidates.
        codes: of "generation", from an answer to the VQ tokens that it spells.
        missing: the reward of an answer without one (an empty caption, too few tokens): OpenRLHF
            would count NaN. None: -20, with which no mean over tokens competes.
        ends: an answer is over at the first of these.
        options: of `suder.DualReward`.

    Raises:
        ValueError: an argument that is not taken.
    """

    def __init__(
        self,
        model: UnifiedModel | str,
        direction: Direction = "understanding",
        codes: Callable[[str], Sequence[int]] | None = None,
        missing: float | None = None,
        ends: Sequence[str] = ENDS,
        **options: Any,
    ) -> None:
        self.missing = missing_number(missing, options)
        if direction == "generation" and codes is None:
            raise ValueError("codes: 'generation' needs what reads VQ tokens out of an answer")
        self.reward = dual_reward(model, direction, options)
        self.direction = direction
        self.codes = codes
        self.ends = tuple(ends)
        self._one_at_a_time = Lock()

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]
    ) -> dict[str, Any]:
        """Rewards float32 `[B]`, under the three names that OpenRLHF reads.

        Args:
            queries: prompt and answer in one text.
            prompts: as they begin the queries.
            labels: images (a path, PIL, an array, a row of bytes), or texts.

        Returns:
            {"rewards", "scores": the same, "extra_logs": {"dual_reward_<direction>": the same}}.

        Raises:
            ValueError: a query does not begin with its prompt.
            NotFinite: there were rewards to get, and the model gave none.
        """
        answers = [self._answer(*pair) for pair in zip(queries, prompts, strict=True)]
        with self._one_at_a_time:
            if self.codes is None:
                images = [picture(label, f"label {row}") for row, label in enumerate(labels)]
                found = of_captions(self.reward, images, answers)
            else:
                texts, rows = [str(label) for label in labels], [self.codes(a) for a in answers]
                found = of_pictures(self.reward, texts, rows)
        scores: Tensor = torch.tensor(numbers(found, self.missing), dtype=torch.float32)
        logs = {f"dual_reward_{self.direction}": scores}
        return {"rewards": scores, "scores": scores, "extra_logs": logs}

    def _answer(self, query: str, prompt: str) -> str:
        if not query.startswith(prompt):
            raise ValueError(
                f"queries: each begins with its prompt, got {query[:40]!r} for {prompt[:40]!r}"
            )
        answer = query[len(prompt) :]
        over = [place for end in self.ends if (place := answer.find(end)) >= 0]
        return answer[: min(over, default=len(answer))]
