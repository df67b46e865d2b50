"""Writing so that a reader never meets half a file, and seeds that depend on nothing else.

Every write of a run goes through `whole` or `append`. What they promise: a process killed at any
moment, or a disk that is full, leaves the file as it was or as it was to be (an appended line may
be cut off). After a power cut that holds for what is written `durable`; anything else may be lost
or torn, which reading finds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from suder.storage.fingerprint import hash_tensors
from suder.storage.regular import NotRegular, open_regular, read_regular

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LARGEST = 1 << 24  # bytes of a JSON file, and
LONGEST = 1 << 28  # of one of lines, that are read: it may be anybody's
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP)


class WriteError(OSError):
    """What could not be written, why, and how many bytes it takes."""


class DamagedFile(ValueError):
    """A file that is not what it was when it was written, or none; the message says where."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed from a run's seed, round, phase and direction, the same on every machine."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextmanager
def whole(path: Path, size: int, durable: bool = True) -> Iterator[Path]:
    """Gives a name to write to, which becomes `path` at the end; after an error nothing is left.

    Args:
        size: bytes that will be written, for the message if they cannot be.
        durable: on the disk before it gets its name, so that a power cut leaves old or new.

    Raises:
        WriteError: the disk is full, or writing failed otherwise.
    """
    partial = path.with_name(path.name + ".partial")
    with told(path, size):
        try:
            mode = usual_mode(partial)
            yield partial
            set_mode(partial, mode)
            if durable:
                sync(partial)
            os.replace(partial, path)
            if durable:
                sync(path.parent)
        except (Exception, KeyboardInterrupt):
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def told(path: Path, size: int) -> Iterator[None]:
    """Turns a failed write inside, in Python or in a library's Rust, into a `WriteError`."""
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        code = _errno(error)
        if code in FULL:
            raise WriteError(f"no space left for {path}: {_space(path, size)}") from error
        if code in FORBIDDEN:
            raise WriteError(f"cannot write {path}: {os.strerror(code)}") from error
        raise


def usual_mode(unused: Path) -> int:
    """The permissions that a new file gets, by the umask or its folder; `unused` is none after.

    safetensors makes files for their owner alone, and nobody else could read a model.
    """
    unused.unlink(missing_ok=True)  # of an earlier life; and a link is not followed
    unused.touch()
    mode = stat.S_IMODE(unused.stat().st_mode)
    unused.unlink()
    return mode


def set_mode(file: Path, mode: int) -> None:
    if stat.S_IMODE(file.stat().st_mode) != mode:  # else a FAT disk, which has none, would refuse
        file.chmod(mode)


def sync(path: Path) -> None:
    """Has what was written to a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    with whole(path, len(data)) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def append(path: Path, data: bytes) -> None:
    """Adds to the end of a file, all or nothing as long as the process lives.

    Raises:
        WriteError: it did not fit; the file is as it was.
    """
    with told(path, len(data)):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            except (Exception, KeyboardInterrupt):
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: NaN and infinities are no JSON, and no result either.

    Raises:
        ValueError: there is one in `value`; see `finite`.
    """
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def finite(tree: Any) -> Any:
    """The tree with None for every number that is not finite, which JSON has no word for."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def write_json(path: Path, value: Any) -> None:
    write_text(path, json_text(value, indent=1) + "\n")


def read_json(path: Path, limit: int = LARGEST) -> Any:
    """The value in a file of at most `limit` bytes.

    Raises:
        DamagedFile: with the line, where it is no JSON; or it is no regular file, or too large.
    """
    data = _read(path, limit)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DamagedFile(f"{path}{line} is not JSON: {error}") from None


def read_object(path: Path, limit: int = LARGEST) -> dict[str, Any]:
    """A JSON file that holds `{...}`; raises DamagedFile where it does not."""
    value = read_json(path, limit)
    if not isinstance(value, dict):
        raise DamagedFile(f"{path} holds no JSON object, but {type(value).__name__}")
    return value


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, _lines(rows))


def append_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    append(path, _lines(rows).encode())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The file's rows; none if there is no file. A last line cut off by a kill is left out.

    Raises:
        DamagedFile: naming the first line that is no JSON object; `read_jsonl_left` passes over it.
    """
    rows, faults = read_jsonl_left(path)
    if faults:
        raise DamagedFile(faults[0])
    return rows


def read_jsonl_left(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that are whole, and for each line that is not, what it is, with file and line.

    Raises:
        DamagedFile: it is no regular file, or too large.
    """
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    lines = _read(path, LONGEST).split(b"\n") if path.exists() else []
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            why = "" if isinstance(row, dict) else f"no JSON object, but {type(row).__name__}"
        except (ValueError, RecursionError) as error:
            why = f"not JSON: {error}"
        if why:
            faults.append(f"{path}, line {number}: {why}")
        else:
            rows.append(row)
    return rows, faults


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any], durable: bool = False
) -> None:
    """Tensors and, in the same file and so in the same instant, a JSON value beside them.

    A hash of both is in the file, too, for `read_tensors` to check.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    size = sum(tensor.nbytes for tensor in plain.values())
    text = json_text(meta)
    note = {"json": text, "sha256": hash_tensors(plain.items(), text)}
    with whole(path, size, durable) as partial:
        save_file(plain, partial, metadata=note)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `write_tensors` wrote.

    Raises:
        DamagedFile: a bit of it is not what was written, or it is another kind of file.
    """
    with _damage_of(path):
        os.close(open_regular(path))  # the library would wait at a pipe
    try:
        with safe_open(path, framework="pt") as file:
            note = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
    if not {"json", "sha256"} <= note.keys():
        raise DamagedFile(f"{path} was not written by this version of suder: it has no checksum")
    if note["sha256"] != hash_tensors(tensors.items(), note["json"]):
        raise DamagedFile(f"{path} is damaged: its checksum does not agree with what is in it")
    try:
        return tensors, dict(json.loads(note["json"]))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path}: the note in it is no JSON object: {error}") from None


def _read(path: Path, limit: int) -> bytes:
    with _damage_of(path):
        return read_regular(path, limit)


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    try:
        yield
    except NotRegular as error:
        raise DamagedFile(f"{path}: {error}") from None


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json_text(row) + "\n" for row in rows)


def _errno(error: Exception) -> int:
    """Of a failed write, or 0; safetensors and tokenizers say it in the words of Rust alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"(?:os error|Errno) (\d+)", str(error))
    return int(found[1]) if found else 0


def _space(path: Path, size: int) -> str:
    try:
        free = f"{shutil.disk_usage(path.parent).free:,}"
    except OSError:
        free = "too few"
    return f"it takes {size:,} bytes and {free} are free there"
