"""Embedding of images of mixed sizes, decoding included: lco_jax, transformers, representax.

python -m benchmarks.images --json results.jsonl
"""

import io
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from PIL import Image
from rich.console import Console

from benchmarks.peer_library import require_representax
from benchmarks.report import (
    Side,
    Work,
    Worker,
    append_json,
    decoder_weights,
    in_process,
    jax_product,
    make_row,
    show,
)

_SideName = Literal["transformers", "representax"]
_NUM_TRIAL = 16
_LOWEST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
_OURS = "lco_jax"


@dataclass(frozen=True)
class Arguments:
    """Embed the same images with the same random checkpoint on all sides, in turn."""

    num_images: int = 64
    shortest_px: int = 100
    longest_px: int = 500
    """Sides of the images are drawn evenly between these."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    sides: tuple[_SideName, ...] = ("transformers",)
    """Compare with these (representax: `pip install -r requirements-benchmarks.txt`)."""
    batch_sizes: tuple[int, ...] = (1, 4, 8)
    """Of the other sides; the fastest of each competes."""
    repeats: int = 3
    threads: int = 2
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    """Make images and a checkpoint, measure, check that the vectors agree, print."""
    if "representax" in arguments.sides:
        require_representax()
    images = _images(arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        in_process(_write_checkpoint, folder, arguments.dtype)
        num_weights = decoder_weights(folder)
        best = {side: _best_batch(side, folder, images, arguments) for side in arguments.sides}
        ours = stack.enter_context(
            Worker(Embedding, folder, arguments.dtype, threads=arguments.threads)
        )
        theirs = {
            side: stack.enter_context(_other(side, folder, arguments)) for side in arguments.sides
        }
        first = ours.measure(images)  # compiles, as the first run of every side
        vectors = {
            side: worker.measure((images, best[side])).work.vectors
            for side, worker in theirs.items()
        }
        own, others = [], {side: [] for side in theirs}
        for _ in range(arguments.repeats):
            own.append(ours.measure(images))
            for side, worker in theirs.items():
                others[side].append(worker.measure((images, best[side])))
    rows = [make_row(_OURS, own, own, 2 * num_weights)]
    for side, runs in others.items():
        rows.append(make_row(f"{side}, batches of {best[side]}", runs, own, 2 * num_weights))
    show(f"{len(images)} images, {arguments.dtype}", rows, counts_tokens=False)
    cosines = {
        side: float(np.min(np.sum(first.work.vectors * their_vectors, axis=1)))
        for side, their_vectors in vectors.items()
    }
    facts = {
        "num_images": len(images),
        "dtype": arguments.dtype,
        "images_per_s": {row.side: len(images) / row.seconds for row in rows},
        "first_s": first.seconds,
        "lowest_cosines": cosines,
    }
    Console().print(
        ", ".join(f"{side} {rate:.2f}" for side, rate in facts["images_per_s"].items())
        + f" images/s\nour first run, with compilation, took {first.seconds:.1f} s\n"
        "lowest cosine: " + ", ".join(f"{side} {cosine:.7f}" for side, cosine in cosines.items())
    )
    if arguments.json:
        append_json(arguments.json, "images", rows, facts)
    for side, cosine in cosines.items():
        if not cosine >= _LOWEST_COSINE[arguments.dtype]:
            raise ValueError(
                f"cosine {cosine} with {side} is below {_LOWEST_COSINE[arguments.dtype]}"
            )


class Embedding:
    """`Embedder.encode`; tokens are not counted."""

    def __init__(self, folder: Path, dtype: str):
        from lco_jax.embed.embedder import Embedder

        self._dtype = dtype
        self._embedder = Embedder(folder, dtype=dtype)

    def run(self, task: tuple[bytes, ...]) -> Work:
        """Embed encoded images."""
        from lco_jax.data.records import Item

        items = [Item(images=(content,)) for content in task]
        vectors = self._embedder.encode(items)
        return Work(1, 1, vectors=vectors)

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in the dtype of the model, summed in float32."""
        return jax_product(shape, self._dtype)


def _best_batch(
    side: _SideName, folder: Path, images: tuple[bytes, ...], arguments: Arguments
) -> int:
    """The fastest batch size on a few images, in a process whose memory does not count."""
    with _other(side, folder, arguments) as worker:
        seconds = {}
        for size in arguments.batch_sizes:
            task = images[:_NUM_TRIAL], size
            worker.measure(task)  # compiles
            seconds[size] = worker.measure(task).seconds
    return min(seconds, key=seconds.get)


def _other(side: _SideName, folder: Path, arguments: Arguments) -> Worker:
    make = {"transformers": _transformers, "representax": _representax}[side]
    return Worker(make, folder, arguments.dtype, threads=arguments.threads)


def _transformers(folder: Path, dtype: str) -> Side:
    from benchmarks.torch_images import ImageEmbedding  # torch stays out of our process

    return ImageEmbedding(folder, dtype)


def _representax(folder: Path, dtype: str) -> Side:
    from benchmarks.representax_images import ImageEmbedding  # no requirement of the others

    return ImageEmbedding(folder, dtype)


def _write_checkpoint(folder: Path, dtype: str) -> None:
    from benchmarks.random_checkpoints import write_vl

    write_vl(folder, dtype)


def _images(arguments: Arguments) -> tuple[bytes, ...]:
    """JPEG files of smooth noise."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(arguments.num_images):
        size = rng.integers(arguments.shortest_px, arguments.longest_px + 1, 2).tolist()
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(content, "JPEG")
        files.append(content.getvalue())
    return tuple(files)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
