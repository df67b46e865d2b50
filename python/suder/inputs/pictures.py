"""The one reader of the user's pictures."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from suder.inputs.as_seen import WHITE, Colour, as_seen
from suder.inputs.files import DataError, read_file
from suder.storage.shown import named

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# No others are tried, whatever a file holds: some of Pillow's readers start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 1 << 27  # of a file
MAX_PIXELS = 1 << 26  # of a picture, before it is decoded; 8192 x 8192
MAX_SCANS = 256  # of a JPEG: each goes over all pixels for a few bytes; real ones have ten
TILE = (322, 323)  # TIFF's tags of a tile's sides; a whole tile is decoded for one pixel of it


class Found(NamedTuple):
    """Files that end as pictures do, in order of their paths; what was passed over, and why."""

    files: list[Path]
    skipped: list[tuple[str, str]]


def find_pictures(folder: Path, follow_links: bool = False) -> Found:
    """Looks through `folder` and all folders in it, each once.

    Symbolic links lead to files within the folder; out of it, or to folders elsewhere, only with
    `follow_links`.
    """
    root = os.path.realpath(folder)
    files: list[Path] = []
    skipped: list[tuple[str, str]] = []
    waiting, seen = [folder], {root}
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            skipped.append((named(here), error.strerror or str(error)))
            continue
        for entry in entries:
            path = here / entry.name
            real = os.path.realpath(path)
            wanted = path.suffix.lower() in PICTURE_ENDINGS
            inside = os.path.join(real, "").startswith(os.path.join(root, ""))
            is_folder = os.path.isdir(path)
            why = None
            if entry.is_symlink() and not follow_links and not inside:
                why = "a link out of the folder, which is followed only if follow_links is set"
                wanted |= is_folder
            elif is_folder:
                why = "a folder, looked into as any other"
                # A link to a folder within this one: what it holds is found where it is.
                if real not in seen and not (entry.is_symlink() and inside):
                    seen.add(real)
                    waiting.append(path)
            elif not os.path.lexists(real):
                why = "a link to nothing"
            elif not os.path.isfile(path):
                why = "not a regular file"
            elif not _is_text(str(path)):
                why = "its name is not UTF-8"
            if wanted and why is None:
                files.append(path)
            elif wanted and why is not None:
                skipped.append((named(path), why))
    return Found(sorted(files), sorted(skipped))


def load_picture(
    path: str | os.PathLike[str], background: Colour = WHITE, digest: str | None = None
) -> np.ndarray:
    """The picture as a person sees it, uint8 `[H, W, 3]`; of an animation, its first frame.

    Args:
        background: what transparency is laid on.
        digest: what `digest_of` gave for the file before; another now is an error.

    Raises:
        DataError: the file is gone, has changed, is no picture, or is too large for one.
    """
    try:
        data = read_file(path, MAX_BYTES)
    except DataError as error:
        raise DataError(f"picture {error}") from None
    if digest is not None and digest_of(data) != digest:
        raise DataError(f"picture {named(path)}: its content has changed since the run began")
    return decode_picture(data, path, background)


def decode_picture(data: bytes, name: object, background: Colour = WHITE) -> np.ndarray:
    """`load_picture` of a file's bytes; `name` is for the error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_bounds(picture, data)
                return as_seen(picture, background)
    except UnidentifiedImageError:
        why = f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or damaged"
    except Exception as error:  # decoders raise nearly everything; this file is the reason
        why = named(error) or type(error).__name__
    raise DataError(f"picture {named(name)}: {why}")


def digest_of(data: bytes) -> str:
    """By which equal pictures, and changed ones, are known."""
    return hashlib.sha256(data).hexdigest()


def _check_bounds(picture: Image.Image, data: bytes) -> None:
    tags = getattr(picture, "tag_v2", {})
    tile = [int(tags.get(tag, 0)) for tag in TILE]
    for width, height in (picture.size, tile):
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels, and at most {MAX_PIXELS} are read")
    if picture.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
