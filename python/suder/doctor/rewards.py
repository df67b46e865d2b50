"""Both rewards of matching and of shuffled partners: without a difference there is no signal."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from suder.doctor.findings import Finding
from suder.doctor.patient import Patient
from suder.method.rewards import DualReward

SHUFFLES = 2
TELLS = 3.0  # standard errors
TOKENS = 16384  # in one pass, as in a run


def rewards(patient: Patient) -> Iterator[Finding]:
    """Of true captions and of another picture's, in both directions."""
    model, pairs = patient.model, patient.pairs
    scorer = DualReward(model, tokens_per_batch=TOKENS)
    pictures, captions = list(pairs.pictures), list(pairs.captions)
    codes = torch.cat([model.encode(model.pixels([one])) for one in pictures])
    shuffled = [captions[turn:] + captions[:turn] for turn in range(SHUFFLES + 1)]
    for name, scored in (
        ("captions", [scorer.understanding(codes, texts) for texts in shuffled]),
        ("pictures", [scorer.generation(texts, pictures) for texts in shuffled]),
    ):
        yield _compared(name, torch.stack(scored).double().cpu(), pairs.own)


def _compared(name: str, scored: Tensor, own: bool) -> Finding:
    """`scored[1 + shuffles, N]`, matching partners first."""
    whole = scored.isfinite().all(0)
    if not whole.all():
        return Finding(
            "wrong",
            f"rewards of {name}: {int((~whole).sum())} of {len(whole)} are not finite",
            "see weights and dtype: NaN in the weights, or an overflow in float16?",
        )
    margin = scored[0] - scored[1:].mean(0)
    mean, error = float(margin.mean()), float(margin.std()) / math.sqrt(len(margin))
    ahead = float((scored[0] > scored[1:]).double().mean())
    text = (
        f"{name}: matching {float(scored[0].mean()):.3f}, shuffled {float(scored[1:].mean()):.3f} "
        f"({mean:+.3f} +- {error:.3f} nats a token, ahead in {ahead:.0%} of {scored[1:].numel()})"
    )
    values = {"matching": float(scored[0].mean()), "shuffled": float(scored[1:].mean()),
              "margin": mean, "standard_error": error, "ahead": ahead}  # fmt: skip
    if mean > TELLS * error:
        return Finding("fine", f"rewards of {text}", values=values)
    todo = "random weights, a wrong template or a wrong VQ model look like this"
    if not own:
        todo += (
            "; so may a model that has never seen drawn shapes: give pictures and captions of your "
            "own by --images DIR --prompts FILE"
        )
    return Finding("wrong", f"rewards do not tell matching from shuffled {text}", todo, values)
