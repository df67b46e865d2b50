"""Pictures: each kind against its right value, and what is refused, by name and with the reason."""

from __future__ import annotations

import io
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from suder.inputs import pictures
from suder.inputs.files import DataError
from suder.inputs.pictures import decode_picture, digest_of, find_pictures, load_picture
from tests.trainer.inputs.fuzz_pictures import fuzz
from tests.trainer.inputs.icc import cmyk_profile, linear_profile

PAPER = (10, 20, 30)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def seen(picture: Image.Image, kind: str, **options: object) -> np.ndarray:
    return decode_picture(encoded(picture, kind, **options), "x", PAPER)


def noise(channels: int = 3) -> np.ndarray:
    size = (5, 7, channels)
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_plain_pictures_keep_every_bit(kind: str) -> None:
    pixels = noise()
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(seen(Image.fromarray(pixels), kind, **options), pixels)


# Orientation n: how the upright picture lies in the file.
LIES: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p[:, ::-1].transpose(1, 0, 2),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p[::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", LIES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    """The row that the tag calls top is at the top: TIFF 6.0, page 36."""
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lies = Image.fromarray(np.ascontiguousarray(LIES[orientation](upright)))
    options = {"lossless": True} if kind == "WEBP" else {}
    got = seen(lies, kind, exif=exif.tobytes() if kind != "TIFF" else exif, **options)
    assert got.shape == upright.shape
    assert np.abs(got[4::8, 8::16].astype(int) - upright[4::8, 8::16]).max() < 30  # JPEG's colours


def test_damaged_exif_does_not_cost_the_picture() -> None:
    pixels = noise()
    assert np.array_equal(seen(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0junk"), pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], dtype=np.uint16)
    got = seen(Image.fromarray(values), kind)
    assert got[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255]
    assert (got == got[..., :1]).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zero_is_white", [False, True])
def test_16_bit_tiff_in_both_byte_orders(order: str, zero_is_white: bool) -> None:
    data = tiff(order, np.array([[0, 32768, 65535]]), photometric=0 if zero_is_white else 1)
    if order == ">" and zero_is_white:
        with pytest.raises(DataError):  # Pillow does not read this kind
            decode_picture(data, "x")
        return
    expected = [255, 127, 0] if zero_is_white else [0, 128, 255]
    assert decode_picture(data, "x")[0, :, 0].tolist() == expected


def test_12_bit_tiff() -> None:
    data = tiff("<", np.array([[0, 2048, 4095, 4095]]), bits=12)
    assert decode_picture(data, "x")[0, :, 0].tolist() == [0, 128, 255, 255]


def tiff(
    order: str,
    values: np.ndarray,
    photometric: int = 1,
    bits: int = 16,
    extra: dict[int, int] | None = None,
) -> bytes:
    """One strip of unsigned gray, uncompressed."""
    if bits == 12:
        first, second = values[:, ::2].ravel(), values[:, 1::2].ravel()
        parts = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
        strip = np.stack(parts, 1).astype(np.uint8).tobytes()
    else:
        strip = values.astype(f"{order}u2").tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(strip)} | (extra or {})
    directory = struct.pack(f"{order}H", len(tags))
    for tag, value in tags.items():
        directory += struct.pack(f"{order}HHI", tag, 4 if tag in (273, 279) else 3, 1)
        directory += struct.pack(f"{order}I" if tag in (273, 279) else f"{order}Hxx", value)
    start = b"II*\0" if order == "<" else b"MM\0*"
    where = 8 + len(strip) + len(strip) % 2
    head = start + struct.pack(f"{order}I", where)
    return (head + strip).ljust(where, b"\0") + directory + bytes(4)


def test_float_samples_say_nothing_of_white() -> None:
    with pytest.raises(DataError, match="32-bit samples"):
        seen(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match="32-bit samples"):
        seen(Image.fromarray(np.ones((2, 2), dtype=np.int32)), "TIFF")


def test_transparency_is_laid_on_the_paper() -> None:
    pixels = noise(4)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    got = seen(Image.fromarray(pixels), "PNG")
    alpha = pixels[..., 3:].astype(float) / 255
    expected = alpha * pixels[..., :3] + (1 - alpha) * np.array(PAPER)
    assert np.abs(got - expected).max() <= 1  # Pillow mixes in integers
    assert got[0, 0].tolist() == list(PAPER)
    assert got[0, 1].tolist() == pixels[0, 1, :3].tolist()
    white = decode_picture(encoded(Image.fromarray(pixels), "PNG"), "x")
    assert white[0, 0].tolist() == [255, 255, 255]


def test_palettes_and_their_transparency() -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "L").convert("P")
    picture.putpalette([200, 0, 0, 0, 100, 0, 0, 0, 50])
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert seen(picture, kind)[0].tolist() == [[200, 0, 0], [0, 100, 0], [0, 0, 50]]
    for kind in ("PNG", "GIF"):
        got = seen(picture, kind, transparency=1)
        assert got[0].tolist() == [[200, 0, 0], list(PAPER), [0, 0, 50]]
    got = seen(picture, "PNG", transparency=bytes([255, 128, 0]))
    assert got[0].tolist() == [[200, 0, 0], [5, 60, 15], list(PAPER)]


def test_gray_with_a_transparent_level() -> None:
    eight = Image.fromarray(np.array([[7, 200]], dtype=np.uint8))
    assert seen(eight, "PNG", transparency=7)[0].tolist() == [list(PAPER), [200] * 3]
    sixteen = Image.fromarray(np.array([[1799, 51400]], dtype=np.uint16))
    assert seen(sixteen, "PNG", transparency=1799)[0].tolist() == [list(PAPER), [200] * 3]
    both = Image.merge("LA", [eight, Image.fromarray(np.array([[255, 0]], dtype=np.uint8))])
    assert seen(both, "PNG")[0].tolist() == [[7] * 3, list(PAPER)]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(kind: str) -> None:
    inks = np.zeros((8, 40, 4), dtype=np.uint8)
    for place in range(4):
        inks[:, 8 * place : 8 * place + 8, place] = 255
    got = seen(Image.fromarray(inks, "CMYK"), kind)
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]
    assert np.abs(got[4, 4::8].astype(int) - expected).max() <= 2  # JPEG


def srgb_of(light: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, from linear light in [0, 1] to levels."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_icc_profile_of_rgb(kind: str) -> None:
    """sRGB's own primaries in linear light: 128 is far brighter than it looks."""
    pixels = noise()
    options = {"lossless": True} if kind == "WEBP" else {}
    got = seen(Image.fromarray(pixels), kind, icc_profile=linear_profile("RGB "), **options)
    assert np.abs(got - srgb_of(pixels / 255)).max() <= 2  # of the profile's 8 bits


def test_icc_profile_of_gray_and_of_transparent_pictures() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    got = seen(Image.fromarray(gray), "PNG", icc_profile=linear_profile("GRAY"))
    assert np.abs(got[..., 0] - srgb_of(gray / 255)).max() <= 2
    pixels = noise(4)
    pixels[..., 3] = 255
    got = seen(Image.fromarray(pixels), "PNG", icc_profile=linear_profile("RGB "))
    assert np.abs(got - srgb_of(pixels[..., :3] / 255)).max() <= 2


def test_icc_profile_of_cmyk() -> None:
    """A press whose cyan prints as a gray of L* 50."""
    inks = np.zeros((1, 3, 4), dtype=np.uint8)
    inks[0, 0, 0] = inks[0, 1, 3] = 255
    got = seen(Image.fromarray(inks, "CMYK"), "TIFF", icc_profile=cmyk_profile())
    gray = float(srgb_of(np.array(((50 + 16) / 116) ** 3)))
    assert np.abs(got[0, :, 0] - np.array([gray, 0, 255])).max() <= 2
    assert np.ptp(got[0], axis=1).max() <= 2


@pytest.mark.parametrize("profile", [b"", b"junk", linear_profile("GRAY"), cmyk_profile()[:300]])
def test_a_profile_of_something_else_is_as_good_as_none(profile: bytes) -> None:
    pixels = noise()
    assert np.array_equal(seen(Image.fromarray(pixels), "PNG", icc_profile=profile), pixels)


def test_srgb_profiles_change_no_bit() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(seen(Image.fromarray(pixels), "PNG", icc_profile=profile), pixels)


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"save_all": True, "append_images": frames[1:]}
        got = seen(frames[0], kind, **options, **({"lossless": True} if kind == "WEBP" else {}))
        assert (got == (255, 0, 0)).all(), kind


# ---- what is refused


def test_only_named_formats_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS is a program: Pillow hands it to Ghostscript where that is installed."""
    from PIL import EpsImagePlugin

    def run(*args: object, **options: object) -> None:
        raise AssertionError("PostScript was run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    picture = Image.fromarray(noise())
    for kind in ("EPS", "PPM", "TGA", "PCX", "ICO", "PDF", "AVIF"):
        with pytest.raises(DataError, match=r"picture a.png: no PNG, JPEG, WEBP, BMP, GIF or TIFF"):
            decode_picture(encoded(picture, kind), "a.png")


def test_pixels_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object) -> None:
        raise AssertionError("decoded")

    bomb = encoded(Image.new("1", (9000, 9000)), "PNG")
    assert len(bomb) < 20_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(DataError, match="9000 x 9000 pixels, and at most 67108864"):
        decode_picture(bomb, "x")
    # A tile of 4 G pixels for a picture of one.
    tiled = tiff("<", np.zeros((1, 1)), extra={322: 65535, 323: 65535})
    with pytest.raises(DataError, match="65535 x 65535 pixels"):
        decode_picture(tiled, "x")


def test_scans_are_counted() -> None:
    data = encoded(Image.fromarray(noise()), "JPEG", progressive=True)
    assert decode_picture(data, "x").shape == (5, 7, 3)
    start = data.rindex(b"\xff\xda")
    many = data[:start] + data[start:-2] * 300 + data[-2:]
    with pytest.raises(DataError, match="more than 256 scans"):
        decode_picture(many, "x")


def test_bytes_are_counted_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole
    with pytest.raises(DataError, match=r"a.png: 1099511627776 bytes, and at most"):
        load_picture(path)


@pytest.mark.parametrize("frame", [(60000, 60000, 7, 5), (0, 202, 0, 0)])
def test_a_frame_outside_of_its_picture(frame: tuple[int, ...]) -> None:
    whole = encoded(Image.fromarray(noise()), "GIF")
    where = whole.index(b"\x2c\0\0\0\0\x07\0\x05\0") + 1
    moved = whole[:where] + struct.pack("<4H", *frame) + whole[where + 8 :]
    with pytest.raises(DataError, match="picture x: "):
        decode_picture(moved, "x")


def test_a_megabyte_of_compressed_text() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("a", "b" * 3_000_000, zip=True)
    with pytest.raises(DataError, match="picture x: "):
        seen(Image.fromarray(noise()), "PNG", pnginfo=info)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\0b.png", "embedded null byte"),
        ("a" * 5000, "File name too long"),
        (7, "no name of a file"),
        (None, "no name of a file"),
        ("gone.png", "No such file"),
        ("/dev/zero", "not a regular file"),
        ("/", "a folder|not a regular file"),
    ],
)
def test_names_that_lead_to_no_picture(name: object, why: str) -> None:
    with pytest.raises(DataError, match=why) as refused:
        load_picture(name)  # type: ignore[arg-type]
    assert "\0" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    began = time.monotonic()
    with pytest.raises(DataError, match="not a regular file"):
        load_picture(tmp_path / "a.png")
    assert time.monotonic() - began < 5


def test_a_changed_picture_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise()).save(path)
    digest = digest_of(path.read_bytes())
    assert np.array_equal(load_picture(path, digest=digest), noise())
    Image.fromarray(noise()[::-1]).save(path)
    with pytest.raises(DataError, match="changed since the run began"):
        load_picture(path, digest=digest)


# ---- folders


def test_links_are_followed_within_the_folder_only(tmp_path: Path) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    for folder in (here / "deep", away):
        folder.mkdir(parents=True)
        Image.fromarray(noise()).save(folder / "a.png")
    (here / "in.png").symlink_to("deep/a.png")
    (here / "in").symlink_to("deep")
    (here / "loop").symlink_to(".")
    (here / "out.png").symlink_to(away / "a.png")
    (here / "away").symlink_to(away)
    (here / "nowhere.png").symlink_to("gone.png")
    found = find_pictures(here)
    assert found.files == [here / "deep/a.png", here / "in.png"]
    assert {(Path(name).name, why.partition(",")[0]) for name, why in found.skipped} == {
        ("out.png", "a link out of the folder"),
        ("away", "a link out of the folder"),
        ("nowhere.png", "a link to nothing"),
    }
    followed = find_pictures(here, follow_links=True)
    assert followed.files == [here / "away/a.png", *found.files, here / "out.png"]
    assert [Path(name).name for name, _ in followed.skipped] == ["nowhere.png"]


def test_what_only_ends_as_a_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    Image.fromarray(noise()).save(tmp_path / "x.png" / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(Image.fromarray(noise()), "PNG"))
    found = find_pictures(tmp_path)
    assert found.files == [tmp_path / "x.png" / "a.png"]
    why = {Path(name).name: why for name, why in found.skipped}
    assert why == {
        "x.png": "a folder, looked into as any other",
        "pipe.png": "not a regular file",
        "caf\\udce9.png": "its name is not UTF-8",
    }
    assert pictures.PICTURE_ENDINGS


def test_five_thousand_mutations() -> None:
    """`make fuzz` does it for longer."""
    read, refused = fuzz(5000)
    assert read + refused == 5000
    assert min(read, refused) > 1000
