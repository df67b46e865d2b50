"""What the commands share: their look, and errors a person can act on."""

from __future__ import annotations

import argparse

# What the user can mend. Anything else is this program's fault, and says so.
BAD_INPUT = (ValueError, TypeError, OSError, ImportError, IndexError)


def add_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    """A command's parser, whose --help ends with an example printed as it is."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="example:\n" + example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def one_line(error: BaseException) -> str:
    """An error for people; --debug shows where it came from."""
    text = str(error).strip()
    if isinstance(error, BAD_INPUT) and text:
        return text
    kind = type(error).__name__
    return f"internal error, {kind}: {text or 'no message'} (--debug shows where)"
