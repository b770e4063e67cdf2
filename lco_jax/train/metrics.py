"""Scalars to JSON Lines and TensorBoard."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from etils import epath

from lco_jax.runtime.disks import replace_text, writing
from lco_jax.train.board import Board

METRICS_FILE = "metrics.jsonl"
"""In a run folder."""
_UPLOAD_EVERY_S = 60.0


class MetricsWriter:
    """`metrics.jsonl` and `tensorboard/` of a run folder.

    Nothing is there twice: what a killed run recorded of steps after `start_step` is dropped, and
    an evaluation takes the place of an earlier one after the same step.

    Nothing can be appended to an object of a bucket: there the file is written anew every minute
    and whenever `flush` is called.
    """

    def __init__(self, workdir: str, *, start_step: int, tensorboard: bool):
        """Raises DiskError where the disk is full or fails, as all that writes here does."""
        folder = epath.Path(workdir)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_FILE
        self._keep(lambda record: record["step"] <= start_step)
        self._evaluated = set(read_evaluations(workdir))
        self._in_bucket = "://" in str(folder)
        self._lines: list[str] = []
        if self._in_bucket:
            self._lines = self._text().splitlines(keepends=True)
            self._uploaded = time.monotonic()
        self._board = None
        if tensorboard:
            self._board = Board(str(folder / "tensorboard"), start_step=start_step)

    def write(self, step: int, kind: str, scalars: dict[str, float]) -> None:
        """Record scalars after `step` steps; `kind` is `train` or `eval`."""
        if kind == "eval" and step in self._evaluated:
            self.flush()
            self._keep(lambda record: (record["step"], record["kind"]) != (step, kind))
            self._lines = self._text().splitlines(keepends=True) if self._in_bucket else []
        if kind == "eval":
            self._evaluated.add(step)
        line = _line({"step": step, "kind": kind, "time": round(time.time(), 3), **scalars})
        if self._in_bucket:
            self._lines.append(line)
            if time.monotonic() - self._uploaded > _UPLOAD_EVERY_S:
                self.flush()
        else:
            self._append(line)
        if self._board is not None:
            self._board.write(step, {f"{kind}/{name}": value for name, value in scalars.items()})

    def flush(self) -> None:
        """Return when all that was recorded is in the files."""
        if self._in_bucket:
            self._path.write_text("".join(self._lines))
            self._uploaded = time.monotonic()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Flush and close both."""
        self.flush()
        if self._board is not None:
            self._board.close()

    def _text(self) -> str:
        return _read(self._path) if self._path.exists() else ""

    def _append(self, line: str) -> None:
        content = line.encode()
        with writing(self._path, len(content)), open(self._path, "ab", buffering=0) as file:
            before = file.tell()
            try:
                written = file.write(content)
                if written < len(content):  # the rest says why
                    file.write(content[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self._path, before)  # no part of a line stays
                raise

    def _keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop other records and what is none, such as a line that a kill has cut off."""
        text = self._text()
        kept = "".join(_line(record) for record in _parse(text) if wanted(record))
        if kept != text:
            replace_text(self._path, kept)  # other processes are reading the file


def read_evaluations(workdir: epath.PathLike) -> dict[int, dict[str, Any]]:
    """The last evaluation after each step of a run."""
    file = epath.Path(workdir) / METRICS_FILE
    lines = read_metrics(file) if file.exists() else []
    return {line["step"]: line for line in lines if line["kind"] == "eval"}


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a line cut off by a kill is left out."""
    return _parse(_read(epath.Path(path)))


def _read(path: epath.Path) -> str:
    return path.read_bytes().decode(errors="replace")


def _parse(text: str) -> list[dict[str, Any]]:
    records = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and {"step", "kind"} <= record.keys():
                records.append(record)
    return records


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
