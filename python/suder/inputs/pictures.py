"""The one reader of the user's pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class DataError(ValueError):
    """Inputs that cannot be used; the message says what was found and where."""


def find_pictures(folder: Path) -> list[Path]:
    """Every file below `folder` that ends as a picture does, in order of their paths."""
    found = sorted(folder.rglob("*"))
    return [path for path in found if path.suffix.lower() in PICTURE_ENDINGS and path.is_file()]


def load_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """The picture as uint8 `[H, W, 3]`; transparency is laid on white.

    Raises:
        DataError: the file is gone, or is no picture.
    """
    try:
        with Image.open(path) as file:
            picture: Image.Image = file
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                rgba = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"picture {path}: {error}") from None
