"""No space, in whatever write: an error that says what and how much, and nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import suder.storage.files
import suder.storage.folders
from suder.run import board
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.storage.files import WriteError, read_jsonl, read_tensors

Make = Callable[..., TrainConfig]
SETTINGS = ("rounds=2", "checkpoint.every=2", "sampling.max_new_tokens=2", "guard.every=2")
# Each kind of file that a run writes, and the how-manieth write of it fails.
WRITES = [
    "versions.json", "config.yaml", "dropped.jsonl 3", "sample.safetensors", "select.safetensors",
    "events", "metrics.jsonl 3", "000000.safetensors", "000002.safetensors", "best", "000002",
    "model", "summary.json",
]  # fmt: skip


def go_on(config: TrainConfig) -> dict[str, Any]:
    begun = (Path(config.output) / "config.yaml").exists()
    trainer = Trainer.resume(config.output, quiet=True) if begun else Trainer(config, quiet=True)
    return trainer.run()


def result(run: str) -> tuple[bytes, list[Any], list[Any]]:
    rows = read_jsonl(Path(run) / "metrics.jsonl")
    return (
        (Path(run) / "model" / "model.safetensors").read_bytes(),
        [row["reward/generation"] for row in rows[1:]],
        read_jsonl(Path(run) / "data" / "dropped.jsonl"),
    )


def check_whole(run: Path) -> None:
    """Whatever has its name can be read to the end."""
    assert not [*run.rglob("*.partial"), *run.rglob("*.old")]
    for path in [*run.glob("rounds/*/*.safetensors"), *run.glob("state/*")]:
        read_tensors(path)
    for path in run.rglob("*.jsonl"):
        assert not path.read_bytes() or path.read_bytes().endswith(b"\n")
        read_jsonl(path)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return {}


def fail_at(patch: pytest.MonkeyPatch, wanted: str) -> list[str]:
    """Has one write to a file or folder of that name stop half-way; lists what it hit."""
    name, _, count = wanted.partition(" ")
    left, hit = iter(range(int(count or 1) - 1, -1, -1)), []
    files = suder.storage.files
    write, save, text = os.write, files.save_file, Path.write_bytes

    def due(path: Path) -> bool:
        here = path.name.removesuffix(".partial")
        is_it = here == name or (name == "events" and here.startswith("events."))
        if is_it and next(left, 1) == 0:
            hit.append(str(path))
            return True
        return False

    def full() -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append(path: Path, data: bytes) -> None:
        if due(path):
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(os, "write", half_of(iter([len(data) // 2])))
                honest(path, data)
        honest(path, data)

    def half_of(lengths: Iterator[int]) -> Any:
        def writing(descriptor: int, data: Any) -> int:
            for length in lengths:
                return write(descriptor, bytes(data)[:length])
            raise full()

        return writing

    def saving(tensors: Any, path: Path, **options: Any) -> None:
        save(tensors, path, **options)
        if due(path):
            os.truncate(path, path.stat().st_size // 2)
            raise files.SafetensorError("Error: I/O error: No space left on device (os error 28)")

    def writing_text(path: Path, data: bytes) -> int:
        if due(path):
            text(path, data[: len(data) // 2])
            raise full()
        return text(path, data)

    def syncing(path: Path) -> None:
        if path.parent.name == f"{name}.partial" and due(path.parent):
            raise full()
        sync(path)

    honest, sync = files.append, files.sync
    patch.setattr(files, "append", append)
    patch.setattr(board, "append", append)
    patch.setattr(files, "save_file", saving)
    patch.setattr(Path, "write_bytes", writing_text)
    patch.setattr(suder.storage.folders, "sync", syncing)
    return hit


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_any_write_may_fail(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, expected: dict[str, Any], write: str
) -> None:
    if not expected:
        whole = make_config(*SETTINGS, output="whole")
        Trainer(whole, quiet=True).run()
        expected["result"] = result(whole.output)
    config = make_config(*SETTINGS)
    run = Path(config.output)
    with monkeypatch.context() as patch:
        hit = fail_at(patch, write)
        with pytest.raises(WriteError, match=r"no space left for .*: it takes [\d,]+ bytes"):
            go_on(config)
    assert len(hit) == 1
    assert run.exists() == (run / "config.yaml").exists()  # a start that failed leaves nothing
    check_whole(run)
    go_on(config)
    assert result(config.output) == expected["result"]


@pytest.fixture(params=["small disk", "small files"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Any]]:
    """A place for a run where space ends soon, and what frees it: the system's own errors."""
    if request.param == "small files":
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
        try:
            yield tmp_path / "run", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "suder", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; `small files` is the same without")
    try:
        grow = ["mount", "-o", "remount,size=64m", str(disk)]
        yield disk / "run", lambda: subprocess.run(grow, check=True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_full_for_real(make_config: Make, small: tuple[Path, Any]) -> None:
    whole = make_config(*SETTINGS, output="whole")
    run, free = small
    config = make_config(*SETTINGS).model_copy(update={"output": str(run)})
    with pytest.raises(
        WriteError, match=rf"no space left for {run}/.*: it takes [1-9][\d,]+ bytes"
    ):
        go_on(config)
    check_whole(run)
    free()
    Trainer(whole, quiet=True).run()
    go_on(config)
    assert result(config.output) == result(whole.output)


def test_no_space_for_temporary_files(make_config: Make) -> None:
    """The start model is described in files of the system's temporary folder."""
    config = make_config()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WriteError, match="no space left for"):
            Trainer(config, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not Path(config.output).exists()
