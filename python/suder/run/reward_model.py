"""`reward.model`: another checkpoint that gives the rewards, as one that reads what another draws.

Emu3 is published as two: Gen draws, Chat describes.
"""

from __future__ import annotations

from typing import Any

import torch

from suder.models import load_model
from suder.models.base import UnifiedModel, inference

# Characters that vocabularies cut differently.
PROBE = "Two red circles, left of a green square: 12.5 \u00e9"


def load_reward_model(
    path: str, policy: UnifiedModel, compute: torch.dtype | None, asked: dict[str, Any]
) -> UnifiedModel:
    """Frozen, on the policy's device, for pictures of the policy's size.

    Args:
        asked: what its prompts say; see `suder.settings.given.Prompts`.

    Raises:
        OSError, ValueError: as `load_model`; or its words or pictures have other tokens.
    """
    options = asked | {"image_size": policy.image_size}
    model = load_model(path, device=policy.device, compute=compute, **options)
    different = [what for what, same in _same(model, policy).items() if not same]
    if different:
        raise ValueError(
            f"reward.model: {path} has another {' and another '.join(different)} than the model "
            "that is trained; it scores the very tokens that are drawn"
        )
    return model.requires_grad_(False).eval()


def _same(model: UnifiedModel, policy: UnifiedModel) -> dict[str, bool]:
    sizes = [
        (one.num_image_tokens, one.image_vocab_size, one.eos_token_id) for one in (model, policy)
    ]
    if sizes[0] != sizes[1]:
        return {"number of picture tokens, or EOS,": False}
    size = policy.image_size
    noise = torch.randint(256, (1, size, size, 3), generator=torch.Generator().manual_seed(0))
    codes = []
    for one in (model, policy):
        with inference(one):
            codes.append(one.encode(one.pixels(noise.to(torch.uint8))))
    return {
        "tokenizer": torch.equal(model.tokenize([PROBE])[0], policy.tokenize([PROBE])[0]),
        "VQ model": torch.equal(*codes),
    }
