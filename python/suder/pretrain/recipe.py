"""The settings of a warm start, in one YAML file: which world, which sizes, how long each stage."""

from __future__ import annotations

import os
import reprlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from suder.pretrain.architecture import Sizes
from suder.pretrain.vq import VQSettings
from suder.pretrain.warmup import WarmupSettings
from suder.settings.fields import NonNegative, Positive, Section
from suder.settings.yaml_file import read_yaml

# The recipes that come with the package, so that `--world` alone is enough.
FOLDER = Path(__file__).parent / "recipes"


class Recipe(Section):
    """Together with the versions, everything that decides a warm start's weights."""

    world: str = Field(description="shapes, digits or emoji")
    seed: NonNegative = Field(default=1, description="everything random follows from it")
    threads: Positive = Field(
        default=1, description="of torch; sums differ in the last bit with others"
    )
    sizes: Sizes = Field(default_factory=Sizes)
    vq: VQSettings = Field(default_factory=VQSettings)
    warmup: WarmupSettings = Field(default_factory=WarmupSettings)


def load_recipe(source: str | os.PathLike[str], **changes: Any) -> Recipe:
    """Read and check a recipe; `changes` replace top-level keys.

    `source` is a YAML file or the name of a world. Raises FileNotFoundError or ValueError.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise FileNotFoundError(f"no recipe {path}; the ones that come with suder: {known}")
    tree, _ = read_yaml(path)
    try:
        return Recipe.model_validate(tree | changes)
    except ValidationError as error:
        details = [
            f"{path}: `{'.'.join(map(str, one['loc']))}`: {one['msg']}, "
            f"got {reprlib.repr(one['input'])}"
            for one in error.errors()
        ]
        raise ValueError("\n".join(details)) from None


def dump_recipe(recipe: Recipe) -> str:
    """YAML that `load_recipe` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
