"""Damaged pictures of every format that is read: each is a picture or a `DataError`, nothing else.

python -m tests.trainer.inputs.fuzz_pictures 1000000 [SEED]
"""

from __future__ import annotations

import io
import random
import sys

import numpy as np
from PIL import Image

from suder.inputs.files import DataError
from suder.inputs.pictures import decode_picture
from tests.trainer.inputs.icc import cmyk_profile, linear_profile


def seeds() -> list[bytes]:
    """Small pictures that between them reach every decoder and every branch of colour."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    rgba = Image.fromarray(pixels)
    rgb, gray = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    wanted = [
        *((one, "PNG", {}) for one in (rgb, rgba, gray, deep, gray.convert("1"), palette)),
        (palette, "PNG", {"transparency": 3}),
        (rgb, "PNG", frames),
        (rgb, "PNG", {"exif": exif.tobytes()}),
        *((one, "JPEG", {}) for one in (rgb, gray, rgb.convert("CMYK"))),
        (rgb, "JPEG", {"progressive": True, "exif": exif.tobytes()}),
        (rgb, "WEBP", {"lossless": True, "exif": exif.tobytes()}),
        (rgba, "WEBP", {}),
        (rgb, "WEBP", frames),
        *((one, "BMP", {}) for one in (rgb, rgba, palette, gray.convert("1"))),
        (palette, "GIF", {"transparency": 3}),
        (rgb, "GIF", frames),
        *((one, "TIFF", {}) for one in (rgb, rgba, gray, deep, palette, rgb.convert("CMYK"))),
        *(
            (one, "TIFF", {"compression": how})
            for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
            for one in (rgb, gray)
        ),
        (gray.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "TIFF", frames | {"exif": exif}),
        (rgb, "TIFF", {"icc_profile": linear_profile("RGB ")}),
        (gray, "BMP", {}),
        (rgb.convert("CMYK"), "TIFF", {"icc_profile": cmyk_profile()}),
    ]
    found = []
    for picture, kind, options in wanted:
        out = io.BytesIO()
        picture.save(out, kind, **options)
        found.append(out.getvalue())
    return found


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few bits flipped, bytes set, runs cut, doubled or filled, numbers made extreme."""
    held = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(held)) if held else 0
        length = chance.randrange(1, 16)
        extreme = chance.choice((0, 1, 0x7F, 0x80, 0xFF)).to_bytes(1, "big")
        run = slice(place, place + length)
        match chance.randrange(7):
            case 0 if held:
                held[place] ^= 1 << chance.randrange(8)
            case 1 if held:
                held[place] = chance.randrange(256)
            case 2:
                held[run] = extreme * len(held[run])
            case 3:
                del held[run]
            case 4:
                held[place:place] = held[run]
            case 5:
                held[place:place] = chance.randbytes(length)
            case _ if chance.random() < 0.2:
                del held[place:]
    return bytes(held)


def fuzz(count: int, seed: int = 0) -> tuple[int, int]:
    """How many of `count` mutations were pictures all the same, and how many were refused."""
    chance = random.Random(seed)
    whole = seeds()
    read = refused = longest = 0
    for number in range(count):
        data = mutate(whole[number % len(whole)], chance)
        try:
            picture = decode_picture(data, "fuzzed", (127, 127, 127))
        except DataError as error:
            refused += 1
            longest = max(longest, len(str(error)))
        except BaseException:
            print(f"mutation {number} of seed {seed}: {data.hex()}")
            raise
        else:
            read += 1
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
            assert picture.shape[2] == 3
    assert longest < 400, "a reason is a line"
    return read, refused


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]] or [1_000_000]
    print("pictures and refusals:", *fuzz(*numbers))
