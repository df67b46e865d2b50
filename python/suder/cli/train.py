"""`suder train`: a run from a settings file, or the rest of an interrupted one."""

from __future__ import annotations

import argparse
from pathlib import Path

from suder.cli.common import add_command
from suder.cli.settings_given import add_settings, missing, settings_given

SUMMARY = "Improve a model with a folder of pictures and a file of prompts; no labels."
EXAMPLE = """\
  suder train --model shapes --images my/pictures --prompts my/prompts.txt --output runs/mine
  suder train recipes/shapes.yaml
  suder train recipes/shapes.yaml --set optimizer.lr=1e-4 --set seed=3 --set output=runs/three
  suder train --resume runs/three        after a crash, ctrl-c or kill -9: the same weights
  suder train --resume runs/three rounds=480     the same for longer, also when it had ended

  suder train --model shapes --rollouts runs/mine/rollouts --output runs/again   nothing is sampled

  Without a file, every setting but the four has its default (--help-config) or is given as
  key=value: `device=cuda dtype=bfloat16 lora.rank=32` for a large model on a GPU. The run keeps
  all of them in runs/mine/config.yaml, to be copied and changed. The least such a file must say:
    output: runs/mine
    data:
      images: my/pictures        a folder, searched recursively
      prompts: my/prompts.txt    one a line; of what, is up to you: no pictures belong to them

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
    add_settings(parser, "settings (YAML); with --resume, a run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--start-over", action="store_true",
        help="with --resume: begin the run again from its start model, whatever state there is",
    )  # fmt: skip
    parser.add_argument(
        "--rescore", action="store_true",
        help="with --rollouts: score them anew (the setting reward.rescore)",
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
    if args.start_over and not args.resume:
        raise ConfigError("--start-over begins a run again, so it needs --resume RUN")
    file, changes = settings_given(args)
    changes += ["reward.rescore=true"] * args.rescore
    if args.resume:
        if file is None:
            raise ConfigError("which run? `suder train --resume RUN`, its folder")
        folder, rounds = Path(file), None
        if folder.is_file():
            folder = _run_of(folder, changes)
        else:
            rounds = _longer(changes)
        from suder import ranks
        from suder.run.trainer import Trainer

        trainer = Trainer.resume(
            folder, quiet=args.quiet, start_over=args.start_over, rounds=rounds
        )
    else:
        if file is None and not changes:
            raise ConfigError(
                "which settings? `suder train CONFIG.yaml`, or `suder train --model M --images DIR "
                "--prompts FILE --output DIR`; --help for an example"
            )
        if file is None and (needed := missing(changes)):
            raise ConfigError(f"without a settings file it also needs {', '.join(needed)}")
        if file is not None and Path(file).is_dir():
            raise ConfigError(
                f"{file} is a folder; to go on with that run: `suder train --resume {file}`"
            )
        config = load_config({} if file is None else file, changes)
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


def _longer(changes: list[str]) -> int | None:
    """How many rounds in all a run is to go on for, the one setting that may change."""
    from suder.settings.config_file import ConfigError

    if others := [change for change in changes if not change.startswith("rounds=")]:
        raise ConfigError(
            f"a resumed run keeps its settings, but for rounds=N; leave out {' '.join(others)}"
        )
    if not changes:
        return None
    rounds = changes[-1].partition("=")[2]
    if not rounds.isdecimal():
        raise ConfigError(f"rounds: takes a whole number, got {rounds!r}")
    return int(rounds)


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
