"""The model that a run begins with, part by part, so that another is known and named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from suder.models.base import UnifiedModel
from suder.storage.files import told
from suder.storage.fingerprint import hash_file, hash_tensors

# Of how the model was found, not of what it is.
_PASSING = ("transformers_version", "name_or_path", "_name_or_path", "is_local", "local_files_only")
ROOM = 32 << 20  # bytes that the largest tokenizers and their like take


def fingerprint(model: UnifiedModel) -> dict[str, str]:
    """A hash of every weight, trained or not, by part of the model, and of each file beside them.

    Keys are such as "language_model", "lm_head", "tokenizer.json", "chat_template.jinja".
    """
    parts: dict[str, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in model.state_dict().items():
        inner = name
        while inner.startswith("model."):
            inner = inner.removeprefix("model.")
        parts.setdefault(inner.partition(".")[0], []).append((name, tensor))
    hashes = {part: hash_tensors(named) for part, named in parts.items()}
    with tempfile.TemporaryDirectory() as folder, told(Path(folder), ROOM):
        model.save_description(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                hashes[str(path.relative_to(folder))] = _of_description(path)
    return hashes


def _of_description(path: Path) -> str:
    if path.suffix == ".json" and path.name != "tokenizer.json":
        tree = json.loads(path.read_bytes())
        kept = {key: value for key, value in tree.items() if key not in _PASSING}
        path.write_text(json.dumps(kept, sort_keys=True), encoding="utf-8")
    return hash_file(path)
