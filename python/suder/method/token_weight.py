"""`objective.token_weight`: how much a picture's tokens learn from its advantage.

All have a mean of 1 over a picture's tokens, so that the step keeps its size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PART = 0.1


def critical(entropy: Tensor, part: float = PART) -> Tensor:
    """Only the first tenth of the tokens, on which all others depend, and the tenth of the highest
    entropy learn; float32 `[B, I]`.

    After GCPO (arXiv 2509.22485, section 3), which takes those by the entropy's gradient over the
    picture and adds a third set, of low similarity among siblings (see `siblings`).

    Args:
        entropy: `[B, I]`, of the policy before each token, in the order of drawing. Of equal ones
            the earlier counts.
    """
    count = max(1, math.ceil(part * entropy.shape[1]))
    chosen = torch.zeros(entropy.shape, device=entropy.device)
    chosen[:, :count] = 1.0
    order = entropy.detach().sort(dim=1, descending=True, stable=True).indices
    chosen.scatter_(1, order[:, :count], 1.0)
    return _of_mean_one(chosen)


def siblings(codes: Tensor, advantage: Tensor, valid: Tensor, codebook: Tensor) -> Tensor:
    """Tokens that a picture shares with siblings of the opposite advantage learn less, for what one
    is praised for the other is blamed for; float32 `[C * n, I]`.

    w_ik = clip((1 - c_ik) / 2, 0, 1), c_ik the mean over siblings j with A_i A_j <= 0 of the cosine
    of both codes' embeddings at place k (STAGE, arXiv 2509.25027, advantage reweighting; its second
    part, weights of the KL, is not done). 1 where there is no such sibling.

    Args:
        codes: int64 `[C, n, I]`, the VQ tokens of the siblings of each of C prompts.
        advantage: float32 `[C, n]`.
        valid: bool `[C, n]`; a candidate that was left out is nobody's sibling.
        codebook: `[V, d]`, the codes' embeddings.
    """
    table = F.normalize(codebook.float(), dim=-1)
    weights = torch.ones(codes.shape, device=codes.device)
    itself = torch.eye(codes.shape[1], dtype=torch.bool, device=codes.device)
    for row, (of, worth, there) in enumerate(zip(codes, advantage, valid, strict=True)):
        opposed = (worth[:, None] * worth[None] <= 0) & there[None] & ~itself
        entries = table[of]
        alike = torch.einsum("ikd,jkd->ijk", entries, entries)
        count = opposed.sum(1)
        mean = (alike * opposed[:, :, None]).sum(1) / count.clamp(min=1)[:, None]
        weight = ((1.0 - mean) / 2.0).clamp(0.0, 1.0)
        weights[row] = torch.where(count[:, None] > 0, weight, 1.0)
    return _of_mean_one(weights.flatten(0, 1))


def _of_mean_one(weights: Tensor) -> Tensor:
    """All 0 where all nearly are: of a picture that looks like its siblings, nothing is learnt."""
    mean = weights.mean(1, keepdim=True)
    return torch.where(mean > 1e-4, weights / mean.clamp(min=1e-4), 0.0)
