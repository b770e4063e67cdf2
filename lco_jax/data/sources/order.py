"""In which order sources are read: shuffled in each pass, and alternating by weight."""

from collections.abc import Sequence

import grain
import numpy as np

from lco_jax.data.sources.open import OpenSource


def mix(weights: Sequence[float]) -> grain.MapDataset:
    """Endless pairs: which source serves block k, and which of its blocks that is."""
    return grain.MapDataset.mix(
        [_number_blocks(position) for position in range(len(weights))], weights
    )


def shuffle_endlessly(
    source: OpenSource, seed: int, position: int, batch_size: int
) -> grain.MapDataset:
    """The numbers of a source's records in all passes over it, each in its own order and cut to
    whole batches."""
    own_seed = int(np.random.SeedSequence([seed, position]).generate_state(1)[0])
    shuffled = grain.MapDataset.range(len(source)).shuffle(seed=own_seed)
    return shuffled.slice(slice(len(source) // batch_size * batch_size)).repeat()


def _number_blocks(position: int) -> grain.MapDataset:
    return grain.MapDataset.range(np.iinfo(np.int64).max).map(lambda block: (position, block))
