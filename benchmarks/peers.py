"""Others' packages that the benchmarks compare with: which are here, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import metadata, util
from typing import Any, NamedTuple

import torch


class Peer(NamedTuple):
    package: str
    module: str
    what: str
    needs_gpu: bool = False


PEERS = (
    Peer("torch", "torch", "full logits and log_softmax; F.linear_cross_entropy; multinomial"),
    Peer("transformers", "transformers", "generate"),
    Peer("trl", "trl", "selective_log_softmax"),
    Peer("liger-kernel", "liger_kernel", "chunked DPO; on a GPU fused linear cross-entropy too"),
    Peer("cut-cross-entropy", "cut_cross_entropy", "linear_cross_entropy", needs_gpu=True),
    Peer("quack-kernels", "quack", "chunked linear cross-entropy", needs_gpu=True),
    Peer("flash-linear-attention", "fla", "fused linear cross-entropy", needs_gpu=True),
)


def present() -> list[dict[str, str]]:
    """Each peer, its version, and whether it is compared here."""
    rows = []
    for peer in PEERS:
        try:
            version = metadata.version(peer.package)
        except metadata.PackageNotFoundError:
            version = ""
        if not version or util.find_spec(peer.module) is None:
            state = f"left out: not installed (pip install {peer.package})"
        elif peer.needs_gpu and not torch.cuda.is_available():
            state = "left out: it needs a GPU"
        else:
            state = "compared"
        rows.append({"peer": peer.package, "version": version, "what": peer.what, "state": state})
    return rows


@lru_cache
def trl_selective_log_softmax() -> Callable[..., Any] | None:
    if util.find_spec("trl") is None:
        return None
    from trl.trainer.utils import selective_log_softmax

    found: Callable[..., Any] = selective_log_softmax
    return found


@lru_cache
def liger_dpo_loss(beta: float) -> Callable[..., Any] | None:
    """Without a reference model and without torch.compile, whose first call takes a minute."""
    if util.find_spec("liger_kernel") is None:
        return None
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss

    found: Callable[..., Any] = LigerFusedLinearDPOLoss(
        beta=beta, use_ref_model=False, compiled=False
    )
    return found
