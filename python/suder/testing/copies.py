"""Copies of the model: what training reaches and what not, and what a file brings back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suder.models.base import UnifiedModel
from suder.models.checkpoint_files import FLOATS
from suder.testing.findings import Findings, Skipped, some
from suder.testing.subject import Subject, trained


def frozen_copy(subject: Subject, found: Findings) -> None:
    """a frozen copy keeps its numbers while the model is trained, and shares no trained weight"""
    model = subject.model
    twin = model.frozen_copy()
    before = subject.logprob()
    found.same("the copy's log p", subject.logprob(twin), before)
    asking = [name for name, one in named(twin) if one.requires_grad]
    found.holds(not asking, f"the copy has weights that ask for gradients: {some(asking)}")
    learnt = {_place(one) for one in model.trainable_parameters()}
    shared = [name for name, one in named(twin) if _place(one) in learnt]
    found.holds(not shared, f"the copy shares weights that are trained: {some(shared)}")
    with trained(model.trainable_parameters()):
        found.same("the copy's log p after the model was trained", subject.logprob(twin), before)
        found.differ("the model's log p after it was trained", subject.logprob(), before)
    own = [
        one for one in twin.parameters() if _place(one) not in set(map(_place, model.parameters()))
    ]
    with trained(own):
        found.same("the model's log p after its copy was changed", subject.logprob(), before)


def inference_copy(subject: Subject, found: Findings) -> None:
    """the copy that draws follows the model when it is refreshed, in place"""
    model = subject.model
    narrow = model.dtype if model.dtype.itemsize == 2 else torch.bfloat16
    with torch.autocast(model.device.type, narrow):
        twin, refresh = model.inference_copy(narrow)
        refresh()
        before = subject.logprob(twin)
        found.close("the copy against the model", before, subject.logprob(), narrow)
        places = [_place(one) for one in twin.parameters()]
        with trained(model.trainable_parameters()):
            refresh()
            after = subject.logprob(twin)
            anew, refresh_anew = model.inference_copy(narrow)
            refresh_anew()
            found.differ("the copy's log p after training and refresh", after, before)
            found.same("a refreshed copy against a new one", after, subject.logprob(anew))
        found.holds(
            places == [_place(one) for one in twin.parameters()],
            "refresh moved weights of the copy; recorded steps would read the old ones",
        )
        refresh()
        found.same("the copy of the first weights again", subject.logprob(twin), before)


def save_and_load(subject: Subject, found: Findings) -> None:
    """what `save` writes and `load` reads is the same model: log p, VQ tokens and ids"""
    model = subject.model
    with tempfile.TemporaryDirectory(prefix="suder-check-") as folder:
        model.save(folder)
        wide = _narrowest(Path(folder)).itemsize >= model.dtype.itemsize
        again = subject.load(Path(folder))
        expected = subject.logprob()
        with model.computing():
            got = subject.logprob(again)
        # Merged adapters are another sum, and narrower files round; else not a bit may change.
        if wide and not model.has_adapters():
            found.same("log p of the loaded model", got, expected)
        else:
            dtype = torch.bfloat16 if not wide else subject.dtype
            found.close("the loaded model against the saved one", got, expected, dtype)
        apart = (again.encode(again.pixels(subject.images)) != subject.codes).double().mean()
        found.holds(
            bool(apart == 0) or (not wide and bool(apart < 0.2)),
            f"{float(apart):.1%} of the pictures' VQ tokens are others after loading",
        )
        same = map(torch.equal, again.tokenize(subject.prompts), model.tokenize(subject.prompts))
        found.holds(all(same), "texts have other ids after loading")


def lora(subject: Subject, found: Findings) -> None:
    """adapters begin at the base, change what they should, come off again, and are saved merged"""
    model = subject.model
    if find_spec("peft") is None:
        raise Skipped("peft is not installed: pip install 'suder[lora]'")
    if model.has_adapters():
        raise Skipped("the model has adapters already; check the one without")
    before = subject.logprob()
    adapted = model.frozen_copy()
    adapted.add_lora(subject.lora, 0)
    weights = adapted.trainable_parameters()
    found.holds(bool(weights), "add_lora leaves nothing to be trained")
    found.holds(adapted.has_adapters(), "has_adapters says there are none after add_lora")
    found.same("log p with new adapters, which are 0", subject.logprob(adapted), before)
    for weight in weights:
        torch.nn.init.normal_(weight, 0.0, 0.05, generator=_generator(weight))
    with_them = subject.logprob(adapted)
    found.differ("log p with trained adapters", with_them, before)
    with adapted.without_adapters():
        found.same("log p with adapters switched off", subject.logprob(adapted), before)
    found.same("log p with adapters on again", subject.logprob(adapted), with_them)
    found.same("log p of the model that was copied", subject.logprob(), before)
    with tempfile.TemporaryDirectory(prefix="suder-check-") as folder:
        adapted.save(folder)
        merged = subject.load(Path(folder))
        with model.computing():
            got = subject.logprob(merged)
        narrow = min(_narrowest(Path(folder)), subject.dtype, key=lambda dtype: dtype.itemsize)
        found.close("saved with adapters merged, and loaded", got, with_them, narrow)


def named(model: UnifiedModel) -> Iterable[tuple[str, Tensor]]:
    module: Any = model
    return list(module.named_parameters())


def _place(weight: Tensor) -> int:
    return weight.untyped_storage().data_ptr()


def _generator(weight: Tensor) -> torch.Generator:
    return torch.Generator(weight.device).manual_seed(0)


def _narrowest(folder: Path) -> torch.dtype:
    """Of the floating-point tensors in a checkpoint's files."""
    from safetensors import safe_open

    found = [torch.float32]
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                found.append(FLOATS.get(opened.get_slice(name).get_dtype(), torch.float32))
    return min(found, key=lambda dtype: dtype.itemsize)
