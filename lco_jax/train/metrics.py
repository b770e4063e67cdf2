"""Scalars to JSON Lines and TensorBoard."""

import json
import time
from typing import Any

from etils import epath

METRICS_FILE = "metrics.jsonl"
"""In a run folder."""
_UPLOAD_EVERY_S = 60.0


class MetricsWriter:
    """`metrics.jsonl` and `tensorboard/` of a run folder.

    Nothing can be appended to an object of a bucket: there the file is written anew every minute
    and whenever `flush` is called.
    """

    def __init__(self, workdir: str, *, start_step: int, tensorboard: bool):
        folder = epath.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_FILE
        self._forget_after(start_step)
        self._in_bucket = "://" in str(folder)
        self._lines: list[str] = []
        if self._in_bucket:
            if self._path.exists():
                self._lines = self._path.read_text().splitlines(keepends=True)
            self._uploaded = time.monotonic()
        else:
            self._file = self._path.open("a")
        # tensorboardX writes local and gs:// folders; steps after `start_step` of a killed run
        # are purged.
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # it imports torch where torch is installed

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, kind: str, scalars: dict[str, float]) -> None:
        """Record scalars after `step` steps; `kind` is `train` or `eval`."""
        line = {"step": step, "kind": kind, "time": round(time.time(), 3), **scalars}
        if self._in_bucket:
            self._lines.append(json.dumps(line) + "\n")
            if time.monotonic() - self._uploaded > _UPLOAD_EVERY_S:
                self.flush()
        else:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Return when all that was recorded is in the file."""
        if self._in_bucket:
            self._path.write_text("".join(self._lines))
            self._uploaded = time.monotonic()

    def close(self) -> None:
        """Flush and close both."""
        self.flush()
        if not self._in_bucket:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _forget_after(self, step: int) -> None:
        # A killed run may have logged steps that its last checkpoint does not have.
        if not self._path.exists():
            return
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if text != self._path.read_text():
            draft = self._path.with_suffix(".tmp")  # other processes are reading the file
            draft.write_text(text)
            draft.replace(self._path)


def read_evaluations(workdir: epath.PathLike) -> dict[int, dict[str, Any]]:
    """The last evaluation after each step of a run."""
    file = epath.Path(workdir) / METRICS_FILE
    lines = read_metrics(file) if file.exists() else []
    return {line["step"]: line for line in lines if line["kind"] == "eval"}


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a line cut off by a kill is left out."""
    records = []
    for line in epath.Path(path).read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
