"""Reading what a user names: regular files only, of a bounded size, and errors safe to print."""

from __future__ import annotations

import os
import stat

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
        # A pipe without a writer must not keep us at the door either.
        number = os.open(os.fspath(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(number, "rb") as file:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{named(path)}: not a regular file")
            if found.st_size <= limit:
                data = file.read(limit + 1)
                if len(data) <= limit:
                    return data
            size = max(found.st_size, limit + 1)
            raise DataError(f"{named(path)}: {size} bytes, and at most {limit} are read")
    except DataError:
        raise
    except IsADirectoryError:
        raise DataError(f"{named(path)}: a folder, not a file") from None
    except OSError as error:
        raise DataError(f"{named(path)}: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:  # a NUL in the name; no name at all
        raise DataError(f"{named(path)}: no name of a file ({error})") from None
