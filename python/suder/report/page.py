"""`write_report`: the page, put together from its sections by the template beside this file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from suder.report import sections
from suder.report.run_data import RunData, read_run
from suder.storage.files import write_text
from suder.storage.shown import shown

MARK = '<meta name="generator" content="suder report">'  # of a page that may be replaced
_MARKS = (MARK, "<title>suder: ")  # the second is of pages written before there was the first
_HEAD = 4096  # bytes of a page that hold its mark
_LONGEST = 1 << 20  # characters of one value in the page


def write_report(folder: Path, out: Path | None = None, *, replace: bool = False) -> Path:
    """Write one file that needs nothing else, `folder/report.html` unless `out`, and return it.

    Works for a run that is not finished, not evaluated, or damaged, and says so.

    Args:
        replace: also a file that is no report; without it such a file is an error.

    Raises:
        FileNotFoundError: there is no run in `folder`.
        FileExistsError: a file that is no report of ours is at the path.
    """
    path = folder / "report.html" if out is None else out
    run = read_run(folder)
    if os.path.lexists(path) and not replace and not is_ours(path):
        raise FileExistsError(
            f"{path} is there and is no report of suder's; take another --output, or --overwrite "
            "to replace it"
        )
    write_text(path, _page(run))
    return path


def is_ours(path: Path, marks: Sequence[str] = _MARKS) -> bool:
    """Whether a file begins as a page of ours does."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD).decode("utf-8", errors="replace")
    return any(mark in head for mark in marks)


def render(template: str, **values: Any) -> str:
    """A page from the template of that name beside this file."""
    return page_template(template).render(**values)


@lru_cache
def page_template(name: str) -> Template:
    """One of the templates beside this file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _page(run: RunData) -> str:
    return render(
        "page.html",
        folder=run.folder,
        finished=run.summary is not None,
        notes=run.notes,
        **sections.headline(run),
        **sections.results(run),
        **sections.pictures(run),
        **sections.captions(run),
        **sections.suites(run),
        **sections.heldout(run),
        **sections.training(run),
        **sections.guard(run),
        **sections.dropped(run),
        **sections.settings(run),
    )


def _visible(value: Any) -> Any:
    """Of every value in the page: no control character or mark of direction acts in a browser."""
    return value if isinstance(value, Markup) else shown(str(value), _LONGEST)
