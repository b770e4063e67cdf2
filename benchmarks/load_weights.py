"""Speed and memory of loading hub weights: GB/s from a warm page cache, peak memory over weights.

python -m benchmarks.load_weights --json results.jsonl
"""

import json
import multiprocessing
import os
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.results import append_line

_CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 19,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
"""Layers of Qwen2.5-3B, as many as make 3 GB."""


@dataclass(frozen=True)
class Arguments:
    """Write a synthetic bfloat16 checkpoint and load it on several meshes."""

    repeats: int = 3
    """Loads per mesh, each in a process of its own; the fastest and the largest count."""
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    table = Table(title="hub folder → sharded arrays")
    for column in ("fsdp x tensor", "weights", "GB/s", "peak / weights"):
        table.add_column(column, justify="right")
    meshes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder)
        for fsdp, tensor in ((1, 1), (8, 1), (4, 2)):
            runs = [_in_process(folder, fsdp, tensor) for _ in range(arguments.repeats)]
            size = runs[0]["bytes"] / 1e9
            speed = size / min(run["seconds"] for run in runs)
            peak = max(run["peak_bytes"] for run in runs) / runs[0]["bytes"]
            table.add_row(f"{fsdp} x {tensor}", f"{size:.2f} GB", f"{speed:.2f}", f"{peak:.2f}")
            found = {"gigabytes": size, "gigabytes_per_s": speed, "peak_over_weights": peak}
            meshes.append({"fsdp": fsdp, "tensor": tensor, **found})
    Console().print(table)
    if arguments.json:
        append_line(arguments.json, "load_weights", {"meshes": meshes})


def write_checkpoint(folder: Path) -> None:
    """A qwen2 folder of random bfloat16 weights, in shards of 1 GB."""
    from lco_jax.models.config import from_hf
    from lco_jax.weights.tables import TABLES
    from lco_jax.weights.writer import SafetensorsWriter, TensorSpec

    sizes = from_hf(_CONFIG).text.sizes
    table = TABLES["qwen2"]
    specs = {
        table.name(key): TensorSpec(row.layout.hub_shape(sizes), np.dtype(ml_dtypes.bfloat16))
        for row in table.rows
        if row.ours != "head/kernel"
        for key in row.keys(sizes["L"])
    }
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    rng = np.random.default_rng(0)
    with SafetensorsWriter(folder, specs, max_shard_bytes=10**9) as writer:
        for name, spec in specs.items():
            values = rng.integers(0, 2**14, spec.shape, np.uint16)
            writer.write(name, values.view(spec.dtype))
    os.sync()  # The disk is quiet while loads are timed.


def _in_process(folder: Path, fsdp: int, tensor: int) -> dict[str, float]:
    """`_measure` in a fresh process, whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, folder, fsdp, tensor).result()


def _measure(folder: Path, fsdp: int, tensor: int) -> dict[str, float]:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", fsdp * tensor)
    from lco_jax.models.build import build
    from lco_jax.models.config import read_config
    from lco_jax.runtime.axes import MESH_AXES
    from lco_jax.weights.hub import load_params

    for file in folder.glob("*.safetensors"):
        file.read_bytes()
    with jax.set_mesh(jax.make_mesh((1, fsdp, tensor), MESH_AXES)):
        config = read_config(folder)
        _, _, shapes = build(config, None, "bfloat16")
        before = _private_bytes()
        with _Peak() as peak:
            start = time.perf_counter()
            params = load_params(folder, config, shapes)
            seconds = time.perf_counter() - start
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return {"seconds": seconds, "bytes": num_bytes, "peak_bytes": peak.bytes - before}


class _Peak:
    """The largest private memory of the process while in the context; page cache is not counted."""

    def __enter__(self) -> "_Peak":
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, _private_bytes())


def _private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main(tyro.cli(Arguments))
