"""In which order sources are read: shuffled in each pass, and alternating by weight."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from lco_jax.data.sources.shuffle import shuffle

_LEAST_SHARE = 100
"""What the smallest weight becomes: sources alternate by whole numbers."""


def mix(
    blocks: Int64[np.ndarray, "N"], weights: Sequence[float]
) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
    """Which source serves each block of the endless sequence, and which of its blocks that is.

    A source serves a block where its number of blocks so far, which is the rounded share of all
    that sources before it leave, goes up.

    Source: grain.MapDataset.mix, for many blocks at once.
    """
    shares = [int(weight * (_LEAST_SHARE / min(weights))) for weight in weights]
    rest = sum(shares)
    # Whole numbers of any size, where products may be beyond 64 bits.
    kind = np.int64 if (int(blocks.max(initial=0)) + 1) * rest < 2**63 else object
    before = blocks.astype(kind)
    upto = before + 1
    sources = np.full(len(blocks), -1)
    own = np.zeros(len(blocks), np.int64)
    for source, share in enumerate(shares):
        later, later_upto = before * (rest - share) // rest, upto * (rest - share) // rest
        serves = (sources < 0) & (before - later != upto - later_upto)
        sources[serves] = source
        own[serves] = (upto - later_upto - 1)[serves]
        rest -= share
        before, upto = later, later_upto
        if not rest:
            break
    return sources, own


class Passes:
    """The numbers of a source's records in all passes over it, each in its own order and cut to
    whole batches.

    Args:
        size: of the source.
        position: of the source among the others, which makes its order its own.

    Source: grain.MapDataset.range(size).shuffle(seed).slice(...).repeat(), for many at once.
    """

    def __init__(self, size: int, seed: int, position: int, batch_size: int):
        self._size, self._length = size, size // batch_size * batch_size
        self._seed = int(np.random.SeedSequence([seed, position]).generate_state(1)[0])

    def __getitem__(self, places: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
        """The records at these places of the endless sequence."""
        passes, places = np.divmod(places, self._length)
        numbers = np.empty_like(places)
        for number in np.unique(passes).tolist():
            own = passes == number
            numbers[own] = shuffle(places[own], self._size, (self._seed + number) % 2**32)
        return numbers
