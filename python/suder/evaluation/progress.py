"""The bar that evaluations show on a terminal; none in a log file."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress


def progress_bar(shown: bool) -> Progress:
    """A bar on standard error that leaves nothing behind."""
    console = Console(stderr=True)
    return Progress(transient=True, disable=not shown or not console.is_terminal, console=console)
