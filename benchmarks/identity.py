"""What it costs to know a model by the contents of its files: the first time, and each other time.

python -m benchmarks.identity
"""

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.load_weights import write_checkpoint
from benchmarks.results import append_line


@dataclass(frozen=True)
class Arguments:
    """Write a synthetic checkpoint of 3 GB, and read its weights with and without its digest."""

    repeats: int = 3
    """Starts of each kind, each in a process of its own, in turn; the fastest counts."""
    json: Path | None = None
    """File to which the figures are appended as one line."""


def main(arguments: Arguments) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name) / "model", Path(name) / "digests"
        folder.mkdir()
        write_checkpoint(folder)
        time.sleep(3)  # what was written just now is not kept
        first = _in_process(folder, kept)
        runs = [_in_process(folder, kept) for _ in range(arguments.repeats)]
    load_s = min(run["load_s"] for run in runs)
    again_s = min(run["digest_s"] for run in runs)
    figures = {
        "gigabytes": first["bytes"] / 1e9,
        "load_s": load_s,
        "first_s": first["digest_s"],
        "again_s": again_s,
        "share": again_s / load_s,
    }
    table = Table("", "s", "of loading, %", title=f"{figures['gigabytes']:.2f} GB of weights")
    for what, seconds in (("load", load_s), ("digest", first["digest_s"]), ("again", again_s)):
        table.add_row(what, f"{seconds:.4f}", f"{100 * seconds / load_s:.2f}")
    Console().print(table)
    if arguments.json:
        append_line(arguments.json, "identity", figures)


def _in_process(folder: Path, kept: Path) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, folder, kept).result()


def _measure(folder: Path, kept: Path) -> dict[str, float]:
    """Seconds of loading from a warm page cache, and of the digest before it."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    from lco_jax.models.build import build
    from lco_jax.models.config import read_config
    from lco_jax.runtime.axes import MESH_AXES
    from lco_jax.runtime.code_digest import code_digest
    from lco_jax.weights import digests
    from lco_jax.weights.hub import load_params
    from lco_jax.weights.identity import Contents, model_files

    digests.FOLDER = os.fspath(kept)
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass
    with jax.set_mesh(jax.make_mesh((1, 1, 1), MESH_AXES)):
        config = read_config(folder)
        _, _, shapes = build(config, None, "bfloat16")
        start = time.perf_counter()
        _ = Contents(model_files(folder)).digest, code_digest()
        digest_s = time.perf_counter() - start
        start = time.perf_counter()
        params = load_params(folder, config, shapes)
        load_s = time.perf_counter() - start
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return {"digest_s": digest_s, "load_s": load_s, "bytes": num_bytes}


if __name__ == "__main__":
    main(tyro.cli(Arguments))
