"""Both rewards of matching and of shuffled partners, as `suder audit` looks at them, in small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from suder.audit.numbers import Correlation, Preference
from suder.audit.partners import score_partners
from suder.audit.verdict import length_biased, tells
from suder.doctor.findings import Finding
from suder.doctor.patient import Patient
from suder.method.rewards import DualReward

SHUFFLES = 2
TOKENS = 16384  # in one pass, as in a run
NAMES = {"understanding": "captions", "generation": "pictures"}


def rewards(patient: Patient) -> Iterator[Finding]:
    """Of true captions and of another picture's, in both directions."""
    pairs = patient.pairs
    scorer = DualReward(patient.model, tokens_per_batch=TOKENS)
    found = score_partners(scorer, pairs.pictures, pairs.captions, SHUFFLES)
    for direction, partners in found.items():
        whole = np.isfinite(partners.reward).all(0)
        if not whole.all():
            yield Finding(
                "wrong",
                f"rewards of {NAMES[direction]}: {int((~whole).sum())} of {len(whole)} are not "
                "finite",
                "see weights and dtype: NaN in the weights, or an overflow in float16?",
            )
            continue
        yield _compared(NAMES[direction], partners.preference(), pairs.own)
        yield from _length(partners.length_bias())


def _compared(name: str, found: Preference, own: bool) -> Finding:
    text = (
        f"{name}: matching {found.matching:.3f}, shuffled {found.shuffled:.3f} ({found.margin:+.3f}"
        f" +- {found.error:.3f} nats a token, ahead in {found.ahead:.0%} of {found.compared})"
    )
    values = {"matching": found.matching, "shuffled": found.shuffled, "margin": found.margin,
              "standard_error": found.error, "ahead": found.ahead}  # fmt: skip
    if tells(found):
        return Finding("fine", f"rewards of {text}", values=values)
    todo = "random weights, a wrong template or a wrong VQ model look like this"
    if not own:
        todo += (
            "; so may a model that has never seen drawn shapes: give pictures and captions of your "
            "own by --images DIR --prompts FILE"
        )
    return Finding("wrong", f"rewards do not tell matching from shuffled {text}", todo, values)


def _length(found: Correlation) -> Iterator[Finding]:
    if length_biased(found):
        likes = "long" if found.mean > 0 else "short"
        yield Finding(
            "odd",
            f"rewards like {likes} captions, right or wrong: rank correlation with the length "
            f"{found.mean:+.2f} +- {found.error:.2f} among wrong captions of one picture",
            "suder audit MODEL --images DIR shows it; captions of a run will grow or shrink so",
            {"length": found.mean, "standard_error": found.error},
        )
