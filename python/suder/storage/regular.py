"""Reading regular files only, and no more of them than was asked for."""

from __future__ import annotations

import os
import stat


class NotRegular(ValueError):
    """What is there instead of a regular file of a bounded size; without the path."""


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor for reading; a pipe or device, which could keep us for ever, is none.

    Raises:
        NotRegular: it is a folder, pipe, device or socket.
        OSError: there is none of that name, or it may not be read.
    """
    # A pipe without a writer must not keep us at the door either.
    number = os.open(os.fspath(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return number
    os.close(number)
    raise NotRegular("a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file")


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a regular file.

    Raises:
        NotRegular: also if it holds more than `limit` bytes.
        OSError: as `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            data = file.read(limit + 1)  # it may grow meanwhile
            if len(data) <= limit:
                return data
    raise NotRegular(f"{max(size, limit + 1)} bytes, and at most {limit} are read")
