"""NumPy archives (.npz) written whole, and read without believing the sizes that they declare."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from suder.storage.files import DamagedFile, whole

LIMIT = 1 << 28  # bytes of all arrays of a file
MOST = 64  # arrays
KINDS = "bUuif"  # booleans, text, numbers: nothing that runs code when it is read
DEFLATE = 1032  # to 1: no deflated stream holds more
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises WriteError where there is no space; see `whole`."""
    size = sum(array.nbytes for array in arrays.values())
    with whole(path, size) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The archive's arrays; nothing of it is run, and no more is allocated than it can hold.

    Raises:
        FileNotFoundError: there is no regular file at `path`.
        DamagedFile: it is no whole archive of plain arrays, or declares more than is there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no regular file")
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if len(archive.infolist()) > MOST or total > LIMIT:
                raise ValueError(
                    f"it declares {len(archive.infolist())} arrays of {total:,} bytes; "
                    f"at most {MOST} of {LIMIT:,} are read"
                )
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{name} is packed in a way that numpy does not use")
                if info.file_size > DEFLATE * path.stat().st_size:
                    raise ValueError(f"{name} declares {info.file_size:,} bytes, more than it has")
                with archive.open(info) as file:
                    _check_header(file, info.file_size, name)
                with archive.open(info) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except (
        # A password or an unknown compression is a RuntimeError, a broken header a SyntaxError.
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        EOFError,
        RuntimeError,
        SyntaxError,
        tokenize.TokenError,
    ) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
    return arrays


def _check_header(file: IO[bytes], size: int, name: str) -> None:
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise ValueError(f"{name} is of npy version {version}")
    shape, _, dtype = READERS[version](file)
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} declares the shape {shape}")
    declared = math.prod(shape) * dtype.itemsize
    if dtype.kind not in KINDS or dtype.hasobject or file.tell() + declared != size:
        raise ValueError(f"{name} declares {dtype} {shape}, which is not what is there")
