"""The command line: one file a command, imported only when that command is asked for.

Words for people and nothing else: what a command does is done in the rooms below.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from suder.cli.common import BAD_INPUT, as_meant, one_line

COMMANDS = {
    "demo": "improve the embedded model on its own pictures and prompts, and report",
    "train": "improve a model with a folder of pictures and a file of prompts",
    "plan": "what a run would hold in memory, before any work",
    "doctor": "examine a checkpoint: what is fine, what is odd, what to do",
    "audit": "what both rewards make of your pictures, before any training",
    "rollouts": "what a run sampled and scored, as Parquet files",
    "pairs": "preference pairs of rollouts, for TRL, ms-swift or suder",
    "sample": "draw pictures of prompts, or caption pictures",
    "score": "dual rewards of captions or pictures",
    "evaluate": "compare a base and a tuned model on held-out inputs",
    "report": "write a run's report.html",
    "pretrain": "make a small warm start from nothing",
    "experiment": "the objectives against their controls, several seeds",
}
# Suites of questions, one a file, which is named as the command is.
ASKED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "evaluation", "asked")
# Second words: commands of their own, told by both words, and the module of each.
SECOND = {
    "evaluate": {
        **dict.fromkeys(("geneval", "t2i-compbench", "dpg", "wise"), "evaluate_suite"),
        **{
            name.removesuffix(".py"): "evaluate_asked"
            for name in sorted(os.listdir(ASKED))
            if name.endswith(".py") and not name.startswith("_")
        },
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Exit codes: 0 done, or a run stopped by SIGTERM that can be resumed; 2 bad input or no space;
    130 stopped by ctrl-c; 1 anything else.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    second = _second(asked, arguments)
    if asked and second:
        place = arguments.index(asked)
        asked = f"{asked} {second}"
        arguments[place : place + 2] = [asked]
    # transformers' bars for reading and writing weights would break up the output.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # torch's threads wait for one another by spinning: by default for so long that beside another
    # busy process a run takes nine times its time. Read when torch is imported, which comes later.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    parser = _parser(asked)
    args, rest = parser.parse_known_args(arguments)
    # argparse does not take `CONFIG --quiet key=value`: positionals after an option are left over.
    if rest and "overrides" in args and all("=" in word and word[0] != "-" for word in rest):
        args.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if args.command is None:
        _parser(None).print_help()
        return 2
    try:
        as_meant(args)
        return int(args.run(args))
    except KeyboardInterrupt as stopped:  # a run's says how to go on
        if not hasattr(stopped, "rank"):  # else another process says it
            print(f"\n{str(stopped) or 'stopped'}", file=sys.stderr)
        return int(getattr(stopped, "exit_code", 130))
    except BrokenPipeError:  # `suder ... | head`
        return 0
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        elif not hasattr(error, "rank"):
            print(f"suder {args.command}: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, BAD_INPUT) else 1


def _second(asked: str | None, arguments: Sequence[str]) -> str | None:
    """The second word of a command of two. A model or a run of that name is meant as it was."""
    if asked not in SECOND:
        return None
    word = next(iter(arguments[arguments.index(asked) + 1 :]), "")
    files = (os.path.join(word, name) for name in ("config.json", "config.yaml"))
    return word if word in SECOND[asked] and not any(map(os.path.isfile, files)) else None


def _parser(asked: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="suder",
        description="Unified multimodal models that improve themselves: no labels, no other model.",
        epilog="Start with `suder demo`. Each command's --help shows an example.",
    )
    parser.add_argument("--version", action="version", version=metadata.version("suder"))
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name == asked:
            module = importlib.import_module(f"suder.cli.{name}")
            command = module.add_parser(subparsers)
            command.add_argument("--debug", action="store_true", help="full traceback of errors")
            command.set_defaults(run=module.run)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    first, _, second = (asked or "").partition(" ")
    if second:
        module = importlib.import_module(f"suder.cli.{SECOND[first][second]}")
        command = module.add_parser(subparsers, second)
        command.add_argument("--debug", action="store_true", help="full traceback of errors")
        command.set_defaults(run=module.run)
    return parser
