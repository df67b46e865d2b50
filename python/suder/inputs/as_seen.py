"""A decoded picture as a person sees it: upright, in sRGB, on paper of one colour."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageCms

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)

Turn = Image.Transpose
# EXIF's orientation: what undoes it. 1 is upright.
UPRIGHT = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
ORIENTATION, BITS, PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
# The shortcut for gray is a table of few points, 10 levels off in the dark.
GRAY_FLAGS = ImageCms.Flags.NOOPTIMIZE
# A profile's colour space, and the mode of the pixels that it describes.
PROFILED = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def as_seen(picture: Image.Image, background: Colour = WHITE) -> np.ndarray:
    """uint8 `[H, W, 3]`.

    16-bit gray is scaled to 8 bits, colours go through the picture's ICC profile (where it has
    one that says something else than sRGB), transparency is laid on `background`, and EXIF's
    orientation is undone.

    Raises:
        ValueError: float or 32-bit samples, which say nowhere what white is.
    """
    picture.load()  # which turns a TIFF upright, and then says so
    turn = _turn(picture)
    profile = picture.info.get("icc_profile")
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _eight_bits(picture)
    if picture.mode in ALPHA or "transparency" in picture.info:
        rgba = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        if profile:
            base = picture.convert("L") if picture.mode in ("L", "LA") else rgba.convert("RGB")
            colours = _in_srgb(base, profile).convert("RGBA")
            colours.putalpha(rgba.getchannel("A"))
            rgba = colours
        paper = Image.new("RGBA", rgba.size, background)
        picture = Image.alpha_composite(paper, rgba).convert("RGB")
    else:
        picture = _in_srgb(picture, profile)
    if turn is not None:
        picture = picture.transpose(turn)
    return np.asarray(picture)


def side_by_side(pictures: Sequence[np.ndarray], background: Colour = WHITE) -> np.ndarray:
    """One picture uint8 `[H, W, 3]` of several, from left to right, their tops at one height."""
    if len(pictures) == 1:
        return pictures[0]
    height = max(len(one) for one in pictures)
    tall = []
    for one in pictures:
        column = np.full((height, *one.shape[1:]), background, np.uint8)
        column[: len(one)] = one
        tall.append(column)
    return np.concatenate(tall, 1)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF beside whole pixels: shown as it lies, as viewers do
        return None


def _eight_bits(picture: Image.Image) -> Image.Image:
    """L, or LA where one gray level stands for transparent."""
    tags = getattr(picture, "tag_v2", {})
    # Older versions of Pillow open a PNG's 16 bits as I, which is else 32 bits or signed.
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG"):
        raise ValueError("float, signed or 32-bit samples, of which nothing says what white is")
    values = np.asarray(picture).astype(np.int64)
    white = 4095 if tags.get(BITS) == (12,) else 65535
    levels = (2 * 255 * values + white) // (2 * white)  # to the nearest
    if tags.get(PHOTOMETRIC) == 0:  # white is zero
        levels = 255 - levels
    gray = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    clear = picture.info.get("transparency")
    if clear is None:
        return gray
    return Image.merge("LA", [gray, Image.fromarray(np.uint8(255) * (values != clear))])


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB; a profile that is damaged, or of another kind of pixels, is as good as none."""
    if picture.mode not in PROFILED.values():
        picture = picture.convert("L" if picture.mode in ("1", "LA") else "RGB")
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            kind = given.profile.xcolor_space.strip()
            # Through a profile that says sRGB, levels would come back off by one here and there.
            same = kind == "RGB" and "sRGB" in (given.profile.profile_description or "")
            if PROFILED.get(kind) == picture.mode and not same:
                srgb = ImageCms.createProfile("sRGB")
                flags = GRAY_FLAGS if kind == "GRAY" else ImageCms.Flags.NONE
                converted = ImageCms.profileToProfile(
                    picture, given, srgb, outputMode="RGB", flags=flags
                )
                if converted is not None:
                    return converted
        except Exception:  # a profile that cannot be read is as good as none
            pass
    return picture.convert("RGB")
