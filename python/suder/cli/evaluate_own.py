"""`suder evaluate --images DIR --prompts FILE`: base and tuned on the user's own inputs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from suder.cli.common import new_file, prompts_of


def run(args: argparse.Namespace) -> int:
    import torch
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress
    from rich.table import Table

    from suder.evaluation.own import beside
    from suder.evaluation.own_inputs import read_own
    from suder.models import load_model
    from suder.report.own_page import HEADS, in_words, lines, write_own
    from suder.storage.shown import shown

    models, asked, trained = _models(args)
    page = args.out or Path("evaluation.html")
    if page.suffix not in (".html", ".htm"):
        raise ValueError(f"--output: takes a name that ends in .html, got {page}")
    for path in (page, page.with_suffix(".json")):
        new_file(path, "--output", args.overwrite)
    inputs = read_own(args.images, args.prompts, count=args.n, seed=args.seed, trained=trained)
    for name, why in inputs.left_out[:10]:
        print(shown(f"left out: {name}: {why}"))
    dtype = getattr(torch, args.dtype)
    base, tuned = (load_model(one, device=args.device, dtype=dtype, **asked) for one in models)
    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("base and tuned")
        found = beside(
            base, tuned, inputs, seed=args.seed, greedy=not args.sampled,
            temperature=args.temperature, guidance=args.guidance,
            max_new_tokens=asked_tokens(args),
            step=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    table = Table()
    for head in HEADS:
        table.add_column(head)
    for row in lines(found):
        table.add_row(*map(escape, row))
    Console().print(table)
    for line in in_words(found):
        print(line)
    write_own(found, *models, page)
    print(shown(f"{page}    open this in a browser; every number in {page.with_suffix('.json')}"))
    return 0


def asked_tokens(args: argparse.Namespace) -> int | None:
    """The longest caption: as asked for, or as a run has it."""
    if args.max_new_tokens is None and is_run(args.model):
        from suder.settings.config_file import load_config

        return load_config(Path(args.model) / "config.yaml").sampling.max_new_tokens
    longest: int | None = args.max_new_tokens
    return longest


def is_run(name: str) -> bool:
    return (Path(name) / "config.yaml").is_file()


def _models(args: argparse.Namespace) -> tuple[tuple[str, str], dict[str, Any], set[str]]:
    """Base and tuned, how they are asked, and what the tuned one has learnt from."""
    asked = {name: value for name, value in prompts_of(args).items() if value is not None}
    if not is_run(args.model):
        if args.base is None:
            raise ValueError(
                "--images and --prompts set two models side by side: name the other by --base M, "
                "or give a run's folder"
            )
        return (args.base, args.model), asked, set()
    from suder.inputs.data import Inputs
    from suder.settings.config_file import load_config

    folder = Path(args.model)
    if not (folder / "model").is_dir():
        raise ValueError(f"{folder} is no finished run; `suder train --resume {folder}` ends it")
    config = load_config(folder / "config.yaml")
    trained: set[str] = set()
    if config.data.rollouts is None:
        inputs = Inputs.load(folder)
        trained = set(inputs.prompts)
        trained |= {inputs.digests[path] for path in inputs.images if path in inputs.digests}
    asked = config.prompts.model_dump() | asked
    return (args.base or config.model, str(folder / "model")), asked, trained
