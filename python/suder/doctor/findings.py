"""What an examination finds, and the verdict of all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["fine", "odd", "wrong"]
LEVELS: tuple[Level, ...] = ("fine", "odd", "wrong")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "odd" may be meant so; "wrong" is of no use as it is.
        text: what was found, with its numbers.
        todo: what to do, where there is something.
        values: the numbers by name.
    """

    level: Level
    text: str
    todo: str = ""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Of one check."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float


@dataclass(frozen=True)
class Examination:
    model: str
    sections: tuple[Section, ...]

    @property
    def verdict(self) -> Level:
        return worst([one for section in self.sections for one in section.findings])

    def of(self, level: Level) -> list[Finding]:
        return [one for section in self.sections for one in section.findings if one.level == level]

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return {"model": self.model, "verdict": self.verdict, **asdict(self)}

    def in_words(self) -> list[str]:
        """The verdict, a line each."""
        wrong, odd = self.of("wrong"), self.of("odd")
        whole = [one.name for one in self.sections if worst(one.findings) == "fine"]
        lines = [f"fine: {', '.join(whole)}"] if whole else []
        lines += [f"odd: {one.text}" for one in odd] + [f"wrong: {one.text}" for one in wrong]
        lines += [
            f"to do: {todo}" for todo in dict.fromkeys(one.todo for one in wrong + odd) if todo
        ]
        if wrong:
            lines.append("not fit to be trained as it is")
        elif odd:
            lines.append("fit to be trained, if what is odd is meant so")
        else:
            lines.append("fit to be trained, as far as this looked")
        return lines


def worst(findings: Sequence[Finding]) -> Level:
    return max((one.level for one in findings), key=LEVELS.index, default="fine")
