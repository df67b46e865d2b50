"""Folders replaced whole, one writer a folder, and nothing of the user's touched."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from suder.storage.files import set_mode, sync, told, usual_mode

MARK = ".suder"  # in a folder that is ours; its lock says who is writing there


class FolderError(ValueError):
    """A folder that must not be written to; the message says why and what to do."""


def write_folder(path: Path, fill: Callable[[Path], object], size: int = 0) -> None:
    """Replaces the folder `path` by what `fill(folder)` writes, all of it or nothing.

    A folder cannot be exchanged in one step, so the old one is moved aside first;
    `repair_folder` brings it back if the program dies between the two renames.

    Args:
        size: bytes that it will take, for the message if they are not there.

    Raises:
        WriteError: the disk is full, or writing failed otherwise; the old folder is there.
        FolderError: `path` is a symbolic link.
    """
    partial, old = _beside(path)
    refuse_links((path, partial, old))
    with told(path, size):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            mode = usual_mode(partial / ".partial")
            fill(partial)
            for inner in partial.rglob("*"):
                if inner.is_file():
                    set_mode(inner, mode)
                sync(inner)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(path, old)
            os.replace(partial, path)
            sync(path.parent)
        except (Exception, KeyboardInterrupt):
            repair_folder(path)
            raise
    shutil.rmtree(old, ignore_errors=True)


def repair_folder(path: Path) -> None:
    """Undoes an exchange of `write_folder` that was cut off half-way."""
    partial, old = _beside(path)
    refuse_links((path, partial, old))
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)


def drop_folder(path: Path) -> None:
    """Deletes the folder, if it is there; a kill leaves all or nothing of it under its name."""
    partial, _ = _beside(path)
    refuse_links((path, partial))
    shutil.rmtree(partial, ignore_errors=True)
    if path.is_dir():
        os.replace(path, partial)
        shutil.rmtree(partial)


def make_folder(path: Path) -> None:
    """The folder `path`, there already or not; never what a symbolic link points to."""
    refuse_links((path,))
    with told(path, 0):
        path.mkdir(parents=True, exist_ok=True)


def refuse_links(paths: Iterable[Path]) -> None:
    """Raises FolderError for the first that is a symbolic link: it may lead to the user's own."""
    for path in paths:
        if path.is_symlink():
            raise FolderError(
                f"{path} is a symbolic link; suder writes and deletes in there and follows none: "
                "put a real folder in its place, or link the folder around it"
            )


def is_ours(folder: Path) -> bool:
    return (folder / MARK).is_file() and not (folder / MARK).is_symlink()


def refuse_foreign(folder: Path) -> None:
    """Raises FolderError if there is something in `folder` and suder did not make it."""
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder} is a file; the output must be a folder")
    if folder.is_dir() and not is_ours(folder) and (found := sorted(folder.iterdir())):
        raise FolderError(
            f"{folder} is not empty and nothing of suder's: {found[0].name} is in it, for one; "
            "choose a folder that is empty or not there yet"
        )


def claim(folder: Path) -> None:
    """Makes `folder`, or takes an empty one, and marks it as ours; see `refuse_foreign`."""
    refuse_foreign(folder)
    with told(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """A lock on the folder, which ends with its process however that dies.

    Raises:
        FolderError: another process has it; the message says which.
    """
    mark = folder / MARK
    refuse_links((mark,))
    if mark.exists() and not mark.is_file():
        raise FolderError(f"{mark} is not a regular file; remove it")
    with mark.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FolderError(f"{folder} is in use by {_holder(file.read(1000))}") from None
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        me = {"process": os.getpid(), "machine": platform.node(), "since": now}
        with told(mark, 100):
            file.truncate(0)
            file.write(json.dumps(me) + "\n")
            file.flush()
        yield


def _holder(text: str) -> str:
    try:
        row = json.loads(text)
        who = f"process {int(row['process'])} on {row['machine']!s}, since {row['since']!s}"
    except (ValueError, KeyError, TypeError):
        return "another process"
    return f"{who}; wait until it is done, or stop that one"


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".partial"), path.with_name(path.name + ".old")
