"""A run's curves for TensorBoard, each round's appended whole."""

from __future__ import annotations

import io
import os
import platform
import time
from pathlib import Path

from suder.storage.files import append
from suder.storage.folders import make_folder


class Board:
    """Writes `tensorboard/`.

    Not torch's SummaryWriter: that writes from a thread, which a full disk ends with a traceback
    and half a record.

    Args:
        first: the first round to come; what an earlier life wrote from there on is void.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        make_folder(folder)
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{platform.node()}.{os.getpid()}"
        self.path = folder / name
        start = SessionLog(status=SessionLog.START)
        self._add(
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=first, session_log=start),
        )

    def round(self, index: int, numbers: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._add(Event(wall_time=time.time(), step=index, summary=Summary(value=values)))

    def _add(self, *events: object) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        for event in events:
            RecordWriter(records).write(event.SerializeToString())  # type: ignore[attr-defined]
        append(self.path, records.getvalue())
