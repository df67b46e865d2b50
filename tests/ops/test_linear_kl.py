"""linear_kl on every backend against float64."""

from __future__ import annotations

import torch
from torch import Tensor

import suder_ext


def plain(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """The definition."""
    log_p, log_q = torch.log_softmax(logits, -1), torch.log_softmax(ref_logits, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def test_the_reference_is_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*s, generator=generator).double() for s in ((6, 4), (9, 4)))
    ref_hidden, ref_weight = (
        torch.randn(*s, generator=generator).double() for s in ((6, 3), (9, 3))
    )
    got = suder_ext.reference.linear_kl(hidden, weight, ref_hidden, ref_weight)
    torch.testing.assert_close(got, plain(hidden @ weight.t(), ref_hidden @ ref_weight.t()))
