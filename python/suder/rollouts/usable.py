"""Whether a model can learn from rollouts: asked before any work."""

from __future__ import annotations

import numpy as np
import torch

from suder.inputs.files import DataError
from suder.models.base import Direction, UnifiedModel, inference
from suder.rollouts.drawn import why_not_drawn
from suder.rollouts.offline import Offline
from suder.settings.config import TrainConfig
from suder.storage.shown import named


def check_rows(source: Offline, model: UnifiedModel, config: TrainConfig) -> None:
    """All that can be known before the first round.

    Raises:
        DataError: the model, or the objective, can do nothing with these rollouts.
    """
    check_lengths(source)
    check_tokens(source, model)
    check_old(source, config)


def check_tokens(source: Offline, model: UnifiedModel) -> None:
    """Raises DataError where the tokens are another model's.

    Captions have to read, by this model's tokenizer, what the rows say they do. Drawings have to be
    of its number of tokens, within its codebook; whether of the same VQ model, numbers do not tell.
    """
    place = ", ".join(source.files)
    for direction, groups in source.groups.items():
        rows = [row for group in groups for row in group]
        tokens = [source.table["tokens"][row].as_py() for row in rows]
        why = (
            why_not_drawn(model, tokens)
            if direction == "generation"
            else _why_not_written(model, tokens, [source.column("text")[row] for row in rows])
        )
        if why:
            raise DataError(f"{place}: these rollouts are not of this model: {why}")


def check_old(source: Offline, config: TrainConfig) -> None:
    """Raises DataError unless log-probabilities of the files can be GRPO's old ones.

    Its ratio is of two policies over the same choices. What was drawn by other ones (another
    temperature, few tokens only, guidance that is not trained) has another denominator.
    """
    if config.objective.name != "grpo":
        return
    sampling = config.sampling
    for direction, groups in source.groups.items():
        guided = direction == "generation" and sampling.policy == "cfg"
        wanted = {
            "temperature": sampling.temperature,
            "top_k": 0,
            "top_p": 1.0,
            "guidance": sampling.guidance if guided else 1.0,
        }
        for row in (row for group in groups for row in group):
            what = {name: source.column(name)[row] for name in wanted}
            other = [name for name in wanted if what[name] != wanted[name]]
            if other or source.table["logprob"][row].as_py() is None:
                said = ", ".join(f"{name} {what[name]}" for name in other) or "no logprob"
                raise DataError(
                    f"row {row} of {', '.join(source.files)} says {said}, and grpo compares with "
                    "the log-probability of a token among all, as this run's policy gives it "
                    f"({', '.join(f'{name} {wanted[name]}' for name in other) or 'logprob'}): set "
                    "sampling to what drew, or objective.name to simpo, dpo or expert, which look "
                    "at rewards alone"
                )


def check_lengths(source: Offline) -> None:
    """Raises DataError where a row has no tokens, or other log-probabilities than tokens."""
    for row in (row for groups in source.groups.values() for group in groups for row in group):
        tokens, logprob = (source.table[name][row].as_py() for name in ("tokens", "logprob"))
        if not tokens or (logprob is not None and len(logprob) != len(tokens)):
            many = "no" if logprob is None else len(logprob)
            raise DataError(
                f"row {row} of {', '.join(source.files)} has {len(tokens)} tokens and {many} "
                "log-probabilities"
            )


def _why_not_written(model: UnifiedModel, rows: list[list[int]], texts: list[str]) -> str:
    size = text_vocabulary(model)
    for tokens in rows:
        if bad := [token for token in tokens if not 0 <= token < size]:
            return f"a caption has the token {bad[0]}, and this model writes with {size}"
        if len(tokens) > model.longest_text:
            return f"a caption has {len(tokens)} tokens, and {model.longest_text} fit this model"
    for read, text in zip(
        model.detokenize([torch.tensor(one) for one in rows]), texts, strict=True
    ):
        if read != text.strip():
            return (
                f"the tokens of the caption {named(text[:80])} read {named(read[:80])} here: "
                "another tokenizer's"
            )
    return ""


def text_vocabulary(model: UnifiedModel) -> int:
    """Tokens that a text can be written with: rows of the head that writes it."""
    direction: Direction = "understanding"
    size = model.image_size
    with inference(model), torch.no_grad():
        blank = model.pixels([np.zeros((size, size, 3), np.uint8)])
        if model.reads_tokens:
            blank = model.encode(blank)
        end = torch.tensor([model.eos_token_id], device=model.device)
        return len(model(direction, blank, [end]).weight)
