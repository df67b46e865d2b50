"""What a run would hold by its settings, beside what the device has."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from suder.doctor.findings import Finding
from suder.doctor.patient import Patient
from suder.run.memory import free_bytes
from suder.run.plan import plan
from suder.run.room import size
from suder.settings.config_file import load_config

NARROW, AGAIN, AWAY = (
    "dtype=bfloat16",
    "optimizer.checkpoint_activations=true",
    "optimizer.offload=true",
)
SETTINGS: dict[str, tuple[str, ...]] = {
    "all weights": (),
    "all weights, bfloat16": (NARROW,),
    "all weights, bfloat16, checkpointing, offload": (NARROW, AGAIN, AWAY),
    "LoRA, bfloat16": ("lora.rank=32", NARROW),
    "LoRA, bfloat16, checkpointing": ("lora.rank=32", NARROW, AGAIN),
}
QUICK = ("all weights, bfloat16", "LoRA, bfloat16, checkpointing")


def memory(patient: Patient) -> Iterator[Finding]:
    """By `suder plan`'s count, of a run with default settings but for those named."""
    held: dict[str, int] = {}
    free = free_bytes(patient.device)
    with tempfile.TemporaryDirectory(prefix="suder-doctor-") as folder:
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("\n".join(patient.pairs.captions) + "\n", encoding="utf-8")
        for name in QUICK if patient.quick else SETTINGS:
            changes = SETTINGS[name]
            tree = {
                "model": patient.name,
                "output": folder,
                "device": patient.device,
                "data": {"images": folder, "prompts": str(prompts)},
            }
            try:
                held[name] = plan(load_config(tree, changes)).total
            except ModuleNotFoundError as error:
                yield Finding("odd", f"{name}: {error}")
                return
            fits = "fits" if held[name] <= free else "does not fit"
            yield Finding(
                "fine",
                f"{name}: {size(held[name])}, {fits}  ({' '.join(changes) or 'no change'})",
                values={"bytes": held[name], "settings": list(changes)},
            )
    fitting = [name for name, count in held.items() if count <= free]
    text = f"{size(free)} are free on {patient.device}"
    if fitting:
        yield Finding("fine", f"{text}: {fitting[0]} fits", values={"free": free})
    else:
        yield Finding(
            "odd",
            f"{text}, and no setting here fits",
            "lower inputs_per_round, candidates or optimizer.tokens_per_batch (`suder plan` tells "
            "what they hold), or take a larger device",
            {"free": free},
        )
