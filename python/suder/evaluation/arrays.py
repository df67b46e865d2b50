"""Reading .npz files of anybody's: what they declare is checked before memory is asked for."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path

import numpy as np

LARGEST = 1 << 28  # bytes of all arrays together
MOST = 64  # arrays
_KINDS = "bUuif"  # booleans, text, numbers: nothing that runs code when it is read


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file that `numpy.savez_compressed` wrote.

    Raises:
        FileNotFoundError: there is no regular file at `path`.
        ValueError: it is no such file, is damaged, or declares more than it holds or than is read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no regular file")
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > MOST or total > LARGEST:
                raise ValueError(
                    f"{len(members)} arrays of {total} bytes; at most {MOST} of {LARGEST} are read"
                )
            return {one.filename.removesuffix(".npy"): _read(file, one) for one in members}
    # A password or an unknown compression is a RuntimeError, a broken header a SyntaxError.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError, SyntaxError) as bad:
        raise ValueError(f"{path}: not readable as arrays: {bad}") from None


def _read(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with file.open(member) as data:
        version = np.lib.format.read_magic(data)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(data)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(data)
        else:
            raise ValueError(f"{member.filename}: array format {version}")
        if dtype.kind not in _KINDS or dtype.hasobject:
            raise ValueError(f"{member.filename}: holds {dtype}")
        content = data.read()
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(content):
            raise ValueError(
                f"{member.filename}: declares {dtype} {shape} and holds {len(content)} bytes"
            )
    array = np.frombuffer(content, dtype) if dtype.itemsize else np.zeros(prod(shape), dtype)
    return array.reshape(shape, order="F" if fortran else "C")
