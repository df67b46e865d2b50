"""`write_report`: the page, put together from its sections."""

from __future__ import annotations

import html
from pathlib import Path

from suder.report import sections
from suder.report.run_data import RunData, read_run
from suder.storage.files import write_text

_STYLE = """
:root { --ink: #1d2327; --quiet: #68737b; --line: #e2e7ea; --accent: #0b6e8a;
        --good: #2d7d46; --bad: #b8412f; --paper: #ffffff; --back: #f4f6f7; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 36px 24px 80px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 0 0 10px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
          padding: 22px 26px; margin-top: 22px; }
p { margin: 8px 0; max-width: 80ch; }
.quiet, figcaption, small { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 14px 18px; }
.card .name { color: var(--quiet); font-size: 13px; }
.card .big { font-size: 30px; font-weight: 650; letter-spacing: -0.5px; }
.card .big .arrow { color: var(--quiet); font-weight: 400; padding: 0 6px; }
.gain { font-weight: 600; } .up { color: var(--good); } .down { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 10px 0; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: 12.5px; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: middle; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.all td { font-weight: 650; border-top: 2px solid var(--line); }
th.group { color: var(--ink); font-size: 14px; padding-top: 16px; }
tr.part td { color: var(--quiet); } tr.part td:first-child { padding-left: 24px; }
td.n.up { color: var(--good); } td.n.down { color: var(--bad); }
img.chart { width: 100%; height: auto; display: block; margin: 8px 0; }
img.drawn { width: 64px; height: 64px; image-rendering: pixelated; display: block;
            border: 1px solid var(--line); border-radius: 4px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(152px, 1fr)); gap: 16px; }
.gallery figure { margin: 0; } .pair { display: flex; gap: 8px; }
.pair span { font-size: 12.5px; } figcaption { font-size: 12.5px; line-height: 1.3; }
.right { color: var(--good); font-weight: 600; }
.wrong { color: var(--bad); font-weight: 600; }
table.captions td:first-child { width: 84px; }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px;
      padding: 12px 14px; overflow-x: auto; max-height: 420px;
      font-size: 12.5px; line-height: 1.45; }
details summary { cursor: pointer; color: var(--accent); margin: 6px 0; }
.note { border-left: 4px solid var(--bad); padding: 6px 14px; background: #fbf1ef; }
"""


def write_report(folder: Path) -> Path:
    """Write `folder/report.html`, one file that needs nothing else, and return its path.

    Works for a run that is not finished, or not evaluated, and says so.

    Raises:
        FileNotFoundError: there is no run in `folder`.
    """
    run = read_run(folder)
    path = folder / "report.html"
    write_text(path, _page(run))
    return path


def _page(run: RunData) -> str:
    title = html.escape(f"suder: {run.folder.resolve().name}")
    parts = [
        sections.headline(run),
        sections.results(run),
        sections.pictures(run),
        sections.captions(run),
        sections.training(run),
        sections.guard(run),
        sections.dropped(run),
        sections.settings(run),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
