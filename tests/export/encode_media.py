"""Exports runs for sentence-transformers beside torchvision, and embeds items with the exports.

A program of its own, because transformers looks for torchvision once, when it is imported:
`python encode_media.py RUN...` writes `sentence-transformers` and `vectors.npy` beside each run.
"""

import io
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer

from lco_jax.export.folders import export_model
from tests.data.media_files import encode, random_image


def png(seed: int, width: int, height: int) -> bytes:
    return encode(random_image(seed, (width, height)), "PNG")


PICTURES = [png(0, 80, 61), png(1, 210, 33), png(2, 57, 300)]
LONG = "a person on a horse " * 40


def main(runs: list[str]) -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    first, second, third = (Image.open(io.BytesIO(content)) for content in PICTURES)
    inputs = [
        first,
        {"image": second, "text": "a small red fox"},
        "only words",
        {"text": "which of them", "image": [second, third]},
        {"text": "a word"},
    ]
    for run in map(Path, runs):
        out = run.parent / "sentence-transformers"
        export_model(str(run), out, "sentence-transformers")
        model = SentenceTransformer(str(out))
        # Batches of two and of one, padded.
        np.save(run.parent / "vectors.npy", model.encode(inputs, batch_size=2))


if __name__ == "__main__":
    main(sys.argv[1:])
