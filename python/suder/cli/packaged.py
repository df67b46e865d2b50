"""What comes with suder, loaded: a part of `python -m suder_ext.selftest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from suder.settings.packaged import RECIPES

PAGES = ("page.html", "own.html", "audit.html", "style.css")


def checked() -> Iterator[tuple[str, str | None]]:
    """Each model, recipe and page, and what is wrong with it or None."""
    from transformers.utils.logging import disable_progress_bar

    from suder.models.find import EMBEDDED
    from suder.pretrain.recipe import FOLDER, load_recipe
    from suder.report.page import page_template

    disable_progress_bar()
    todo: dict[str, Callable[[], object]] = {
        f"the model {name!r}": partial(_model, name) for name in EMBEDDED
    }
    kinds: dict[Path, Callable[[Path], object]] = {RECIPES: _recipe, FOLDER: load_recipe}
    for folder, read in kinds.items():
        files = sorted(folder.glob("*.yaml"))
        todo |= {f"the recipe {file}": partial(read, file) for file in files}
        if not files:
            yield f"the recipes in {folder}", "there are none"
    todo |= {f"the page {name}": partial(page_template, name) for name in PAGES}
    for what, load in todo.items():
        try:
            load()
        except Exception as error:
            yield what, f"{type(error).__name__}: {error}"
        else:
            yield what, None


def _model(name: str) -> None:
    """A reward needs the weights, the tokenizer and the picture's codes."""
    import torch

    import suder

    model = suder.load_model(name)
    tokens = torch.zeros(1, model.num_image_tokens, dtype=torch.long)
    reward = suder.DualReward(model).understanding(tokens, ["a red circle"])
    if not bool(reward.isfinite().all()):
        raise ValueError(f"the reward of a caption is {reward.tolist()}")


def _recipe(file: Path) -> None:
    from suder.experiment.plan import read_plan
    from suder.settings.config_file import load_config
    from suder.settings.yaml_file import read_yaml

    if "arms" in read_yaml(file)[0]:
        read_plan(file)
    else:
        load_config(file)
