"""The types that a run's files must have, field by field; other fields are passed over."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from suder.evaluation.compare import Row

# Far beyond anything measured, and drawn without an overflow.
_BOUND = 1e30
_COUNT = 2**53

Number = Annotated[float, Field(ge=-_BOUND, le=_BOUND)]
Count = Annotated[int, Field(ge=0, le=_COUNT)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]


def is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and -_BOUND <= value <= _BOUND


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _COUNT


class _Typed(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Dropped(_Typed):
    """An input or a candidate that was left out; before training if there is no round."""

    round: Count | None = None
    input: str
    why: str


class Judged(_Typed):
    """A row of the comparison; see `suder.evaluation.compare.Row`."""

    direction: Literal["generation", "understanding"]
    category: str
    n: Count
    clusters: Count
    base: Number
    base_interval: Pair
    tuned: Number
    tuned_interval: Pair
    difference: Number
    interval: Pair


class Told(_Typed):
    """What an evaluation found."""

    world: str = "shapes"
    split: str = "test"
    greedy: list[Judged] = Field([], max_length=1000)
    sampled: list[Judged] = Field([], max_length=1000)

    @model_validator(mode="after")
    def _whole(self) -> Told:
        for rows in (self.greedy, self.sampled):
            totals = {row.direction for row in rows if row.category == "all"}
            if rows and len(totals) < 2:
                raise ValueError("a comparison has a row `all` of each direction")
        return self

    def rows(self, decoding: str) -> list[Row]:
        return [Row(**row.model_dump()) for row in getattr(self, decoding)]  # type: ignore[typeddict-item]


class Counted(_Typed):
    """A number of a suite of questions; see `suder.evaluation.answering.score.score`."""

    measure: str
    part: str
    n: Count
    base: Number | None
    tuned: Number | None
    difference: Number | None
    interval: Annotated[list[Number | None], Field(min_length=2, max_length=2)]


class Suite(_Typed):
    """Of a suite's scores.json, what the page shows."""

    suite: str
    file: str
    by: Literal["likelihood", "generation"]
    questions: Count
    left_out: Count = 0
    rows: list[Counted] = Field(max_length=1000)


class GuardState(_Typed):
    rollbacks: Count = 0
    declines: Count = 0
    note: str = ""


class Summary(_Typed):
    """Of summary.json, what the page shows."""

    rounds: Count | None = None
    kept_round: Count | None = None
    stopped: str | None = None
    seconds: Number | None = None
    guard: GuardState | None = None
    evaluation: Told | None = None
