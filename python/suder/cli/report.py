"""`suder report`: a run as one self-contained page."""

from __future__ import annotations

import argparse
from pathlib import Path

from suder.cli.common import add_command, add_output

SUMMARY = "Write a run's report.html: results, pictures, curves, settings, in one file."
EXAMPLE = """\
  suder report runs/demo
  suder evaluate runs/mine && suder report runs/mine

  Without an evaluation the page shows the training alone, and says so.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "report", SUMMARY, EXAMPLE)
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    add_output(parser, metavar="FILE", help="default: RUN/report.html")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is no report")
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.report import write_report
    from suder.storage.shown import shown

    print(shown(str(write_report(args.folder, args.out, replace=args.overwrite))))
    return 0
