"""The processes of one run, one a GPU, as `accelerate launch` or `torchrun` started them.

All run the same program. What is long is divided among them (`share`), done by each for itself
(`each`), and put together again (`gather`, `add_up`), so that from one step to the next all hold
the same numbers. Alone, nothing of this costs anything.
"""

from suder.ranks.processes import (
    Lost,
    asked_to_divide,
    count,
    each,
    first,
    from_first,
    gather,
    interruptible,
    on_entering,
    rank,
    share,
    start,
    stop,
    talking,
)
from suder.ranks.tensors import add_up, divided, local, part, spread, total, whole

__all__ = [
    "Lost",
    "add_up",
    "asked_to_divide",
    "count",
    "divided",
    "each",
    "first",
    "from_first",
    "gather",
    "interruptible",
    "local",
    "on_entering",
    "part",
    "rank",
    "share",
    "spread",
    "start",
    "stop",
    "talking",
    "total",
    "whole",
]
