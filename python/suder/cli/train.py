"""`suder train`: a run from a settings file, or the rest of an interrupted one."""

from __future__ import annotations

import argparse
from pathlib import Path

from suder.cli.common import add_command

SUMMARY = "Improve a model with a folder of pictures and a file of prompts; no labels."
EXAMPLE = """\
  suder train recipes/shapes.yaml
  suder train recipes/shapes.yaml --set optimizer.lr=1e-4 --set seed=3 --set output=runs/three
  suder train --resume runs/three        after a crash, ctrl-c or kill -9: the same weights

  The least a settings file must say:
    output: runs/mine
    data:
      images: my/pictures        a folder, searched recursively
      prompts: my/prompts.txt    one a line

  What the run leaves:
    model/         the result, Hugging Face format: the weights that the guard kept
    best/          the same, while the run goes on;  checkpoints/  every so often
    metrics.jsonl, tensorboard/, summary.json    `suder report runs/mine` draws them
    rounds/        samples and rewards of the last rounds
    state/         the last two states to go on from, each with a checksum

  Ctrl-c and SIGTERM give up the phase in hand (with checkpoint.state_every above 1, they first
  finish an update under way), write the state and say how to go on; SIGTERM ends with exit code 0,
  ctrl-c with 130, a second one at once. A full disk leaves everything before it whole.

  On eight GPUs of a machine, with `device: cuda` (torchrun --nproc-per-node 8 likewise):
    accelerate launch --multi_gpu --num_processes 8 -m suder train mine.yaml
  The first process writes and speaks for all. What ends one of them ends all, and --resume goes on,
  with as many processes as there then are.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "train", SUMMARY, EXAMPLE)
    parser.add_argument("config", nargs="?", help="settings (YAML); with --resume, a run's folder")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="the same as --set key=value"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="overrides a setting, such as optimizer.lr=1e-4; may be repeated",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--start-over", action="store_true",
        help="with --resume: begin the run again from its start model, whatever state there is",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no messages")
    parser.add_argument(
        "--help-config", action="store_true", help="every setting, its default and its meaning"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    # Late, so that --help and errors in the settings come at once.
    from suder.settings.config_file import ConfigError, describe_config, load_config
    from suder.storage.files import WriteError

    if args.help_config:
        print(describe_config())
        return 0
    if args.config is None:
        raise ConfigError("which settings? `suder train CONFIG.yaml`, or --help for an example")
    if args.start_over and not args.resume:
        raise ConfigError("--start-over begins a run again, so it needs --resume RUN")
    changes = [*args.changes, *args.overrides]
    if args.resume:
        folder = Path(args.config)
        if folder.is_file():
            folder = _run_of(folder, changes)
        elif changes:
            raise ConfigError(f"a resumed run keeps its settings; leave out {' '.join(changes)}")
        from suder import ranks
        from suder.run.trainer import Trainer

        trainer = Trainer.resume(folder, quiet=args.quiet, start_over=args.start_over)
    else:
        if Path(args.config).is_dir():
            raise ConfigError(
                f"{args.config} is a folder; to go on with that run: "
                f"`suder train --resume {args.config}`"
            )
        config = load_config(args.config, changes)
        from suder import ranks
        from suder.run.folder import refuse_used
        from suder.run.room import room, table
        from suder.run.trackers import check_trackers
        from suder.run.trainer import Trainer

        check_trackers(config.log_with)
        ranks.start(config.device)
        ranks.from_first(lambda: refuse_used(Path(config.output)))  # sooner than after the plan
        said, free = ranks.from_first(lambda: room(config, ranks.count()))
        if ranks.first() and not args.quiet:
            print(f"memory:\n{table(said, free, config.device)}")

        trainer = Trainer(config, quiet=args.quiet)
    try:
        trainer.run()
    except WriteError as error:
        raise WriteError(
            f"{error}\nwhat was written before is whole; once there is space, to go on: "
            f"suder train --resume {trainer.folder}"
        ) from error
    ranks.stop()
    return 0


def _run_of(settings: Path, changes: list[str]) -> Path:
    """The folder of the run of these settings.

    Raises:
        ConfigError: it was begun with others, which it keeps.
    """
    from suder.settings.config_file import (
        ConfigError,
        differing_settings,
        load_config,
        with_absolute_paths,
    )

    config = load_config(settings, changes)
    folder = Path(config.output)
    if (folder / "config.yaml").is_file():
        then = load_config(folder / "config.yaml").model_copy(update={"output": config.output})
        if found := list(differing_settings(then, with_absolute_paths(config))):
            raise ConfigError(
                f"{folder} was begun with other settings, and a resumed run keeps its own: "
                f"{'; '.join(found)}. To go on with it as it is: suder train --resume {folder}"
            )
    return folder
