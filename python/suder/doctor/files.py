"""The files of a checkpoint, and its weights once they are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from suder.doctor.findings import Finding
from suder.doctor.patient import Patient
from suder.models.checkpoint_files import FLOATS, PICKLES, Tensor, read_config, read_headers
from suder.models.find import find_model
from suder.models.load import load_model
from suder.models.usable import check_no_run
from suder.run.room import size
from suder.testing.findings import some

LARGE = 1e4  # no weight of a trained network is


def files(patient: Patient) -> Iterator[Finding]:
    """The folder's files and their dtypes; loads the model."""
    try:
        folder, others = find_model(patient.name)
        check_no_run(folder)
    except (OSError, ValueError) as error:
        yield _unreadable(error)
        return
    headers: dict[str, Tensor] = {}
    broken = False
    for read in (lambda: read_config(folder), lambda: headers.update(read_headers(folder, others))):
        try:
            read()
        except (OSError, ValueError) as error:  # of both, for both may be mended at once
            broken = True
            yield _unreadable(error)
    if broken:
        return
    dtypes = Counter(one.dtype for one in headers.values())
    weights = sum(_count(one.shape) for one in headers.values())
    on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    told = ", ".join(f"{count} tensors {name}" for name, count in dtypes.most_common())
    yield Finding(
        "fine",
        f"{folder}: {weights:,} weights, {told}, {size(on_disk)}",
        values={
            "folder": str(folder),
            "weights": weights,
            "dtypes": dict(dtypes),
            "bytes": on_disk,
        },
    )
    if len([name for name in dtypes if name in FLOATS]) > 1:
        yield Finding(
            "odd",
            f"weights of more than one dtype ({', '.join(dtypes)}); they are saved as the widest",
            "set checkpoint.dtype where the saved model should have another",
        )
    pickles = [one.name for one in folder.iterdir() if one.name.endswith(PICKLES)]
    if pickles:
        yield Finding("fine", f"pickles beside the safetensors are not read: {some(pickles)}")
    try:
        patient.loaded = load_model(patient.name, patient.device, patient.dtype)
    except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
        yield _unreadable(error)
        return
    yield Finding("fine", f"loads as {type(patient.model).__name__}, whole: no tensor more or less")
    yield from _numbers(patient)


def _numbers(patient: Patient) -> Iterator[Finding]:
    wild, vast, still = [], [], []
    for name, weight in patient.model.state_dict().items():
        if not weight.is_floating_point() or not weight.numel():
            continue
        largest = float(torch.linalg.vector_norm(weight.float(), torch.inf))  # NaN goes through
        if not largest < torch.inf:
            wild.append(name)
        elif largest > LARGE:
            vast.append(f"{name} ({largest:.3g})")
        elif largest == 0 and weight.ndim > 1:
            still.append(name)
    if wild:
        yield Finding(
            "wrong",
            f"weights are NaN or infinite in {len(wild)} tensors: {some(wild)}",
            "take the checkpoint before the fault, or download it again",
            {"not_finite": wild},
        )
    if vast:
        yield Finding("odd", f"weights above {LARGE:g} in {some(vast)}")
    if still:
        yield Finding("odd", f"matrices that are all zero: {some(still)}")
    if not wild + vast + still:
        yield Finding("fine", "every weight is finite, none is vast, no matrix is zero")


def _unreadable(error: Exception) -> Finding:
    text = str(error).removeprefix("load_model: ") or type(error).__name__
    return Finding("wrong", text, "nothing else can be examined until it loads")


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
