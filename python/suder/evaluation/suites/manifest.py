"""The folder of a suite's pictures: whose it is, and what they were drawn with."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from suder.evaluation.suites.layout import MANIFEST, Item
from suder.storage.files import WriteError, json_text, read_object, told
from suder.storage.folders import FolderError, refuse_links
from suder.storage.shown import named

TOLD = ("model", "versions", "noise")  # of where and how, which another process may say otherwise


def claim_folder(out: Path, manifest: dict[str, Any], items: Sequence[Item]) -> None:
    """Makes the folder with its manifest, or takes one that other processes or an earlier one made.

    Raises:
        FolderError: it holds something else, pictures drawn with other settings, or, where the
            scorer counts all there is, a file that is none of the suite's.
    """
    refuse_links((out,))
    if out.exists() and not out.is_dir():
        raise FolderError(f"--output: {named(out)} is a file; it takes a folder")
    file = out / MANIFEST
    with told(file, 4096):
        out.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            ours = MANIFEST + "."  # another process's, which is about to get its name
            others = [path.name for path in out.iterdir() if not path.name.startswith(ours)]
            if others and not file.exists():
                raise FolderError(
                    f"--output: {named(out)} is not empty and has no {MANIFEST}: "
                    f"{named(others[0])} is in it, for one; take a new or an empty folder"
                )
            _write_once(file, json_text(manifest, indent=1) + "\n")
    kept = read_object(file)
    other = sorted(
        key for key in {*kept, *manifest} - {*TOLD} if kept.get(key) != manifest.get(key)
    )
    if other:
        said = ", ".join(f"{key} {kept.get(key)!r} there and {manifest.get(key)!r} now"
                         for key in other)  # fmt: skip
        raise FolderError(
            f"--output: {named(out)} holds what was made with other settings: {said}; take another "
            "folder"
        )
    _refuse_strangers(out, items)


def _write_once(file: Path, text: str) -> None:
    """Whole or not at all, and never in the place of another process's."""
    partial = file.with_name(f"{file.name}.{secrets.token_hex(8)}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        with suppress(FileExistsError):
            os.link(partial, file)
    except OSError as error:
        if file.exists():
            return
        raise WriteError(f"cannot write {file}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _refuse_strangers(out: Path, items: Sequence[Item]) -> None:
    expected = {out / name for item in items for name in item.pictures}
    for folder in sorted({path.parent for path in expected}):
        refuse_links((folder,))
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.with_name(path.name.removesuffix(".partial")) not in expected:
                raise FolderError(
                    f"--output: {named(path)} is none of the suite's pictures, and its scorer "
                    "would count it; move it elsewhere"
                )
