"""A warm start from a recipe: VQ model, then warm-up, then one folder in Hugging Face format.

A finished stage is kept beside the output folder, so that a run that was killed begins again at the
stage it was in; the output folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.models.quiet import without_bars
from suder.pretrain.architecture import build_janus
from suder.pretrain.journal import Journal
from suder.pretrain.recipe import Recipe, dump_recipe
from suder.pretrain.vq import decode, encode, to_pixels, train_vq
from suder.pretrain.warmup import prepare_pairs, train_warmup
from suder.storage.files import (
    read_tensors,
    write_json,
    write_jsonl,
    write_tensors,
    write_text,
)
from suder.storage.fingerprint import versions
from suder.storage.folders import write_folder
from suder.world.catalogue import world

HELD_OUT = 256  # fresh pictures that the log's last reconstruction error is of


def pretrain(recipe: Recipe, out: Path, quiet: bool = False) -> Path:
    """Make the warm start in the folder `out` and return it.

    Besides the model the folder holds `recipe.yaml`, `versions.json`, `SOURCES.txt` where the
    world's pictures are other people's, and `log.jsonl`, whose last line has the SHA-256 of the
    weights: the same recipe and versions on the same kind of processor give the same. Raises
    FileExistsError if `out` has something in it.
    """
    kept = out.with_name(out.name + ".stages")
    _check_ours(out, kept)
    words = world(recipe.world).words
    model, processor = build_janus(words, seed=recipe.seed, sizes=recipe.sizes)
    kept.mkdir(parents=True, exist_ok=True)
    with torch_threads(recipe.threads), Journal(quiet) as journal:
        for name, run in STAGES.items():
            file = kept / f"{name}.safetensors"
            key = stage_key(recipe, name)
            if not restore(file, key, model, journal):
                run(recipe, model, processor, journal)
                write_tensors(file, model.state_dict(), {"key": key, "log": journal.rows})
    journal.rows.append({"stage": "done", "sha256": weights_digest(model)})

    def fill(folder: Path) -> None:
        with without_bars():
            model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
        write_json(folder / "versions.json", versions())
        write_jsonl(folder / "log.jsonl", journal.rows)
        if sources := world(recipe.world).sources:
            write_text(folder / "SOURCES.txt", sources)

    write_folder(out, fill)
    for name in STAGE_FILES:
        (kept / name).unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it by now
        kept.rmdir()
    return out


def _check_ours(out: Path, kept: Path) -> None:
    """Raises FileExistsError where something of the user's is in the way."""
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is no folder"
        raise FileExistsError(f"{out} {what}; choose another --output or remove it")
    there = os.path.lexists(kept)
    if there and (not kept.is_dir() or {one.name for one in kept.iterdir()} - STAGE_FILES):
        raise FileExistsError(
            f"{kept}, where finished stages are kept, holds other files; choose another --out"
        )


def vq_stage(
    recipe: Recipe,
    model: JanusForConditionalGeneration,
    processor: JanusProcessor,
    journal: Journal,
) -> None:
    """Trains the VQ model on pictures without captions, and measures it on fresh ones."""
    pictures = world(recipe.world).pictures
    vq = model.model.vqmodel
    known = torch.from_numpy(pictures(recipe.vq.pictures, recipe.seed))
    with journal.stage("vq", recipe.vq.steps) as log:
        train_vq(vq, known, recipe.vq, seed=recipe.seed, log=log)
    fresh = to_pixels(torch.from_numpy(pictures(HELD_OUT, recipe.seed + 1)))
    with torch.no_grad():
        error = (decode(vq, *encode(vq, fresh)) - fresh).square().mean().item()
    journal.rows.append({"stage": "vq", "fresh_squared_error": float(f"{error:.6g}")})


def warmup_stage(
    recipe: Recipe,
    model: JanusForConditionalGeneration,
    processor: JanusProcessor,
    journal: Journal,
) -> None:
    """Trains both directions on pairs of the supervised split."""
    pairs = world(recipe.world).pairs
    pictures, captions = pairs("supervised", recipe.warmup.pairs, recipe.seed)
    prepared = prepare_pairs(model, processor, torch.from_numpy(pictures), captions)
    with journal.stage("warmup", recipe.warmup.steps) as log:
        train_warmup(model, processor, prepared, recipe.warmup, seed=recipe.seed, log=log)


STAGES = {"vq": vq_stage, "warmup": warmup_stage}
STAGE_FILES = {f"{name}.safetensors{end}" for name in STAGES for end in ("", ".partial")}


def restore(
    file: Path, key: dict[str, object], model: JanusForConditionalGeneration, journal: Journal
) -> bool:
    """Whether the stage's result was there, made by the same settings; if so it is loaded."""
    if not file.exists():
        return False
    tensors, meta = read_tensors(file)
    if meta["key"] != key:
        return False
    model.load_state_dict(tensors)
    journal.rows[:] = meta["log"]
    return True


def stage_key(recipe: Recipe, stage: str) -> dict[str, object]:
    """What decides a stage's result. The VQ model is the same whatever the warm-up after it."""
    settings = recipe.model_dump(mode="json", exclude={"warmup"} if stage == "vq" else None)
    return {"stage": stage, "recipe": settings, "versions": versions()}


def weights_digest(model: JanusForConditionalGeneration) -> str:
    """SHA-256 over all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sums over threads differ in their last bits with the number of threads, so it is fixed."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
