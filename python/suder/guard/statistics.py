"""Numbers of pictures and captions that no reward contains, and that users see go wrong first.

A run whose reward rises while its pictures turn dark, flat or all alike shows it here: an OCR
reward took the share of dark pixels from 0.45 to 0.93 and edges down by 60% (an issue of UniRL's,
found by a person looking). All are cheap, none knows what was asked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

DARK = 51  # of 255: luma below a fifth
VIVID = 153  # largest channel less smallest: three fifths
STEP = 26  # luma of neighbours: a tenth
LEVELS = 8  # of a channel, in the histogram of colours
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
AT_ONCE = 64  # pictures


def picture_statistics(pictures: Tensor) -> dict[str, Tensor]:
    """Of uint8 `[B, H, W, 3]`, float64 `[B]` each, on the CPU.

    `dark`, `saturated`: shares of pixels; `edges`: share of neighbours that differ in brightness;
    `colours`: entropy in nats of the histogram of colours, `LEVELS` of each channel.
    """
    return joined([_of_some(part) for part in pictures.split(AT_ONCE)])


def _of_some(pictures: Tensor) -> dict[str, Tensor]:
    whole = pictures.int()
    weights = torch.tensor([round(1000 * one) for one in LUMA], device=pictures.device)
    luma = (whole * weights).sum(-1)  # in thousandths: exact, on every device the same
    chroma = whole.amax(-1) - whole.amin(-1)
    across = (luma.diff(dim=2).abs() > 1000 * STEP).double().flatten(1).mean(1)
    down = (luma.diff(dim=1).abs() > 1000 * STEP).double().flatten(1).mean(1)
    return {
        "dark": (luma < 1000 * DARK).double().flatten(1).mean(1).cpu(),
        "saturated": (chroma > VIVID).double().flatten(1).mean(1).cpu(),
        "edges": ((across + down) / 2).cpu(),
        "colours": _colours(whole).cpu(),
    }


def _colours(pictures: Tensor) -> Tensor:
    bins = LEVELS**3
    level = pictures * LEVELS // 256
    code = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]
    code = code.flatten(1)
    row = torch.arange(len(code), device=code.device)[:, None] * bins
    counts = torch.bincount((code + row).flatten(), minlength=len(code) * bins)
    share = counts.view(-1, bins).double() / code.shape[1]
    entropy: Tensor = -torch.special.xlogy(share, share).sum(1)
    return entropy


def caption_statistics(
    texts: Sequence[str], lengths: Tensor, finished: Tensor
) -> dict[str, Tensor]:
    """Of captions and their numbers of tokens `[B]`, float64 `[B]` each.

    `length`: tokens; `words`: distinct words, as a share of all of a caption's (1 of an empty
    one); `cut_off`: 1 for a caption without its end.
    """
    words = [text.split() for text in texts]
    distinct_words = [len(set(some)) / len(some) if some else 1.0 for some in words]
    return {
        "length": lengths.double().cpu(),
        "words": torch.tensor(distinct_words, dtype=torch.float64),
        "cut_off": (~finished).double().cpu(),
    }


def distinct(candidates: Sequence[Hashable], inputs: int) -> Tensor:
    """Different candidates of each input, as a share of all of them, float64 `[C]`."""
    group = len(candidates) // inputs
    some = (candidates[i * group : (i + 1) * group] for i in range(inputs))
    return torch.tensor([len(set(one)) / group for one in some], dtype=torch.float64)


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The values of some candidates after those of others."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
