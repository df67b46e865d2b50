"""Who is here, who does what, and how what ends one process ends them all."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")
# Others wait while one writes a checkpoint or draws a long share. That a process died is seen by
# its connection, not by the time that passed.
PATIENCE = timedelta(days=7)


class Lost(ConnectionError):
    """Another process of the run has ended, so that this one cannot go on."""


class _Here:
    """This process among the run's.

    Attributes:
        host: a gloo group of all of them: messages go by it, whatever carries the gradients. It
            notices at once that a process is gone, where NCCL would wait.
        alone: no other process waits for what this one is doing: it may be interrupted.
    """

    rank = 0
    count = 1
    host: Any = None
    alone = True
    entering: Callable[[], None] | None = None


def start(device: str) -> None:
    """Joins the processes that a launcher started; without one, or a second time, does nothing.

    Args:
        device: of the run: "cpu", or "cuda", which is then each process's own GPU.

    Raises:
        ValueError: it names one GPU for all.
    """
    alone = "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2
    if alone or _Here.host is not None:
        return
    if ":" in device:
        raise ValueError(
            f"device: {device} is one GPU, and {os.environ['WORLD_SIZE']} processes were started; "
            "with `device: cuda` each takes its own"
        )
    from accelerate import PartialState
    from torch import distributed

    state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
    _Here.rank, _Here.count = state.process_index, state.num_processes
    _Here.host = distributed.new_group(backend="gloo", timeout=PATIENCE)
    _Here.alone = False


def asked_to_divide(setting: bool) -> bool:
    """Whether several processes divide the weights: by a setting, or launched with FSDP.

    Raises:
        ValueError: with FSDP's first version.
    """
    launched = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if launched and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ValueError(
            "accelerate launch: FSDP's first version is not supported; --fsdp_version 2 is, or "
            "leave --use_fsdp out and set optimizer.shard"
        )
    return _Here.count > 1 and (launched or setting)


def stop() -> None:
    """Leaves the others, at the end of all work."""
    if _Here.host is not None:
        from accelerate import PartialState

        each_here()
        PartialState().destroy_process_group()
        _Here.rank, _Here.count, _Here.host, _Here.alone = 0, 1, None, True


def rank() -> int:
    return _Here.rank


def count() -> int:
    return _Here.count


def first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return _Here.rank == 0


def share(total: int, of: int | None = None) -> range:
    """Which of `total` things in a row are this process's (or that of rank `of`): none twice."""
    who = _Here.rank if of is None else of
    return range(total * who // _Here.count, total * (who + 1) // _Here.count)


def gather(value: T) -> list[T]:
    """Every process's value, by rank. For small things: it goes through the host's memory."""
    if _Here.count == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * _Here.count
    with talking():
        distributed.all_gather_object(values, value, group=_Here.host)
    return values


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns or raises in the first process, in all of them."""
    if _Here.count == 1:
        return make()
    from torch import distributed

    box: list[Any] = [None]
    with each():
        if first():
            box[0] = make()
    with talking():
        distributed.broadcast_object_list(box, src=0, group=_Here.host)
    found: T = box[0]
    return found


@contextmanager
def each() -> Iterator[None]:
    """Inside, each process works for itself, and sends and waits for nothing. At the end all wait
    for one another, and where one has raised, all raise the same: the lowest rank's, but a request
    to stop before all others. So all go the same way: on, again with less, or out.
    """
    if _Here.count == 1:
        yield
        return
    failure: BaseException | None = None
    try:
        if _Here.entering is not None:
            _Here.entering()
        _Here.alone = True
        yield
        _Here.alone = False
    except (Exception, KeyboardInterrupt) as error:
        _Here.alone = False
        failure = error
    said = gather(None if failure is None else _portable(failure))
    failed = [who for who, one in enumerate(said) if one is not None]
    if not failed:
        return
    asked = [who for who in failed if isinstance(said[who], KeyboardInterrupt)]
    who = (asked or failed)[0]
    if who == _Here.rank and failure is not None:
        raise failure
    theirs = said[who]
    assert theirs is not None
    theirs.rank = who  # type: ignore[attr-defined]
    raise theirs


def each_here() -> None:
    """Waits until all processes are here."""
    with each():
        pass


def interruptible() -> bool:
    """Whether an exception raised here and now by a signal reaches the others."""
    return _Here.alone


def on_entering(check: Callable[[], None] | None) -> None:
    """What is called, and may raise, whenever `each` begins."""
    _Here.entering = check


@contextmanager
def talking() -> Iterator[None]:
    """Raises Lost where a process that is talked with is gone."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "NCCL", "peer", "Socket", "c10d")):
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Lost(
            f"process {_Here.rank} of {_Here.count} lost the others: one of them has ended, by an "
            f"error of its own (above), for want of memory, or killed ({why[:200]})"
        ) from error


def _portable(error: BaseException) -> BaseException:
    """The error as another process can have it."""
    try:
        again = pickle.loads(pickle.dumps(error))
        if type(again) is type(error) and str(again) == str(error):
            return error
    except Exception:  # one that cannot be sent goes by its words
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")
