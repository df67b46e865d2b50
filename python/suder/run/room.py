"""Whether a run fits its device, said before any work; where not, the setting that helps."""

from __future__ import annotations

from suder.run.memory import free_bytes
from suder.run.plan import Plan, plan
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config

# Tried one after the other, each on top of those before it: the first cost nothing but time.
REMEDIES = (
    "sampling.batch_size=32",
    "optimizer.tokens_per_batch={smaller}",
    "optimizer.checkpoint_activations=true",
    "optimizer.offload=true",
    "optimizer.shard=true",  # of several processes
    "sampling.offload=true",  # draws far slower
    "lora.rank=32",
)


class NoRoom(ValueError):
    """The run asks for more memory than its device has left."""


def room(config: TrainConfig, processes: int = 1) -> tuple[Plan, int]:
    """The plan of a run's process, and the bytes that its device has left.

    Raises:
        NoRoom: the plan is larger; the message names settings with which it is not.
    """
    said, free = plan(config, processes), free_bytes(config.device)
    if said.total > free:
        raise NoRoom(
            f"this run would hold {size(said.total)} and {config.device} has {size(free)} left "
            f"(most of it: {_largest(said)}); {_help(config, free, processes)}"
        )
    return said, free


def table(said: Plan, free: int, device: str) -> str:
    """A line for each part, for people."""
    rows = [
        *said.held.items(),
        *((f"+ {name}", count) for name, count in said.phases.items()),
        ("at most, one + at a time", said.total),
        (f"left on {device}", free),
    ]
    if said.host:
        rows.append(("in the host's memory", said.host))
    return "\n".join(f"  {name:<32}{size(count):>12}" for name, count in rows if count)


def size(count: int) -> str:
    """Bytes as people say them."""
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count / 1024:.0f} KiB"


def _largest(said: Plan) -> str:
    name, count = max((said.held | said.phases).items(), key=lambda item: item[1])
    return f"{name}, {size(count)}"


def _help(config: TrainConfig, free: int, processes: int) -> str:
    smaller = max(1, min(2048, config.optimizer.tokens_per_batch // 4))
    changes: list[str] = []
    for remedy in REMEDIES:
        if "shard" in remedy and processes == 1:
            continue
        changes.append(remedy.format(smaller=smaller))
        if plan(load_config(config.model_dump(), changes), processes).total <= free:
            return f"it fits with {' '.join(changes)}"
    return f"it does not fit with {' '.join(changes)} either: take a smaller model, or more memory"
