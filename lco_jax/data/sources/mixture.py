"""The one endless sequence that a mixture of sources makes."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int, Int64

from lco_jax.config import DataConfig
from lco_jax.data.records import Record, Triplet
from lco_jax.data.sources import order
from lco_jax.data.sources.open import OpenSource, open_source

_logger = logging.getLogger(__name__)


class ExampleStream:
    """The endless sequence of training examples: a pure function of seed, sources and index.

    Step `s` consumes the examples `s * batch_size` to `(s + 1) * batch_size - 1`, whatever the
    number of processes. Each source is shuffled anew in each pass over it. Sources alternate by
    weight, example by example, or batch by batch if the config says `homogeneous`.

    Raises:
        ValueError: a source is empty, what there is fills no batch, or positives are to be shuffled
            where there are none.
    """

    def __init__(self, config: DataConfig, seed: int, kind: type[Record] = Triplet):
        skip_bad = config.media.on_error == "skip"
        sources = [open_source(source, kind, skip_bad=skip_bad) for source in config.sources]
        weights = [source.weight for source in config.sources]
        num_examples = sum(map(len, sources))
        _check_sizes(sources, num_examples, config.batch_size)
        self.steps_per_epoch = num_examples // config.batch_size
        self._block = config.batch_size if config.homogeneous else 1
        # Batches of one source never straddle two passes: a repeated example is a false negative.
        whole_batches = config.homogeneous or len(sources) == 1
        for source, weight in zip(sources, weights, strict=True):
            share = 1.0 if whole_batches else weight / sum(weights)
            if len(source) >= share * config.batch_size:
                continue
            message = (
                f"batch_size={config.batch_size} takes {share * config.batch_size:.0f} examples of "
                f"{source.name}, which has {len(source)}"
            )
            if whole_batches:
                raise ValueError(f"{message}; use a smaller batch_size or more data")
            _logger.warning("%s: it will repeat examples inside a batch", message)
        self._sources = sources
        self._partners = None
        if config.shuffled_positives:
            self._partners = _draw_partners(sources, kind, seed)
        self._numbers = [
            order.Passes(len(source), seed, position, config.batch_size if whole_batches else 1)
            for position, source in enumerate(sources)
        ]
        self._weights = weights
        self.fingerprint = "; ".join(
            [f"{source.name} {len(source)} {source.digest}" for source in sources]
            + [f"order seed={seed} batch_size={config.batch_size} homogeneous={config.homogeneous}"]
            + [f"weights {' '.join(f'{weight:g}' for weight in weights)}"]
            + ["shuffled positives"] * config.shuffled_positives
        )
        """What decides the sequence, in words; see `is_same_sequence`."""

    def __getitem__(self, index: int) -> Record:
        ((position, number),) = self.find([index])
        return self.record(position, number)

    def record(self, position: int, number: int) -> Record:
        """What `find` has found."""
        record = self._sources[position].records[number]
        if self._partners is None:
            return record
        other = self._sources[position].records[int(self._partners[position][number])]
        return replace(record, positive=other.positive, negatives=other.negatives)

    def sizes_of(self, indices: Sequence[int]) -> Int64[np.ndarray, "N 3"]:
        """What is known of examples without reading them: the position of their source, and what
        `OpenSource.sizes_of` tells."""
        positions, numbers = self._find(indices)
        sizes = np.zeros((len(positions), 3), np.int64)
        for position in np.unique(positions).tolist():
            own = positions == position
            sizes[own, 0] = position
            if self._partners is None:  # else positives are those of other records
                sizes[own, 1:] = self._sources[position].sizes_of(numbers[own])
        return sizes

    def place_of(self, index: int) -> str:
        """Where the record of an example is, such as `FILE:LINE`."""
        ((position, number),) = self.find([index])
        return self.place_of_record(position, number)

    def place_of_record(self, position: int, number: int) -> str:
        """Where a record is that `find` has found."""
        return self._sources[position].place_of(number)

    def find(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """The source of each example by its position, and the number of its record there."""
        positions, numbers = self._find(indices)
        return list(zip(positions.tolist(), numbers.tolist(), strict=True))

    def _find(
        self, indices: Sequence[int]
    ) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
        blocks, offsets = np.divmod(np.asarray(indices, np.int64), self._block)
        positions, own_blocks = order.mix(blocks, self._weights)
        places = own_blocks * self._block + offsets
        numbers = np.empty_like(places)
        for position in np.unique(positions).tolist():
            own = positions == position
            numbers[own] = self._numbers[position][places[own]]
        return positions, numbers


def is_same_sequence(fingerprint: str, other: str) -> bool:
    """Whether two fingerprints are of the same examples in the same order; sources may be called
    otherwise, as the same file by another path is.
    """
    return _without_names(fingerprint) == _without_names(other)


def _without_names(fingerprint: str) -> list[str]:
    """Sizes and digests of the sources, then the rest; a name may be of any characters."""
    sources = re.findall(r"(?:^| )(\d+ [0-9a-f]{16})(?:; |$)", fingerprint)
    start = fingerprint.rfind("; order ")
    return [*sources, fingerprint[start:]] if sources else [fingerprint]


def _draw_partners(
    sources: list[OpenSource], kind: type[Record], seed: int
) -> list[Int[np.ndarray, "n"]]:
    """Of every source a permutation that leaves nothing in its place.

    Raises:
        ValueError: a source has a single example, or records have no positives.
    """
    if kind is not Triplet:
        raise ValueError("data.shuffled_positives is for contrastive stages; leave it out here")
    partners = []
    for position, source in enumerate(sources):
        if len(source) < 2:
            raise ValueError(f"{source.name} has 1 example, whose positive nothing can replace")
        order = np.random.default_rng([seed, position]).permutation(len(source))
        found = np.empty_like(order)
        found[order] = np.roll(order, 1)  # one circle through all
        partners.append(found)
    return partners


def _check_sizes(sources: list[OpenSource], num_examples: int, batch_size: int) -> None:
    for source in sources:
        if not len(source):
            raise ValueError(f"{source.name} holds no example; leave it out of data.sources")
    if num_examples < batch_size:
        sizes = ", ".join(f"{source.name} {len(source)}" for source in sources)
        raise ValueError(
            f"batch_size={batch_size} is more than all {num_examples} examples of the sources "
            f"({sizes}): they make no step; use a batch_size of at most {num_examples}, or more "
            "data"
        )
