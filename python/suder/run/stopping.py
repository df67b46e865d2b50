"""SIGTERM and SIGINT: the work in hand is finished or given up, never left half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from suder import ranks

ASKING = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A run that ended because it was asked to; it can be resumed.

    Attributes:
        signal: which asked.
        exit_code: 0 for SIGTERM (Slurm, Kubernetes: nothing went wrong), 130 for SIGINT, as shells
            say it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)
        self.exit_code = 0 if number == signal.SIGTERM else 128 + number
        self.words = f"stopped by {self.signal.name}"

    def __str__(self) -> str:
        return self.words


class Stopping:
    """While it is entered, the first signal asks for an end and the second ends the process.

    Asked of one of several processes, all end. A launcher repeats the signal at once and kills what
    is left after half a minute, so that for them a second one says nothing. Where one of them is
    lost, the others have their handlers to the end: only they can say so.

    A handler that somebody else has set, or a signal that is ignored, is left as it is; so is
    everything outside the main thread, where Python takes no signals.
    """

    def __init__(self, asking: Sequence[signal.Signals] = ASKING) -> None:
        self.asking = asking
        self.asked = 0
        self.immediate = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in self.asking:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self.before[number] = signal.signal(number, self._handle)
        ranks.on_entering(self._raise_late)
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        ranks.on_entering(None)
        if isinstance(error, ranks.Lost):
            return  # the launcher ends this process next, and its last words must come first
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Stopped if an end has been asked for; of several processes, of any."""
        with ranks.each():
            if self.asked:
                raise Stopped(self.asked)

    @contextmanager
    def at_once(self, allowed: bool = True) -> Iterator[None]:
        """Inside, Stopped is raised wherever the work is: it must leave nothing half changed."""
        self.check()
        self.immediate = allowed
        try:
            self.check()
            yield
        finally:
            self.immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and ranks.count() > 1:
            return
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.asked = number
        if self.immediate and ranks.interruptible():
            self.immediate = False
            raise Stopped(number)

    def _raise_late(self) -> None:
        """For a signal that came while the process waited for others."""
        if self.asked and self.immediate:
            self.immediate = False
            raise Stopped(self.asked)
