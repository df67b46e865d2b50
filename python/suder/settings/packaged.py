"""The recipes that come with suder: beside the package in a wheel, at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
RECIPES = next(
    (
        folder
        for folder in (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
        if folder.is_dir()
    ),
    _PACKAGE / "recipes",
)


def with_packaged(path: Path) -> Path:
    """The path, or the packaged recipe where `recipes/NAME.yaml` is asked for and not here."""
    if path.parts[:-1] == ("recipes",) and not path.exists() and (RECIPES / path.name).is_file():
        return RECIPES / path.name
    return path
