"""What texts of many lengths cost a data shard: packed as ours are, and padded as the released
trainers do it. Nothing is timed.

    python -m benchmarks.padding --json docs/results/padding.json

Batches of WordNet's triplets are tokenised and dealt to the shards of a slice. Padded, each item
is as long as the longest of its role on its shard, and a step waits for the shard with most slots.
Packed, all shards have the rows that the fullest one needs. Tokens are those behind the preamble.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float, Int

from benchmarks.contrastive_step import TRIPLETS
from benchmarks.report import SMOLLM2
from benchmarks.results import append_line
from lco_jax.config import DataConfig, JsonlSource, Memory
from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.pack.batch import choose_shape, item_lengths, measure
from lco_jax.data.pack.shares import slots_per_cell
from lco_jax.data.records import Item
from lco_jax.data.sources.mixture import ExampleStream


@dataclass(frozen=True)
class Arguments:
    """How texts are tokenised, and over how many shards batches are dealt."""

    model: Path = SMOLLM2
    """Hub folder with the tokenizer; `lco fetch smollm2` makes it."""
    batch_size: int = 1056
    shards: int = 64
    num_batches: int = 5
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    """Measure, print."""
    prompter, size = Prompter(arguments.model), arguments.batch_size
    stream = ExampleStream(DataConfig((JsonlSource(str(TRIPLETS)),), batch_size=size), seed=0)
    packed, padded, tokens = [], [], []
    for first in range(0, arguments.num_batches * size, size):
        examples = [stream[index] for index in range(first, first + size)]
        items = [Item(text=x.text) for e in examples for x in (e.anchor, e.positive, *e.negatives)]
        lengths = item_lengths(prompter.encode(items)).reshape(size, -1)
        dealt = deal(lengths, arguments.shards)
        shape = choose_shape(
            measure(dealt.reshape(1, -1, dealt.shape[-1]), arguments.shards, Memory().row_tokens),
            Memory().row_tokens,
        )
        packed.append(shape.rows * shape.row_tokens)
        padded.append(padded_lengths(dealt).max())
        tokens.append(lengths.mean())
    figures = {
        "batches": arguments.num_batches,
        "item_tokens": round(float(np.mean(tokens)), 1),
        "padded_item_tokens": round(float(np.mean(padded))),
        "packed_slots": round(float(np.mean(packed))),
    }
    for name, value in figures.items():
        print(f"{name:20} {value:,}")
    if arguments.json:
        append_line(arguments.json, "padding", figures)


def deal(lengths: Int[np.ndarray, "I J"], num_shards: int) -> Int[np.ndarray, "G I J"]:
    """Examples in turn to every shard; places that are left over have length 0."""
    places = slots_per_cell(len(lengths), num_shards)
    padded = np.zeros((places * num_shards, lengths.shape[1]), lengths.dtype)
    padded[: len(lengths)] = lengths
    return padded.reshape(places, num_shards, -1).swapaxes(0, 1)


def padded_lengths(dealt: Int[np.ndarray, "G I J"]) -> Float[np.ndarray, "G"]:
    """Mean tokens of the items of each shard, each as long as the longest of its role there."""
    return dealt.max(axis=1).mean(axis=-1)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
