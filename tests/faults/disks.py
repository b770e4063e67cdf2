"""Disks without room, and writers that fill them."""

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lco_jax.analysis.states import LayerWriter
from lco_jax.data.encode.feature_cache import FeatureCache, Known
from lco_jax.data.records import Item
from lco_jax.embed.parts import Parts
from lco_jax.embed.vector_cache import VectorCache
from lco_jax.report.page import write_whole
from lco_jax.runtime.disks import replace_bytes
from lco_jax.train.board import Board
from lco_jax.train.metrics import MetricsWriter
from lco_jax.weights.files import TensorSpec
from lco_jax.weights.writer import SafetensorsWriter

LIMIT_BYTES = 64 << 10


@contextlib.contextmanager
def small(folder: Path, num_bytes: int) -> Iterator[bool]:
    """A context in which `folder` is a disk of its own with so many bytes, if that is allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    mounts = shutil.which("mount") is not None
    if not mounts or subprocess.run(options, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def no_longer_files(num_bytes: int) -> Iterator[None]:
    """A context in which no file of this process may become longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _metrics(folder: Path) -> None:
    writer = MetricsWriter(str(folder), start_step=0, tensorboard=False)
    for step in range(3000):
        writer.write(step, "train", {"loss": 1.0})


def _board(folder: Path) -> None:
    board = Board(str(folder), start_step=0)
    for step in range(3000):
        board.write(step, {"loss": 1.0})
    board.close()


def _array(folder: Path) -> None:
    parts = Parts(folder / "vectors.npy", {})
    for number in range(4):
        parts.add(number * len(_vectors()), _vectors(), {})


def _table(folder: Path) -> None:
    parts = Parts(folder / "vectors.parquet", {})
    parts.add(0, np.zeros((1, 4), np.float32), {})
    parts.finish([Item("".join(map(chr, np.random.default_rng(0).integers(32, 50000, 1 << 16))))])


def _vector_cache(folder: Path) -> None:
    cache = VectorCache(folder, "model", 256)
    for number in range(4):
        cache.add([bytes([number, row]) * 8 for row in range(64)], _vectors())


def _features(folder: Path) -> None:
    cache = FeatureCache(folder, "identity", "float32")
    for number in range(4):
        cache.save(f"{number:02d}{'0' * 30}", [Known(_vectors(), None)])


def _states(folder: Path) -> None:
    with LayerWriter(folder, 64) as writer:
        for _ in range(8):
            writer.append(np.zeros((8, 2, 256), np.float32))


def _weights(folder: Path) -> None:
    spec = TensorSpec((64, 256), np.dtype(np.float32))
    # Announced space is looked for beforehand; another program takes it then.
    with SafetensorsWriter(folder, {"x": spec}, max_shard_bytes=1 << 30) as writer:
        with contextlib.suppress(OSError), (folder / "other").open("wb") as file:
            file.write(bytes(32 << 10))
        writer.write("x", _vectors())


def _report(folder: Path) -> None:
    write_whole(folder / "report" / "index.html", "x" * (2 * LIMIT_BYTES))


def _evaluation(folder: Path) -> None:
    replace_bytes(folder / "000000.npz", bytes(2 * LIMIT_BYTES))


def _vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)


WRITERS: dict[str, Callable[[Path], None]] = {
    "metrics": _metrics,
    "tensorboard": _board,
    "npy": _array,
    "parquet": _table,
    "vector cache": _vector_cache,
    "feature cache": _features,
    "states": _states,
    "weights": _weights,
    "report": _report,
    "evaluation": _evaluation,
}
"""Each writes more than `LIMIT_BYTES` into a folder, and a file of more than half of them."""
