"""The baseline without a decoder: a medium is the mean of its features, a text that of its tokens'
embeddings. What an aligned tower says of single words is in it already.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from lco_jax.config import Memory
from lco_jax.data.encode.encoded import Known
from lco_jax.data.records import Item
from lco_jax.train.known_features import compiled_towers, compute_features
from lco_jax.train.loop import Snapshot
from lco_jax.weights.hub import to_host


def lexical_vectors(
    shown: Sequence[Item], named: Sequence[Item], snapshot: Snapshot
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N D"]]:
    """Unit vectors of items with one medium each, and of their texts.

    Raises:
        ValueError: an item does not have exactly one medium.
    """
    processor, graph = snapshot.processor, snapshot.graph
    read = []
    for number, item in enumerate(shown):
        media = processor.prompter.ordered_media(item)
        if len(media) != 1:
            raise ValueError(f"item {item.id or number} has {len(media)} media, expected one")
        read.append((str(number), processor.read_medium(*media[0])))
    with jax.set_mesh(snapshot.mesh):
        run = compiled_towers(graph)
        found = compute_features(read, processor, run, snapshot.params, snapshot.mesh, Memory())
        means = [_mean_feature(parts) for _, parts in found]
        table = to_host(snapshot.params["embed"]["table"])
    rows = processor.prompter.tokens_of([item.text for item in named])
    texts = [table[row].astype(np.float32).mean(axis=0) for row in rows]
    return _unit(np.stack(means)), _unit(np.stack(texts))


def _mean_feature(parts: list[Known]) -> Float[np.ndarray, "D"]:
    return np.concatenate([part.features for part in parts]).mean(axis=0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


BASELINES = {"lexical": lexical_vectors}
"""For the evaluations of a run; the lab's tables and reports know them by this name."""
