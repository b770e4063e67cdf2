"""Embedding of images of mixed sizes, decoding included: lco_jax and transformers.

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

_LOWEST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
_OURS = "lco_jax"


@dataclass(frozen=True)
class Arguments:
    """Embed the same images with the same random checkpoint on both sides, in turn."""

    num_images: int = 64
    shortest_px: int = 100
    longest_px: int = 500
    """Sides of the images are drawn evenly between these."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_sizes: tuple[int, ...] = (1, 4, 8)
    """Of transformers; the fastest competes."""
    repeats: int = 3
    threads: int = 2
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    """Make images and a checkpoint, measure, check that the vectors agree, print."""
    images = _images(arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        in_process(_write_checkpoint, folder, arguments.dtype)
        num_weights = decoder_weights(folder)
        threads = arguments.threads
        ours = stack.enter_context(
            Worker(Embedding, folder, arguments.dtype, arguments.longest_px, threads=threads)
        )
        theirs = stack.enter_context(
            Worker(_transformers, folder, arguments.dtype, threads=threads)
        )
        first = ours.measure(images)  # compiles
        theirs.measure((images[:4], 4))
        trials = {
            size: theirs.measure((images[:16], size)).seconds for size in arguments.batch_sizes
        }
        best = min(trials, key=trials.get)
        own, others = [], []
        for _ in range(arguments.repeats):
            own.append(ours.measure(images))
            others.append(theirs.measure((images, best)))
    rows = [
        make_row(_OURS, own, own, 2 * num_weights),
        make_row(f"transformers, batches of {best}", others, own, 2 * num_weights),
    ]
    show(f"{len(images)} images, {arguments.dtype}", rows)
    cosine = float(np.min(np.sum(first.work.vectors * others[0].work.vectors, axis=1)))
    facts = {
        "num_images": len(images),
        "dtype": arguments.dtype,
        "images_per_s": {row.side: len(images) / row.seconds for row in rows},
        "ratio": rows[1].ratio,
        "first_s": first.seconds,
        "lowest_cosine": cosine,
    }
    Console().print(
        ", ".join(f"{side} {rate:.2f}" for side, rate in facts["images_per_s"].items())
        + f" images/s\nratio {facts['ratio']:.2f}; our first run, with compilation, took "
        f"{first.seconds:.1f} s\nlowest cosine {cosine:.7f}"
    )
    if arguments.json:
        append_json(arguments.json, "images", rows, facts)
    if cosine < _LOWEST_COSINE[arguments.dtype]:
        raise ValueError(f"cosine {cosine} is below {_LOWEST_COSINE[arguments.dtype]}")


class Embedding:
    """`Embedder.encode`; tokens are counted from the last run of the stream."""

    def __init__(self, folder: Path, dtype: str, longest_px: int):
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


def _transformers(folder: Path, dtype: str) -> Side:
    from benchmarks.torch_images import ImageEmbedding  # torch stays out of our process

    return ImageEmbedding(folder, dtype)


def _write_checkpoint(folder: Path, dtype: str) -> None:
    from benchmarks.torch_images import write_checkpoint

    write_checkpoint(folder, dtype)


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
