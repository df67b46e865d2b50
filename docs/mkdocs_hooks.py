"""What mkdocs is told beyond mkdocs.yml: pages that lie outside of docs/, and equations.

The README is the first page. Links are written as they hold in the repository
(`docs/ops.md` there, `../benchmarks/results/guard.md` in docs/), and changed here.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parent.parent
# Pages and pictures of other folders, and files that a page links to as they are.
OUTSIDE = (
    "CONTRIBUTING.md",
    "benchmarks/*.md",
    "benchmarks/results/*",
    "recipes/*.yaml",
    "examples/*.py",
)
FOREIGN = re.compile(
    r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]*"'
    r'|<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="(?:https?:)?//[^"]*"'
)
LOG = "<mi>log</mi>"
FOLDER = "](examples/rerank_captions.py)"  # a site has files only
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            file = File.generated(config, name, abs_src_path=str(path))
            file.inclusion = InclusionLevel.NOT_IN_NAV  # or in it: another result is no warning
            files.append(file)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme.replace("](examples)", FOLDER)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    return markdown.replace("](../", "](")


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """MathML, which browsers draw themselves; a table of any width scrolls inside its own box."""

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found[2] == "[" else "inline"
        drawing = str(convert(html.unescape(found[3]).strip(), display=display))
        return drawing.replace(LOG, f'{LOG}<mspace width="0.15em"/>')

    return EQUATION.sub(drawn, content)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """A reader's browser asks nobody else for anything."""
    if found := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {found[0]}")
    return output
