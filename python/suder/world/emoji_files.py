"""The emoji world's drawings: four packages of the npm registry, read from a folder.

`SOURCES` names them with their authors and licences. The folder is `$SUDER_EMOJI`, or `suder/emoji`
in the user's cache. What it lacks is fetched into it by `npm pack`, once; nothing of it comes with
suder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# The versions that the embedded model saw. Another one found in the folder is read as well.
VERSIONS = {"fluent-emoji-flat": "1.2.6", "noto": "1.2.9", "twemoji": "1.2.5", "openmoji": "1.2.29"}
SETS = tuple(VERSIONS)
SOURCES = """\
This model was trained on drawings of these sets, as packed by Iconify, cut out, shifted and scaled,
some of them without their colours:

    Fluent Emoji  Microsoft                 MIT           github.com/microsoft/fluentui-emoji
    Noto Emoji    Google                    Apache-2.0    github.com/googlefonts/noto-emoji
    Twemoji       Twitter and contributors  CC BY 4.0     github.com/jdecked/twemoji
    OpenMoji      the OpenMoji project      CC BY-SA 4.0  openmoji.org

The drawings themselves are not here. What the weights, and pictures drawn with them, take over from
them stays under those licences: name the sets, and share adaptations of OpenMoji's under
CC BY-SA 4.0.
"""
CANVAS, DRAWN = 96, 72  # side of a drawing, and of what is drawn in its middle, in pixels
_FINE = 192  # side that the SVG is rendered at before it is trimmed
_MOST_BYTES = 128 << 20  # of an icons.json; the largest has 25 MB
_FOLDER = "SUDER_EMOJI"


def emoji_folder() -> Path:
    """Where the packages are, or will be."""
    if given := os.environ.get(_FOLDER):
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "suder" / "emoji"


def read_drawings(icons: Sequence[str]) -> np.ndarray:
    """uint8 RGBA `[len(icons), 4, 96, 96, 4]`: each icon in each set, trimmed and centred.

    Raises:
        FileNotFoundError: a package is not there and cannot be fetched; the message says how.
        ValueError: a package lacks an icon, or holds something else.
    """
    folder = emoji_folder()
    files = {
        name: _find(folder, name) or _fetch(folder, name, version)
        for name, version in VERSIONS.items()
    }
    kept = folder / f"drawings-{_key(icons, files)}.npz"
    if kept.is_file():
        with np.load(kept) as arrays:
            return np.asarray(arrays["drawings"])
    drawn = []
    for name, path in files.items():
        package = _icons(path)
        drawn.append([_draw(package, icon, name) for icon in icons])
    drawings = np.array(drawn, np.uint8).swapaxes(0, 1)
    partial = kept.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(partial, drawings=drawings)
    partial.replace(kept)
    return drawings


def _key(icons: Sequence[str], files: dict[str, Path]) -> str:
    """Changes with what is drawn, and with the files that it is drawn from."""
    of_files = [(name, path.name, path.stat().st_size) for name, path in files.items()]
    text = json.dumps([list(icons), of_files, CANVAS, DRAWN, _FINE])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _find(folder: Path, name: str) -> Path | None:
    """The newest archive of the package, or its icons.json where it was unpacked."""
    archives = sorted(folder.glob(f"iconify-json-{name}-[0-9]*.tgz"), key=_version)
    unpacked = [folder / at / "icons.json" for at in (name, f"@iconify-json/{name}")]
    return next((path for path in [*archives[::-1], *unpacked] if path.is_file()), None)


def _version(archive: Path) -> list[int]:
    return [int(part) for part in archive.stem.rpartition("-")[2].split(".") if part.isdigit()]


def _fetch(folder: Path, name: str, version: str) -> Path:
    package = f"@iconify-json/{name}@{version}"
    by_hand = f"run `npm pack {package}` in {folder}, or set {_FOLDER} to a folder that has it"
    if not (npm := shutil.which("npm")):
        raise FileNotFoundError(f"the emoji world needs {package}, and there is no npm: {by_hand}")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([npm, "pack", "--silent", package], cwd=folder, capture_output=True)
    found = _find(folder, name)
    if done.returncode or found is None:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise FileNotFoundError(f"npm could not fetch {package} ({said}): {by_hand}")
    return found


def _icons(path: Path) -> dict[str, Any]:
    """The package's icons.json: sizes, and the body of an SVG by name."""
    try:
        if path.suffix == ".tgz":
            with tarfile.open(path, "r:gz") as archive:
                member = archive.extractfile("package/icons.json")
                text = member.read(_MOST_BYTES) if member else b""
        else:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES)
        package = json.loads(text)
        if not isinstance(package["icons"], dict):
            raise TypeError
    except (KeyError, TypeError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"{path} is no package of icons in Iconify's format: {error}") from None
    return dict(package)


def _draw(package: dict[str, Any], icon: str, name: str) -> np.ndarray:
    try:
        found = package["icons"][icon]
        body = str(found["body"])
        width, height = (
            float(found.get(side, package.get(side, 16))) for side in ("width", "height")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"@iconify-json/{name}: no icon {icon!r} ({error})") from None
    if "<image" in body:  # a renderer would open the file that it names
        raise ValueError(f"@iconify-json/{name}: {icon!r} holds a picture file, not a drawing")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{_FINE}" height="{_FINE}">{body}</svg>'
    )
    return trim(_render(svg))


def _render(svg: str) -> Image.Image:
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise ImportError("the emoji world is drawn by resvg: pip install 'suder[emoji]'") from None
    png = bytes(svg_to_bytes(svg_string=svg, width=_FINE, height=_FINE))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def trim(picture: Image.Image) -> np.ndarray:
    """RGBA `[96, 96, 4]`: what is drawn, its longer side 72 pixels, in the middle of nothing.

    The packages leave margins of their own, up to a quarter of the side.
    """
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:
        raise ValueError("an icon of nothing")
    cut = picture.crop(box)
    longer = max(cut.size)
    size = [max(1, round(side * DRAWN / longer)) for side in cut.size]
    canvas = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    corner = [(CANVAS - side) // 2 for side in size]
    canvas.paste(cut.resize((size[0], size[1]), Image.Resampling.BOX), (corner[0], corner[1]))
    return np.asarray(canvas)
