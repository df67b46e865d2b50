"""The grid of an experiment: read from a recipe, cut into cells, each with all its settings."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from suder.settings.config_file import ConfigError, load_config, read_override
from suder.settings.fields import NonNegative, PathText, Positive, Section
from suder.settings.packaged import with_packaged
from suder.settings.yaml_file import read_yaml

CONTROL = "start"  # the arm that trains nothing; every other arm is paired with it
SPLITS = ("test", "validation")


class PlanError(ValueError):
    """A recipe that cannot be run; the message says what is wrong with it."""


@dataclass(frozen=True)
class Measures:
    """What is evaluated and how much of it; see recipes/experiment.yaml."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    world: str = "shapes"
    n: Positive = 1000
    checkpoint_n: Positive = 256
    candidates: Positive = 8
    temperatures: list[Annotated[float, Field(gt=0)]] = field(
        default_factory=lambda: [1.0, 0.7, 0.4]
    )


class _Inputs(Section):
    pictures: Positive = 512
    prompts: Positive = 512


class _Recipe(Section, strict=False):
    """What a recipe may hold. The settings of its arms are checked as those of runs."""

    starts: list[PathText] = Field(["shapes"])
    seeds: list[NonNegative] = Field([1])
    inputs: _Inputs = _Inputs()
    evaluation: Measures = Measures()
    common: dict[str, Any] = Field({})
    arms: dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Cell:
    """One run of the grid: an arm on a warm start with a seed, and how it is judged."""

    arm: str
    start: str
    seed: int
    split: str
    settings: dict[str, Any]
    measures: Measures
    inputs: dict[str, int]

    @property
    def name(self) -> str:
        """Folder of the cell; a start other than an embedded one counts by its last part."""
        start = Path(self.start).name
        return f"{self.arm}.{start}" + ("" if self.arm == CONTROL else f".seed{self.seed}")

    def tree(self, run: Path, inputs: Path) -> dict[str, Any]:
        """The settings of its training run in the folder `run`, as `load_config` takes them."""
        data = {"images": str(inputs / "images"), "prompts": str(inputs / "prompts.txt")}
        given = {"model": self.start, "output": str(run), "seed": self.seed, "data": data}
        return merge(self.settings, given)

    def check(self) -> None:
        """Raises PlanError for settings that a run would refuse."""
        if self.arm == CONTROL:
            return
        try:
            load_config(self.tree(Path("run"), Path("inputs")))
        except ConfigError as error:
            raise PlanError(f"arm {self.arm}: {error}") from None

    def fingerprint(self) -> str:
        """Changes when anything that decides the cell's result does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """A recipe after the command line has had its say."""

    starts: list[str]
    seeds: list[int]
    arms: dict[str, dict[str, Any]]
    common: dict[str, Any]
    measures: Measures
    inputs: dict[str, int]
    split: str = "test"

    def cells(self) -> list[Cell]:
        """The start model's controls first, then seed by seed, so that early results are whole."""
        order = [(CONTROL, start, 0) for start in self.starts]
        order += [
            (arm, start, seed)
            for seed in self.seeds
            for start in self.starts
            for arm in self.arms
            if arm != CONTROL
        ]
        return [
            Cell(
                arm=arm,
                start=start,
                seed=seed,
                split=self.split,
                settings={} if arm == CONTROL else merge(self.common, self.arms[arm]),
                measures=self.measures,
                inputs=self.inputs,
            )
            for arm, start, seed in order
        ]

    def changed(self, changes: Sequence[str], n: int | None = None) -> Plan:
        """With `section.key=value` settings on top of every arm's own, and another `n`."""
        tree: dict[str, Any] = {}
        for change in changes:
            tree = merge(tree, read_change(change))
        measures = self.measures if n is None else replace(self.measures, n=n)
        arms = {arm: merge(settings, tree) for arm, settings in self.arms.items()}
        return replace(self, arms=arms, measures=measures)

    def narrowed(
        self,
        *,
        starts: Sequence[str] = (),
        seeds: Sequence[int] = (),
        arms: Sequence[str] = (),
        split: str = "test",
    ) -> Plan:
        """The part of the grid asked for; empty means all."""
        unknown = [arm for arm in arms if arm not in self.arms]
        if unknown:
            raise PlanError(f"no arm {', '.join(unknown)}; there are {', '.join(self.arms)}")
        kept = {arm: self.arms[arm] for arm in arms} if arms else self.arms
        return replace(
            self,
            starts=list(starts) or self.starts,
            seeds=list(seeds) or self.seeds,
            arms=kept,
            split=split,
        )


def read_plan(path: Path) -> Plan:
    """Read a recipe.

    Raises:
        FileNotFoundError: there is none at `path`.
        PlanError: it has an unknown key, or no arms.
    """
    path = with_packaged(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no recipe {path}: give one with --recipe (recipes/experiment.yaml comes with suder)"
        )
    tree, _ = read_yaml(path)
    known = {"starts", "seeds", "inputs", "evaluation", "common", "arms"}
    if not isinstance(tree.get("arms"), dict) or not tree["arms"]:
        raise PlanError(f"{path}: a recipe is `key: value` lines with at least `arms`")
    if set(tree) - known:
        raise PlanError(f"{path}: unknown {sorted(set(tree) - known)}; known are {sorted(known)}")
    try:
        recipe = _Recipe.model_validate(tree)
    except ValidationError as error:
        one = error.errors()[0]
        at = ".".join(map(str, one["loc"])).replace("evaluation.", "evaluation: ")
        raise PlanError(f"{path}: {at}: {one['msg']}, got {reprlib.repr(one['input'])}") from None
    return Plan(
        starts=recipe.starts,
        seeds=recipe.seeds,
        arms={name: settings or {} for name, settings in recipe.arms.items()},
        common=recipe.common,
        measures=recipe.evaluation,
        inputs=recipe.inputs.model_dump(),
    )


def read_change(change: str) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}, read as `suder train` reads it."""
    try:
        keys, tree = read_override(change)
    except ConfigError as error:
        raise PlanError(f"--set: {error}") from None
    for key in reversed(keys):
        tree = {key: tree}
    return dict(tree)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings trees laid over each other; the upper one wins leaf by leaf."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = (
            merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return merged
