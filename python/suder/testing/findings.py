"""What checks find, with the numbers, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suder.testing.tolerances import LOGPROB, UNLIKELY

NAMED = 5  # names that one line gives


@dataclass(frozen=True)
class Outcome:
    """Of one check.

    Attributes:
        check: its name.
        problems: a sentence each; none: it passed.
        measured: what was found where it passed.
        skipped: why it was not made, or "".
        promise: what should hold, in a sentence.
    """

    check: str
    problems: tuple[str, ...] = ()
    measured: str = ""
    skipped: str = ""
    promise: str = ""

    def __str__(self) -> str:
        if self.problems:
            promise = f": {self.promise}" if self.promise else ""
            lines = [f"         - {one}" for one in self.problems]
            return "\n".join([f"FAILED   {self.check}{promise}", *lines])
        if self.skipped:
            return f"skipped  {self.check}: {self.skipped}"
        return f"passed   {self.check}" + (f": {self.measured}" if self.measured else "")


@dataclass(frozen=True)
class AdapterReport:
    """Of all checks that were asked for."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> list[str]:
        return [one.check for one in self.outcomes if not one.problems and not one.skipped]

    @property
    def failed(self) -> list[str]:
        return [one.check for one in self.outcomes if one.problems]

    def __str__(self) -> str:
        counts = f"{len(self.passed)} passed, {len(self.failed)} failed"
        return "\n".join([*map(str, self.outcomes), counts])


class AdapterError(AssertionError):
    """An adapter breaks its contract; `report` says where."""

    def __init__(self, report: AdapterReport) -> None:
        bad = [str(one) for one in report.outcomes if one.problems]
        passed = ", ".join(report.passed) or "none"
        super().__init__("\n".join([f"{len(bad)} checks failed", *bad, f"passed: {passed}"]))
        self.report = report


class Skipped(Exception):
    """A check that cannot be made here, and why."""


@dataclass
class Findings:
    """Of a check under way."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    worst: float = -1.0

    def holds(self, ok: bool, otherwise: str) -> bool:
        if not ok:
            self.problems.append(otherwise)
        return ok

    def note(self, text: str) -> None:
        self.notes.append(text)

    def same(self, what: str, got: Tensor, expected: Tensor) -> None:
        """The same bits."""
        if got.shape != expected.shape:
            self.problems.append(f"{what}: shape {list(got.shape)}, not {list(expected.shape)}")
        elif not torch.equal(got, expected):
            apart = _apart(got, expected)
            self.problems.append(
                f"{what}: {int((apart > 0).sum())} of {got.numel()} numbers differ, "
                f"by {float(apart.max()):.3g} at most; they should be the same bits"
            )

    def differ(self, what: str, got: Tensor, other: Tensor) -> None:
        if torch.equal(got, other):
            self.problems.append(f"{what}: not a number of it changed")

    def close(self, what: str, got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
        """Log-probabilities within the limits of products in `dtype`."""
        if got.shape != expected.shape:
            self.problems.append(f"{what}: {list(got.shape)} tokens, not {list(expected.shape)}")
            return
        limit = LOGPROB[dtype]
        sizes = (expected.detach().abs().flatten() / UNLIKELY).clamp_min(1.0)
        apart = _apart(got, expected) / sizes.to(got.device)
        worst, mean = float(apart.max()), float(apart.mean())
        if not (worst <= limit.worst and mean <= limit.mean):  # also where it is NaN
            at = int(apart.nan_to_num(torch.inf).argmax())
            one, other = (float(values.detach().flatten()[at]) for values in (got, expected))
            self.problems.append(
                f"{what}: log p differ by {worst:.3g} at most ({limit.worst:g} allowed) and "
                f"{mean:.3g} on average ({limit.mean:g}); token {at} of {len(apart)} has "
                f"{one:.5g} and {other:.5g}"
            )
        self.worst = max(self.worst, worst)

    def outcome(self, check: str, promise: str) -> Outcome:
        measured = [f"log p within {self.worst:.2g}"] if self.worst >= 0 else []
        told = ", ".join([*measured, *self.notes])
        return Outcome(check, tuple(self.problems), told, promise=promise)


def some(names: Sequence[str]) -> str:
    """The first of many."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if names[NAMED:] else "")


def _apart(got: Tensor, expected: Tensor) -> Tensor:
    return (got.detach().double() - expected.detach().double().to(got.device)).abs().flatten()
