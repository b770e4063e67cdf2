"""Embedding of WordNet texts, tokenisation included: lco_jax and sentence-transformers.

python -m benchmarks.embedding --json results.jsonl
"""

import functools
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console

from benchmarks.report import (
    SMOLLM2,
    Measurement,
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

_TEXTS = Path(__file__).parents[1] / "data/quickstart/wordnet_train.jsonl"
_DEFAULT_BATCH = 32
_NUM_TRIAL = 256
_LOWEST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
_OURS = "lco_jax"


@dataclass(frozen=True)
class Arguments:
    """Embed the same texts with the same exported model on both sides, in alternating rounds."""

    model: Path = SMOLLM2
    num_texts: int = 2000
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_sizes: tuple[int, ...] = (8, 16, 64, 128)
    """Of sentence-transformers, besides its default; the best on a few texts competes."""
    repeats: int = 2
    threads: int = 2
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    """Export, measure, check that the vectors agree, print."""
    lines = _TEXTS.read_text(encoding="utf-8").splitlines()[: arguments.num_texts]
    texts = tuple(json.loads(line)["positive"]["text"] for line in lines)
    threads, dtype = arguments.threads, arguments.dtype
    num_weights = decoder_weights(arguments.model)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name) / "model"
        in_process(_export, arguments.model, folder, dtype)
        ours = stack.enter_context(Worker(Embedding, folder, dtype, threads=threads))
        theirs = stack.enter_context(Worker(_sentence_embedding, folder, dtype, threads=threads))

        first = ours.measure(texts)  # compiles
        theirs.measure((texts[:_DEFAULT_BATCH], _DEFAULT_BATCH))
        trials = {
            size: theirs.measure((texts[:_NUM_TRIAL], size)).seconds
            for size in (_DEFAULT_BATCH, *arguments.batch_sizes)
        }
        sizes = {_DEFAULT_BATCH, min(trials, key=trials.get)}
        measurements: dict[str, list[Measurement]] = {_OURS: []}
        for _ in range(arguments.repeats):
            measurements[_OURS].append(ours.measure(texts))
            for size in sizes:
                side = measurements.setdefault(f"sentence-transformers, batches of {size}", [])
                side.append(theirs.measure((texts, size)))

    own = measurements[_OURS]
    rows = [make_row(side, runs, own, 2 * num_weights) for side, runs in measurements.items()]
    show(f"{len(texts)} texts, {dtype}, {num_weights / 1e6:.0f} M decoder weights", rows)
    best = min(rows[1:], key=lambda row: row.ratio)
    reference = measurements[best.side][0].work.vectors
    cosine = float(np.min(np.sum(first.work.vectors * _unit(reference), axis=1)))
    facts = {
        "num_texts": len(texts),
        "dtype": dtype,
        "texts_per_s": {row.side: len(texts) / row.seconds for row in rows},
        "ratio": best.ratio,
        "first_s": first.seconds,
        "ratio_of_first": best.seconds / first.seconds,
        "lowest_cosine": cosine,
    }
    Console().print(
        ", ".join(f"{side} {rate:.1f}" for side, rate in facts["texts_per_s"].items())
        + f" texts/s\nratio {best.ratio:.2f}; {facts['ratio_of_first']:.2f} with compilation, "
        f"in our first run of {first.seconds:.1f} s\nlowest cosine {cosine:.7f}"
    )
    if arguments.json:
        append_json(arguments.json, "embedding", rows, facts)
    if cosine < _LOWEST_COSINE[dtype]:
        raise ValueError(f"cosine {cosine} of the same text is below {_LOWEST_COSINE[dtype]}")


class Embedding:
    """`Embedder.encode`."""

    def __init__(self, folder: Path, dtype: str):
        from lco_jax.embed.embedder import Embedder

        self._dtype = dtype
        self._embedder = Embedder(folder, dtype=dtype)

    def run(self, task: tuple[str, ...]) -> Work:
        """Embed texts."""
        return Work(*self._count(task), vectors=self._embedder.encode(task))

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in the dtype of the model, summed in float32."""
        return jax_product(shape, self._dtype)

    @functools.cache  # noqa: B019 - the object lives as long as its process
    def _count(self, texts: tuple[str, ...]) -> tuple[int, int]:
        from lco_jax.data.pack.stream import pack_texts
        from lco_jax.data.records import Item

        encoder, processor = self._embedder._encoder, self._embedder.processor
        encoded = processor.encode([Item(text=text) for text in texts])
        preamble = len(processor.head)
        stream = pack_texts(
            encoded,
            encoder.memory.row_tokens,
            encoder.tokens_per_batch,
            1,
            preamble,
            flows=encoder.flows,
        )
        computed = sum(batch.tokens.size + preamble for batch, _ in stream)
        return sum(len(item.tokens) + preamble for item in encoded), computed


def _sentence_embedding(folder: Path, dtype: str) -> Side:
    from benchmarks.torch_reference import SentenceEmbedding  # torch stays out of our process

    return SentenceEmbedding(folder, dtype)


def _export(model: Path, folder: Path, dtype: str) -> None:
    from lco_jax.export.folders import export_model

    export_model(str(model), folder, "sentence-transformers", dtype=dtype, verified=False)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
