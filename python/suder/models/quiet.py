"""Without bars of transformers' own: they break up what is printed, and fill log files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws none inside, and again after if it did before."""
    drawn = logging.is_progress_bar_enabled()
    if not drawn:
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
