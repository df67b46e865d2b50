"""Reading what a user names: regular files only, of a bounded size, and errors safe to print."""

from __future__ import annotations

import os

from suder.storage.regular import NotRegular, read_regular
from suder.storage.shown import named


class DataError(ValueError):
    """Inputs that cannot be used; the message says what was found and where."""


def read_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a regular file.

    Raises:
        DataError: there is none of that name, it is something else (a pipe or device could keep us
            for ever), it may not be read, or it holds more than `limit` bytes.
    """
    try:
        return read_regular(path, limit)
    except NotRegular as error:
        raise DataError(f"{named(path)}: {error}") from None
    except OSError as error:
        raise DataError(f"{named(path)}: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:  # a NUL in the name; no name at all
        raise DataError(f"{named(path)}: no name of a file ({error})") from None
