"""One writer a folder, nothing of the user's, and a full disk that leaves what was there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suder.storage.files import WriteError, append, write_text
from suder.storage.folders import (
    FolderError,
    claim,
    is_ours,
    make_folder,
    refuse_foreign,
    repair_folder,
    sole_writer,
    write_folder,
)

HOLDER = """
import sys, time
from pathlib import Path
from suder.storage.folders import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(FolderError, match=rf"in use by process {holder.pid} on .*, since 20"),
            sole_writer(tmp_path / "run"),
        ):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with sole_writer(tmp_path / "run"):
        pass


def test_folder_of_the_users_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "theirs" / "model").mkdir(parents=True)
    with pytest.raises(FolderError, match=r"theirs is not empty .*model is in it"):
        claim(tmp_path / "theirs")
    assert not is_ours(tmp_path / "theirs")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError, match="is a file"):
        refuse_foreign(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "new", tmp_path / "empty"):
        claim(folder)
        assert is_ours(folder)


@pytest.mark.parametrize("suffix", ["", ".partial", ".old"])
def test_nothing_is_written_or_deleted_through_a_link(tmp_path: Path, suffix: str) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "weights").write_text("theirs")
    best = tmp_path / "best"
    (tmp_path / f"best{suffix}").symlink_to(theirs)
    for act in (
        lambda: write_folder(best, lambda folder: (folder / "weights").write_text("ours")),
        lambda: repair_folder(best),
        lambda: make_folder(tmp_path / f"best{suffix}"),
    ):
        with pytest.raises(FolderError, match="is a symbolic link"):
            act()
    assert (theirs / "weights").read_text() == "theirs"


def test_links_in_the_place_of_files(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    for name in ("a", "b.partial", "b", "c"):
        (tmp_path / name).symlink_to(theirs)
    write_text(tmp_path / "a", "ours")
    write_text(tmp_path / "b", "ours")
    with pytest.raises(WriteError, match=r"cannot write .*/c: Too many levels of symbolic links"):
        append(tmp_path / "c", b"ours")
    assert theirs.read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "ours"


def full(folder: Path) -> None:
    """As safetensors and tokenizers say it."""
    (folder / "half").write_text("x")
    raise RuntimeError("Error while serializing: I/O error: No space left (os error 28)")


def full_of_python(folder: Path) -> None:
    (folder / "half").write_text("x")
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@pytest.mark.parametrize("fill", [full, full_of_python])
def test_full_disk_leaves_the_old_folder(tmp_path: Path, fill: Callable[[Path], Any]) -> None:
    best = tmp_path / "best"
    write_folder(best, lambda folder: (folder / "weights").write_text("old"))
    with pytest.raises(WriteError, match=r"no space left for .*/best: it takes 1,234 bytes"):
        write_folder(best, fill, 1234)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [
        "best",
        "best/weights",
    ]


def test_append_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, b"one\n")
    write = os.write
    short = iter([3])

    def filling(descriptor: int, data: Any) -> int:
        for length in short:
            return write(descriptor, data[:length])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(WriteError, match=r"no space left for .*metrics\.jsonl: it takes 8 bytes"):
        append(path, b"two two\n")
    assert path.read_bytes() == b"one\n"
