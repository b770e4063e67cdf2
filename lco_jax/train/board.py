"""Scalars for TensorBoard, written by whoever calls, so that an error of the disk is theirs."""

import os
import time

from lco_jax.runtime.disks import writing
from lco_jax.train import transient

_FLUSH_EVERY_S = 30.0


class Board:
    """An event file in a folder, local or `gs://`.

    tensorboardX's own writer has a thread; where the disk is full, that dies alone, and who waits
    for it waits for ever.
    """

    def __init__(self, folder: str, *, start_step: int):
        """What a killed run left of the steps after `start_step` is not shown any more."""
        from tensorboardX import event_file_writer, record_writer  # it imports torch if it is there
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.summary import scalar

        self._folder, self._event = folder, event_pb2.Event
        self._summary, self._scalar = summary_pb2.Summary, scalar
        with writing(folder):
            record_writer.directory_check(folder)
            self._file = event_file_writer.EventsWriter(os.path.join(folder, "events"))
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(start_step + 1, session_log=start)
            self._file.flush()
        self._flushed = time.monotonic()

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record scalars after `step` steps."""
        values = [self._scalar(name, x).value[0] for name, x in scalars.items()]
        with writing(self._folder):
            self._add(step, summary=self._summary(value=values))
        if time.monotonic() - self._flushed > _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Return when all that was recorded is in the file."""
        with writing(self._folder):
            transient.try_again(self._file.flush, f"events in {self._folder}")
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        with writing(self._folder):
            self._file.close()

    def _add(self, step: int, **content) -> None:
        self._file.write_event(self._event(wall_time=time.time(), step=step, **content))
