"""`recipes/NAME.yaml` is the one that comes with suder, wherever a command is called."""

from __future__ import annotations

import pytest

from suder.experiment.plan import read_plan
from suder.settings.config_file import load_config
from suder.settings.packaged import RECIPES


def test_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("recipes/shapes.yaml") == load_config(RECIPES / "shapes.yaml")
    assert read_plan(RECIPES / "digits.yaml") == read_plan((RECIPES / "digits.yaml").relative_to(
        RECIPES.parent))  # fmt: skip
    for other in ("recipes/none.yaml", "shapes.yaml", "x/recipes/shapes.yaml", "recipes"):
        with pytest.raises(FileNotFoundError, match="no settings file"):
            load_config(other)


def test_a_file_that_is_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    packaged = (RECIPES / "shapes.yaml").read_text()
    (tmp_path / "recipes/shapes.yaml").write_text(packaged.replace("seed: 0", "seed: 9"))
    assert load_config("recipes/shapes.yaml").seed == 9
