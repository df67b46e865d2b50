"""All checks, one after the other; what one raises is a finding of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from transformers.utils import logging

from suder.doctor.files import files
from suder.doctor.findings import Examination, Finding, Section
from suder.doctor.memory import memory
from suder.doctor.parity import parity
from suder.doctor.patient import Patient
from suder.doctor.pictures import pictures
from suder.doctor.rewards import rewards
from suder.doctor.words import words
from suder.testing import check_adapter


def contract(patient: Patient) -> Iterator[Finding]:
    """`suder.testing.check_adapter`: that likelihoods agree by every way to them."""
    report = check_adapter(
        patient.model,
        prompts=patient.pairs.captions[:3],
        images=patient.pairs.pictures[:3],
        strict=False,
        say=None,
    )
    for outcome in report.outcomes:
        yield Finding("wrong" if outcome.problems else "fine", " ".join(str(outcome).split()))


# In this order; the first loads the model.
CHECKS: dict[str, Callable[[Patient], Iterator[Finding]]] = {
    "files": files,
    "words": words,
    "pictures": pictures,
    "parity": parity,
    "rewards": rewards,
    "memory": memory,
    "contract": contract,
}
USUAL = tuple(name for name in CHECKS if name != "contract")


def examine(
    patient: Patient,
    checks: Sequence[str] = USUAL,
    begin: Callable[[str], None] = lambda name: None,
    end: Callable[[Section], None] = lambda section: None,
) -> Examination:
    """Makes the checks, "files" first whether it was asked for or not.

    Args:
        begin: is given the name of each check as it begins; end: what it found.
    """
    sections = []
    for name, check in CHECKS.items():
        if name != "files" and (name not in checks or patient.loaded is None):
            continue
        begin(name)
        started = time.monotonic()
        with _quietly():
            found = tuple(_found(check, patient))
        section = Section(name, found, time.monotonic() - started)
        sections.append(section)
        end(section)
    return Examination(patient.name, tuple(sections))


@contextmanager
def _quietly() -> Iterator[None]:
    """transformers says of each `generate` what its next version will call things."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(before)


def _found(check: Callable[[Patient], Iterator[Finding]], patient: Patient) -> Iterator[Finding]:
    try:
        yield from check(patient)
    except Exception as error:  # a broken checkpoint may break anything
        yield Finding(
            "wrong", f"could not be examined: {type(error).__name__}: {str(error) or 'no message'}"
        )
