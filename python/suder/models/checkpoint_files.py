"""What a checkpoint's folder holds, told from its config and from the headers of its weights.

Checked before a byte of memory is asked for: a file may have been damaged, or made to do harm.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from suder.models.families import Family, family_of, known_families

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# Emu3's config holds a map of its 32,768 tokens of pictures, by name.
CONFIG_BYTES, INDEX_BYTES = 1 << 24, 1 << 26
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Numbers of things that are built one by one; each has tensors of its own.
COUNTS = re.compile(r"layers|blocks|depth")
NAMED = 5  # tensors that an error names


class Tensor(NamedTuple):
    """As a header describes it."""

    dtype: str
    shape: tuple[int, ...]


def read_config(folder: Path) -> tuple[Family, Any]:
    """The model's family and its config; no code that it names is run.

    Raises:
        OSError: there is none.
        ValueError: it is of another family, or makes no sense.
    """
    file = folder / CONFIG
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"load_model: {folder} holds a PEFT adapter; load the model that it belongs to, wrap "
            "it by peft.PeftModel.from_pretrained and pass that to the adapter, as suder.Janus"
        )
    if not file.is_file():
        inside = folder / "model"
        hint = f"; did you mean {inside}?" if (inside / CONFIG).is_file() else ""
        raise FileNotFoundError(f"load_model: {folder} holds no model: no {CONFIG} in it{hint}")
    kind = _json(file, CONFIG_BYTES).get("model_type")
    if kind == "multi_modality":
        raise ValueError(
            f"load_model: {folder} is in DeepSeek's own format ('multi_modality'), and suder reads "
            "transformers' ('janus'). The released models are published in that one, too: "
            "deepseek-community/Janus-Pro-1B, -7B and Janus-1.3B. A fine-tune is converted once by "
            "src/transformers/models/janus/convert_janus_weights_to_hf.py of "
            "github.com/huggingface/transformers: python convert_janus_weights_to_hf.py "
            "--repo_id OWNER/NAME --local_dir FOLDER --output_dir CONVERTED "
            "--safe_serialization (it reads pytorch_model.bin, a pickle)"
        )
    family = family_of(kind)
    if family is None:
        raise ValueError(
            f"load_model: {folder} is a {kind!r} checkpoint; suder has an adapter for "
            + known_families()
        )
    try:
        return family, family.config.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(f"load_model: {file} makes no sense: {_first_line(error)}") from error


def read_headers(folder: Path, others: Iterable[str] = ()) -> dict[str, Tensor]:
    """Every tensor's dtype and shape.

    Args:
        folder: of the checkpoint.
        others: names of files that were there but not fetched.
    """
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(folder, others):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    part = opened.get_slice(name)
                    if name in tensors:
                        raise ValueError(f"{name} is in two files")
                    tensors[name] = Tensor(part.get_dtype(), tuple(part.get_shape()))
        except Exception as error:
            raise ValueError(f"load_model: {file} is damaged: {_first_line(error)}") from error
    return tensors


def check_weights(folder: Path, family: Family, config: Any, tensors: dict[str, Tensor]) -> None:
    """Raises ValueError, and names them, where tensors are not those that the config describes."""
    tensors = {_renamed(name, family): value for name, value in tensors.items()}
    file = folder / CONFIG
    for name, count in _counts(config.to_dict()):
        if count > len(tensors):
            raise ValueError(
                f"load_model: {file} makes no sense: {name} is {count}, of a model that has "
                f"{len(tensors)} tensors in all"
            )
    try:
        with torch.device("meta"):
            model = family.model(copy.deepcopy(config))
    except Exception as error:
        raise ValueError(f"load_model: {file} makes no sense: {_first_line(error)}") from error
    state = model.state_dict()
    expected = {name: tuple(value.shape) for name, value in state.items()}
    floats = {name for name, value in state.items() if value.is_floating_point()}
    missing = expected.keys() - tensors.keys()
    if config.tie_word_embeddings:
        for pair in map(set, model._tied_weights_keys.items()):
            missing -= pair if pair & tensors.keys() else set()
    ignored = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ["(?!)"]))
    unexpected = {name for name in tensors.keys() - expected.keys() if not ignored.search(name)}
    both = expected.keys() & tensors.keys()
    misshapen = {
        f"{name} is {list(tensors[name].shape)} and should be {list(expected[name])}"
        for name in both
        if tensors[name].shape != expected[name]
    }
    packed = {
        f"{name} is {tensors[name].dtype}"
        for name in both & floats
        if tensors[name].dtype not in FLOATS
    }
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen,
             "not floating point": packed}  # fmt: skip
    said = [f"{len(names)} {how} ({_some(names)})" for how, names in found.items() if names]
    if said:
        raise ValueError(
            f"load_model: the weights in {folder} are not those of its {CONFIG}: tensors "
            + ", ".join(said)
        )


def is_tied(folder: Path, others: Iterable[str], family: Family, config: Any) -> bool:
    """Whether lm_head will be the embeddings: the config says so, and the weights have but one.

    Published Janus-Pro says so (by transformers' default) and has both, which stay two.
    """
    if not config.tie_word_embeddings:
        return False
    try:
        names = {_renamed(name, family) for name in read_headers(folder, others)}
    except FileNotFoundError:  # a config alone
        return True
    pairs = family.model._tied_weights_keys.items()
    return not all({one, other} <= names for one, other in pairs)


def _renamed(name: str, family: Family) -> str:
    for pattern, instead in family.renamed:
        name = re.sub(pattern, instead, name)
    return name


def dtype_of(tensors: dict[str, Tensor]) -> torch.dtype:
    """The one dtype that loses nothing of any of them."""
    names = {one.dtype for one in tensors.values()} & FLOATS.keys()
    found = torch.float16 if "F16" in names else torch.bfloat16
    for name in names:
        found = torch.promote_types(found, FLOATS[name])
    return found


def _weight_files(folder: Path, others: Iterable[str]) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        names = {*others, *(path.name for path in folder.iterdir())}
        raise FileNotFoundError(f"load_model: {folder} has no {WEIGHTS}{_about_pickles(names)}")
    places = _json(index, INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"load_model: {index} is damaged: it has no weight_map")
    names = set(places.values())
    for name in sorted(names, key=str):
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"load_model: {index} names {name!r}, which is no file beside it")
        if not name.endswith(".safetensors"):
            raise ValueError(f"load_model: {index} names {name!r}, which is no safetensors file")
    return [folder / name for name in sorted(names)]


def _about_pickles(names: set[str]) -> str:
    if not any(name.endswith(PICKLES) for name in names):
        return ""
    return (
        "; pickles can run any program when they are read, so they are not. Where you trust this "
        'one, convert it once: python -c "import transformers; transformers.CLASS.from_pretrained('
        "'FOLDER', use_safetensors=False).save_pretrained('FOLDER')\", where CLASS is what "
        "config.json names under architectures"
    )


def _json(file: Path, limit: int) -> dict[str, Any]:
    size = file.stat().st_size
    if size > limit:
        raise ValueError(f"load_model: {file} has {size} bytes, and at most {limit} are read")
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"load_model: {file} is damaged: {_first_line(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"load_model: {file} is damaged: it holds no JSON object")
    return found


def _counts(tree: Any, name: str = "") -> Iterable[tuple[str, int]]:
    for key, value in tree.items():
        here = f"{name}.{key}" if name else str(key)
        if key == "vocabulary_map":
            continue  # names of tokens, not of parts
        if isinstance(value, dict):
            yield from _counts(value, here)
        elif isinstance(value, list | tuple):
            yield f"the length of {here}", len(value)
        elif isinstance(value, int) and COUNTS.search(str(key)):
            yield here, value


def _some(names: set[str]) -> str:
    shown = sorted(names)[:NAMED]
    return ", ".join(shown) + (", ..." if len(names) > NAMED else "")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
