"""Archives of arrays whose headers lie."""

from __future__ import annotations

import io
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from suder.storage.arrays import read_arrays, write_arrays
from suder.storage.files import DamagedFile


def npy(shape: tuple[int, ...], data: bytes = b"", descr: str = "|u1") -> bytes:
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def lying(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pictures.npy", npy((1000000, 1000, 1000, 3)))


def objects(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pictures.npy", npy((1,), b"cos\nsystem\n", "|O"))


def lying_size(path: Path) -> None:
    """The directory and the header agree on 3 GB; the file has 100 bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pictures.npy", npy((3 << 30,)))
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (len(npy((3 << 30,))) + (3 << 30)).to_bytes(4, "little")
    path.write_bytes(bytes(data))


def truncated(path: Path) -> None:
    write_arrays(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path: Path) -> None:
    write_arrays(path, {"a": np.random.default_rng(0).integers(0, 256, 1000, np.uint8)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def unfinished(path: Path) -> None:
    """A header whose Python ends in the middle of a bracket."""
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,"
    header = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pictures.npy", header)


def packed(path: Path, method: int) -> None:
    """Bytes out of a few: numpy packs by deflate, which bounds how many."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("pictures.npy", npy((1000,), bytes(1000)))


def lzma(path: Path) -> None:
    packed(path, zipfile.ZIP_LZMA)


def bzip2(path: Path) -> None:
    packed(path, zipfile.ZIP_BZIP2)


DAMAGES = [lying, objects, lying_size, truncated, flipped, unfinished, lzma, bzip2]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_asks_for_no_memory(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "x.npz"
    damage(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFile, match=r"x\.npz is damaged"):
        read_arrays(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a/b": np.arange(6).reshape(2, 3), "text": np.array(["é", "b"]), "none": np.empty(0)}
    write_arrays(tmp_path / "x.npz", arrays)
    found = read_arrays(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[key], arrays[key]) for key in arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
