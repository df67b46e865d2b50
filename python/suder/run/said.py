"""What a round has to say: numbers for the log, what was left out and why."""

from __future__ import annotations

from typing import Any

import torch

from suder.method.combine import YES
from suder.method.rollouts import Rollouts
from suder.run.phases import Tensors
from suder.run.rounds import Scored
from suder.storage.shown import counted


def lost_rows(index: int, rollouts: Rollouts) -> list[dict[str, Any]]:
    """The inputs that could not be read."""
    about = {"round": index, "direction": rollouts.direction}
    return [about | {"input": path, "why": why} for path, why in rollouts.lost]


def dropped_rows(index: int, scored: Scored) -> list[dict[str, Any]]:
    """What this direction left out, named: inputs that could not be read, candidates unscored."""
    rollouts = scored.rollouts
    about = {"round": index, "direction": rollouts.direction}
    rows = lost_rows(index, rollouts)
    judged = scored.parts.get("judge")
    for candidate in (~scored.selection.valid).nonzero().flatten().tolist():
        row, place = divmod(candidate, rollouts.group)
        why = "empty caption, one too long to be scored, or a reward that is not finite"
        if scored.reward[candidate].isfinite():
            length = int(rollouts.cu_seqlens.diff()[candidate])
            why = f"caption cut off after {counted(length, 'token')}"
        elif judged is not None and _denied(scored.parts, candidate):
            why = f"the model itself denies that it fits, judge {float(judged[candidate]):.3f}"
        rows.append(about | {"input": rollouts.inputs[row], "candidate": place, "why": why})
    return rows


def _denied(parts: Tensors, candidate: int) -> bool:
    """Whether the judge's no is all that a candidate without a reward has against it."""
    there = all(part[candidate].isfinite() for part in parts.values())
    return there and bool(parts["judge"][candidate] < YES)


def all_cut(scored: Scored) -> str:
    """A sentence for people whose model had nothing left to learn from, and why, or ""."""
    rollouts = scored.rollouts
    if scored.selection.valid.any():
        return ""
    denied = "judge" in scored.parts and all(
        _denied(scored.parts, candidate) for candidate in range(len(rollouts))
    )
    if denied and not scored.reward.isfinite().any():
        return (
            f"the model itself denies that any of {len(rollouts)} candidates "
            f"({rollouts.direction}) fits, and none is learnt from (reward.judge gate)"
        )
    if rollouts.finished.any():
        return ""
    if not scored.reward.isfinite().any():  # there was nothing to learn from, cut or not
        return ""
    longest = int(rollouts.cu_seqlens.diff().max())
    return (
        f"all {len(rollouts)} captions were cut off after {counted(longest, 'token')}, and none is "
        "learnt from: raise sampling.max_new_tokens, or set reward.cut_captions=keep"
    )


def round_numbers(scored: Scored) -> dict[str, float]:
    """What a direction's samples and rewards say, for the log."""
    rollouts, selection = scored.rollouts, scored.selection
    reward = scored.reward.masked_fill(~selection.valid, torch.nan).double()
    reward = reward.view(-1, rollouts.group)
    spread = [one[one.isfinite()].std() for one in reward if one.isfinite().sum() > 1]
    finite = scored.reward[selection.valid]
    numbers = {
        "reward": float(finite.double().mean()) if finite.numel() else float("nan"),
        "reward_spread": float(torch.stack(spread).mean()) if spread else float("nan"),
        "pairs": float(selection.paired.sum()),
        "dropped": float((~selection.valid).sum() + len(rollouts.lost)),
        "length": float(rollouts.cu_seqlens.diff().double().mean()),
        "unfinished": float((~rollouts.finished).sum()),
    }
    for name, part in scored.parts.items():
        there = part[part.isfinite()].double()
        numbers[f"reward_{name}"] = float(there.mean()) if there.numel() else float("nan")
    return {f"{name}/{rollouts.direction}": value for name, value in numbers.items()}
