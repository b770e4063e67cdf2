"""Files that become shorter while they are read; for processes of their own."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lco_jax.data.sources.csv_table import CsvTable
from lco_jax.data.sources.jsonl import JsonLines
from lco_jax.data.sources.parquet_table import ParquetTable
from lco_jax.embed.vector_cache import VectorCache
from lco_jax.weights.files import SafetensorsFolder, TensorSpec
from lco_jax.weights.writer import SafetensorsWriter

ROWS = 100_000
"""Of more bytes than are looked through at once."""


def _lines(folder: Path) -> None:
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps({"anchor": f"text {i}"}) + "\n" for i in range(ROWS)))
    table = JsonLines(str(file))
    rows = list(table.find_rows())
    os.truncate(file, 4096)
    assert table.read(rows[0]) == {"anchor": "text 0"}
    table.read(rows[ROWS // 2])


def _cells(folder: Path) -> None:
    file = folder / "a.csv"
    file.write_text("anchor,positive\n" + "".join(f"{i},text number {i}\n" for i in range(ROWS)))
    table = CsvTable(str(file))
    os.truncate(file, 4096)
    list(table.find_rows())


def _parquet(folder: Path) -> None:
    file = folder / "a.parquet"
    pq.write_table(pa.table({"anchor": np.random.default_rng(0).normal(size=ROWS)}), file)
    table = ParquetTable(str(file))
    os.truncate(file, 4096)
    list(table.find_rows())


def _weights(folder: Path) -> None:
    values = np.ones((1024, 256), np.float32)
    specs = {name: TensorSpec(values.shape, values.dtype) for name in ("a", "b")}
    with SafetensorsWriter(folder, specs, max_shard_bytes=1 << 30) as writer:
        for name in specs:
            writer.write(name, values)
    source = SafetensorsFolder(folder)
    os.truncate(folder / "model.safetensors", values.nbytes + 4096)
    np.testing.assert_array_equal(source.view("a"), values)
    source.view("b")


def _vectors(folder: Path) -> None:
    cache = VectorCache(folder, "model", 256)
    keys = [bytes([row]) * 16 for row in range(64)]
    cache.add(keys, np.ones((64, 256), np.float32))
    os.truncate(cache.folder / "vectors.bin", 4096)
    cache.read(keys)


KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "lines": ("a.jsonl", _lines),
    "cells": ("a.csv", _cells),
    "parquet": ("a.parquet", _parquet),
    "weights": ("model.safetensors", _weights),
    "vectors": ("vectors.bin", _vectors),
}
"""The name of each file, and who reads it."""


def read_all(folder: Path) -> dict[str, str]:
    """What becomes of each: the message of its error, or nothing."""
    return {kind: _message(folder / kind, read) for kind, (_, read) in KINDS.items()}


def _message(folder: Path, read: Callable[[Path], None]) -> str:
    folder.mkdir()
    try:
        read(folder)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def all_named(messages: dict[str, str]) -> bool:
    return all(
        KINDS[kind][0] in said and ("shorter" in said or kind == "parquet")
        for kind, said in messages.items()
    )
